"""Windows that slide over spatial axes: the geometry that Conv, ConvTranspose and the pooling operators share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.relaxation import Window
else:
    from onnxsub.lazy import torch

__all__ = ["Sliding", "read_sliding"]

_FOLD_ELEMENTS = 2**17
"""Window elements at a time (1 MiB): what stays in a core's cache."""

_POOLS = ("AveragePool", "LpPool", "MaxPool")

_THIN = 32
"""Up to this many output positions (measured) one product for all samples is faster than one for each."""


@dataclass(frozen=True)
class Sliding:
    """Output position o meets, with kernel position k, input position `o stride + k dilation - before`, per spatial axis.

    Attributes:
        kernel, strides, dilations, before: per axis; `before` is the padding in front. What padding there must be behind
            follows from the two shapes.
        in_spatial, out_spatial: spatial shapes.
    """

    kernel: Shape
    strides: Shape
    dilations: Shape
    before: Shape
    in_spatial: Shape
    out_spatial: Shape

    @property
    def extent(self) -> Shape:
        """What one window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def spans(self) -> Shape:
        """What all windows together span, padding included."""
        return tuple((o - 1) * s + e for o, s, e in zip(self.out_spatial, self.strides, self.extent, strict=True))

    @property
    def after(self) -> Shape:
        """Padding behind that the last window needs; negative where the end of the input is met by no window."""
        return tuple(n - i - b for n, i, b in zip(self.spans, self.in_spatial, self.before, strict=True))

    @property
    def symmetric(self) -> bool:
        """Whether torch, which pads both sides alike, arrives at `out_spatial` by itself."""
        axes = zip(self.in_spatial, self.out_spatial, self.before, self.extent, self.strides, strict=True)
        return all(b >= 0 and i + 2 * b >= e and (i + 2 * b - e) // s + 1 == o for i, o, b, e, s in axes)

    def padded(self, x: Tensor, value: float = 0.0) -> Tensor:
        """`x` `(..., *in_spatial)` padded (or cropped) to `spans`."""
        pads = [p for b, a in zip(reversed(self.before), reversed(self.after), strict=True) for p in (b, a)]
        return _moved(x, pads, value)

    def correlate(self, x: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Convolution of `x` `(N, C, *in_spatial)` with `weight` `(C_out, C / groups, *kernel)`."""
        f = torch.nn.functional
        conv = (f.conv1d, f.conv2d, f.conv3d)[len(self.kernel) - 1]
        if self.symmetric:
            return conv(x, weight, None, self.strides, self.before, self.dilations, groups)
        return conv(self.padded(x), weight, None, self.strides, 0, self.dilations, groups)

    def spread(self, a: Tensor, weight: Tensor, groups: int) -> Tensor:
        """The transpose of `correlate`: `a` `(N, C_out, *out_spatial)` to `(N, C, *in_spatial)`."""
        if len(a) and len(self.kernel) == 2 and a.dtype == torch.float64 and a.device.type == "cpu":
            return self._spread_by_fold(a, weight, groups)
        f = torch.nn.functional
        conv = (f.conv_transpose1d, f.conv_transpose2d, f.conv_transpose3d)[len(self.kernel) - 1]
        if self.symmetric:
            axes = zip(self.in_spatial, self.spans, self.before, strict=True)
            rest = [i + 2 * b - n for i, n, b in axes]
            return conv(a, weight, None, self.strides, self.before, rest, groups, self.dilations)
        full = conv(a, weight, None, self.strides, 0, 0, groups, self.dilations)
        pads = [-p for b, e in zip(reversed(self.before), reversed(self.after), strict=True) for p in (b, e)]
        return _moved(full, pads)

    def _spread_by_fold(self, a: Tensor, weight: Tensor, groups: int) -> Tensor:
        """`spread` as a matrix product and a sum of overlapping windows, a piece of the batch at a time.

        Half the time of torch's own transposed convolution, which has no fast path for float64 on a CPU.
        """
        n, f = a.shape[0], torch.nn.functional
        out, c = weight.shape[0] // groups, weight.shape[1]
        kernels = weight.reshape(groups, out, -1)
        flat = a.reshape(n, groups, out, -1)
        # few positions (a cropped tensor): one product over samples and positions together, not a thousand thin ones
        thin = groups == 1 and flat.shape[-1] <= _THIN
        size, before = (self.in_spatial, self.before) if self.symmetric else (self.spans, (0, 0))
        step = max(1, _FOLD_ELEMENTS // max(1, groups * kernels.shape[2] * flat.shape[-1]))
        pieces = []
        for start in range(0, n, step):
            part = flat[start : start + step]
            if thin:
                columns = torch.matmul(part[:, 0].transpose(1, 2), kernels[0]).transpose(1, 2)
            else:
                columns = torch.matmul(kernels.transpose(1, 2), part).flatten(1, 2)
            pieces.append(f.fold(columns, size, self.kernel, self.dilations, before, self.strides))
        full = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if self.symmetric:
            return full.reshape(n, groups * c, *self.in_spatial)
        pads = [-p for b, e in zip(reversed(self.before), reversed(self.after), strict=True) for p in (b, e)]
        return _moved(full, pads)

    def spread_window(self, a: Tensor, weight: Tensor, groups: int, window: Window) -> tuple[Tensor, Window]:
        """`spread` for `a` cropped to the output positions `window`, cropped to the input positions that it meets."""
        starts, stops, before = [], [], []
        axes = zip(window, self.out_spatial, self.in_spatial, self.strides, self.before, self.extent, strict=True)
        for w, o, i, s, b, e in axes:
            first, last, _ = w.indices(o)
            start = min(max(first * s - b, 0), i)
            starts.append(start)
            stops.append(max(start, min((last - 1) * s - b + e, i)))
            before.append(start - (first * s - b))
        where = tuple(slice(p, q) for p, q in zip(starts, stops, strict=True))
        size = tuple(q - p for p, q in zip(starts, stops, strict=True))
        if 0 in size or 0 in a.shape:
            return a.new_zeros((a.shape[0], groups * weight.shape[1], *size)), where
        part = Sliding(self.kernel, self.strides, self.dilations, tuple(before), size, tuple(a.shape[2:]))
        return part.spread(a, weight, groups), where

    def pairs(self) -> tuple[Array, Array, Array]:
        """Every (output position, kernel position, input position) that meet, as flat indices; padding left out."""
        out = np.zeros(1, dtype=np.int64)
        ker, inp = out, out
        for o, k, i, s, d, b in zip(
            self.out_spatial, self.kernel, self.in_spatial, self.strides, self.dilations, self.before, strict=True
        ):
            oo, kk = (g.reshape(-1) for g in np.meshgrid(np.arange(o), np.arange(k), indexing="ij"))
            ii = oo * s + kk * d - b
            oo, kk, ii = (g[(ii >= 0) & (ii < i)] for g in (oo, kk, ii))
            out, ker, inp = (
                (have[:, None] * n + new[None, :]).reshape(-1) for have, n, new in ((out, o, oo), (ker, k, kk), (inp, i, ii))
            )
        return out, ker, inp

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str, groups: int) -> None:
        """A Conv with this geometry; the end of the input that no window meets is no padding."""
        writer.node(
            "Conv", inputs, output, group=groups, strides=list(self.strides), dilations=list(self.dilations),
            pads=[*self.before, *[max(0, a) for a in self.after]],
        )  # fmt: skip


def _moved(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    """`torch.nn.functional.pad`, padding before it crops: what is cropped may be longer than the tensor was."""
    pad = torch.nn.functional.pad
    for part in ([max(p, 0) for p in pads], [min(p, 0) for p in pads]):
        x = pad(x, part, value=value) if any(part) else x
    return x


def read_sliding(node: Node, kernel: Shape, small: str, large: str) -> Sliding:
    """The geometry of a node whose windows slide over tensor `large` and lead to tensor `small` (swapped for ConvTranspose)."""
    wide, narrow = node.sample_shape(large)[1:], node.sample_shape(small)[1:]
    rank = len(kernel)
    if not 1 <= rank <= 3 or len(wide) != rank or len(narrow) != rank:
        raise node.refuse(f"{rank} spatial axes (kernel {list(kernel)}) on a tensor of shape {list(node.shapes[large])}")
    strides = _per_axis(node, "strides", rank)
    dilations = _per_axis(node, "dilations", rank)
    sliding = Sliding(kernel, strides, dilations, (0,) * rank, wide, narrow)
    mode = node.attributes.get("auto_pad", "NOTSET")
    pads = [int(p) for p in node.attributes.get("pads") or [0] * (2 * rank)]
    if len(pads) != 2 * rank or min(pads) < 0:
        raise node.refuse(f"pads {pads}")
    before = tuple(pads[:rank])
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(n - i, 0) for n, i in zip(sliding.spans, wide, strict=True)]
        before = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total)
    elif mode == "VALID":
        before = (0,) * rank
    elif mode != "NOTSET":
        raise node.refuse(f"auto_pad {mode!r}")
    found = Sliding(kernel, strides, dilations, before, wide, narrow)
    if node.op_type in _POOLS:
        _check_pool(node, found, mode, pads[rank:])
    return found


def _check_pool(node: Node, sliding: Sliding, mode: str, behind: list[int]) -> None:
    """Raises UnsupportedOperatorError where onnxruntime's windows are not those of the operator's definition.

    It places windows with SAME padding as if they had no dilation, moves them inward where two elements or more are left over, and
    lets ceil_mode add none there; LpPool has no ceil_mode there at all. A window that is larger than what it slides over is no
    window at all by the definition.
    """
    ceil, lp = bool(node.attributes.get("ceil_mode", 0)), node.op_type == "LpPool"
    if not mode.startswith("SAME"):
        beyond = any(a > b for a, b in zip(sliding.after, behind if mode == "NOTSET" else [0] * len(behind), strict=True))
        if beyond and (lp or not ceil):
            raise node.refuse("a window reaches beyond the padding, of which onnxruntime makes something else")
        return
    if max(sliding.dilations) > 1:
        raise node.refuse(f"auto_pad {mode!r} with dilations {list(sliding.dilations)}, which onnxruntime leaves out of account")
    axes = zip(sliding.in_spatial, sliding.out_spatial, sliding.strides, sliding.spans, strict=True)
    if any(i - n >= 2 or o != -(-i // s) for i, o, s, n in axes):
        raise node.refuse(f"auto_pad {mode!r} with windows so far apart that onnxruntime places them elsewhere")


def _per_axis(node: Node, name: str, rank: int) -> Shape:
    values = tuple(int(v) for v in node.attributes.get(name) or [1] * rank)
    if len(values) != rank or min(values) < 1:
        raise node.refuse(f"{name} {list(values)}")
    return values
