"""MaxPool and GlobalMaxPool: the largest element of each window; and what is left of them where that element is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Array
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.movement import Selection
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Relaxation, Window, check_mode, cropped
from onnxsub.ops.sliding import Sliding, read_sliding
from onnxsub.ops.windows import Windows, chords

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Chosen", "MaxPool", "MaxPoolRelaxation", "read_global_max_pool", "read_max_pool"]


@dataclass(frozen=True, eq=False)
class MaxPoolRelaxation(Relaxation):
    """`x_j <= y <= slope x_k + offset` for every output element, j and k elements of its window.

    Attributes:
        below, above: j and k as flat positions within the channel, `(B, C, P)` for P output positions.
        slope, offset: `(B, C, P)`.
        in_spatial, out_spatial: spatial shapes.
    """

    below: Tensor
    above: Tensor
    slope: Tensor
    offset: Tensor
    in_spatial: tuple[int, ...]
    out_spatial: tuple[int, ...]

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        b, r, c = a.shape[:3]
        if window:
            whole = a.new_zeros((b, r, c, *self.out_spatial))
            cropped(whole, window).copy_(a)
            a = whole
        a = a.reshape(b, r, c, -1)
        positive, negative = a.clamp(min=0), a.clamp(max=0)
        shape = (b, r, c, a.shape[-1])
        result = a.new_zeros((b, r, c, math.prod(self.in_spatial)))
        result = result.scatter_add(-1, self.below.unsqueeze(1).expand(shape), positive)
        result = result.scatter_add(-1, self.above.unsqueeze(1).expand(shape), negative * self.slope.unsqueeze(1))
        offset = self.offset.unsqueeze(1)
        bias = (negative * offset).sum((-1, -2))
        if bias.device.type == "cpu" and bool(torch.isnan(bias).any()):  # 0 inf = 0
            bias = torch.where(negative < 0, negative * offset, torch.zeros_like(negative)).sum((-1, -2))
        return result.reshape(b, r, c, *self.in_spatial), bias


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Windows):
    """`y[c, o] = max_k x[c, o stride + k dilation - before]`, padding left out."""

    sliding: Sliding

    @cached_property
    def index(self) -> Array:
        """Flat input position within the channel of every element of every window, `(P, K)`; -1 for padding."""
        s = self.sliding
        out, ker, inp = s.pairs()
        index = np.full((math.prod(s.out_spatial), math.prod(s.kernel)), -1, dtype=np.int64)
        index[out, ker] = inp
        return index

    def forward(self, *xs: Tensor) -> Tensor:
        s, f = self.sliding, torch.nn.functional
        pool = (f.max_pool1d, f.max_pool2d, f.max_pool3d)[len(s.kernel) - 1]
        result: Tensor = pool(s.padded(xs[0], -math.inf), s.kernel, s.strides, 0, s.dilations)
        return result

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> MaxPoolRelaxation:
        check_mode(mode)
        index: Tensor = self.cached(("index", lower.device), lambda: torch.as_tensor(self.index, device=lower.device))
        low, high = (_windows(t, index) for t in (lower, upper))
        found = chords(low, high)
        positions = index.expand(*low.shape)
        below, above = (positions.gather(-1, k.unsqueeze(-1)).squeeze(-1) for k in (found.below, found.above))
        return MaxPoolRelaxation(
            below=below, above=above, slope=found.slope, offset=found.offset,
            in_spatial=self.sliding.in_spatial, out_spatial=self.sliding.out_spatial,
        )  # fmt: skip

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """MaxPool with the padding that its windows meet, written out."""
        s = self.sliding
        # onnxruntime takes padding below the kernel's size only; what a dilated window needs beyond, ceil_mode adds behind
        after = [min(max(0, a), k - 1) for a, k in zip(s.after, s.kernel, strict=True)]
        short = [max(0, a) - b for a, b in zip(s.after, after, strict=True)]
        if any(n >= step for n, step in zip(short, s.strides, strict=True)) or not all(
            0 <= b < k for b, k in zip(s.before, s.kernel, strict=True)
        ):
            raise UnsupportedOperatorError(
                f"{self.op_type} (node {self.node!r}) has more padding than a folded file can state (kernel {list(s.kernel)}, "
                f"dilations {list(s.dilations)}); use --layout inplace"
            )
        writer.node(
            "MaxPool", inputs, output, kernel_shape=list(s.kernel), strides=list(s.strides), pads=[*s.before, *after],
            dilations=None if s.dilations == (1,) * len(s.kernel) else list(s.dilations), ceil_mode=1 if any(short) else None,
        )  # fmt: skip

    @cached_property
    def table(self) -> Array:
        channels, size = self.in_shapes[0][0], math.prod(self.sliding.in_spatial)
        shifted = self.index[None] + (np.arange(channels) * size)[:, None, None]
        return np.where(self.index[None] < 0, -1, shifted).reshape(-1, self.index.shape[1])


@dataclass(frozen=True, eq=False, kw_only=True)
class Chosen(Selection):
    """MaxPool with the element of every window fixed.

    Attributes:
        index: its flat position in the input, `out_shape`.
    """

    index: Array

    def linear(self, *xs: Tensor) -> Tensor:
        flat = xs[0].flatten(1)[:, torch.as_tensor(self.index.reshape(-1))]
        return flat.reshape(-1, *self.out_shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        flat = a.new_zeros((a.shape[0], math.prod(self.in_shapes[0])))
        flat.index_add_(1, torch.as_tensor(self.index.reshape(-1)), a.flatten(1))
        return (flat.reshape(-1, *self.in_shapes[0]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        flat = writer.fresh(f"{output}/flat")
        writer.reshape(inputs[0], flat, (math.prod(self.in_shapes[0]),))
        positions = writer.integers(output, "index", self.index.reshape(-1))
        writer.reshape(writer.step("Gather", (flat, positions), output, "chosen", axis=1), output, self.out_shape)


def _windows(x: Tensor, index: Tensor) -> Tensor:
    """The elements of every window, `(B, C, P, K)`; -inf for padding."""
    flat = torch.nn.functional.pad(x.flatten(2), (0, 1), value=-math.inf)
    return flat[..., index]


def _read(node: Node, kernel: tuple[int, ...]) -> tuple[MaxPool, ...]:
    if any(node.outputs[1:]):
        raise node.refuse("its output Indices is used")
    sliding = read_sliding(node, kernel, node.outputs[0], only_variable(node))
    op = MaxPool(**node.common(), sliding=sliding)
    if (op.index < 0).all(axis=1).any():
        raise node.refuse("a window lies in the padding only")
    return (op,)


def read_max_pool(node: Node) -> tuple[MaxPool, ...]:
    """MaxPool; the output Indices is refused."""
    return _read(node, tuple(int(k) for k in node.attributes["kernel_shape"]))


def read_global_max_pool(node: Node) -> tuple[MaxPool, ...]:
    """The maximum over all spatial axes."""
    return _read(node, node.sample_shape(only_variable(node))[1:])
