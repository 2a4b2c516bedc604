"""AveragePool: means over windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array
from onnxsub.ops.broadcast import crop, only_variable
from onnxsub.ops.node import Node
from onnxsub.ops.sliding import Sliding, read_sliding

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.relaxation import Window
else:
    from onnxsub.lazy import torch

__all__ = ["AveragePool", "read_average_pool"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Affine):
    """`y[c, o] = share[o] * sum_k x[c, o stride + k dilation - before]`.

    Attributes:
        share: `out_spatial`, one over the number of elements that count in each window.
        sliding: where the windows lie.
    """

    share: Array
    sliding: Sliding

    def linear(self, *xs: Tensor) -> Tensor:
        x = xs[0]
        # every channel by itself: the channels join the batch axis, which is faster than a convolution in groups
        single = x.reshape(-1, 1, *self.sliding.in_spatial)
        sums = self.sliding.correlate(single, self._ones(x), 1)
        return sums.reshape(x.shape[0], *self.out_shape) * self.tensor("share", x)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        single = (a * self.tensor("share", a)).reshape(-1, 1, *self.sliding.out_spatial)
        return (self.sliding.spread(single, self._ones(a), 1).reshape(a.shape[0], *self.in_shapes[0]),)

    def transpose_window(self, a: Tensor, window: Window) -> tuple[Tensor, Window] | None:
        if len(window) != len(self.sliding.kernel):
            return None
        shares = a * crop(self.tensor("share", a), window)
        y, where = self.sliding.spread_window(shares.flatten(0, 1).unsqueeze(1), self._ones(a), 1, window)
        return y.reshape(*a.shape[:2], *y.shape[2:]), where

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        # the sums of every channel by itself, then the share of each window: means that leave padding out are none of one factor
        ones = np.ones((self.in_shapes[0][0], 1, *self.sliding.kernel))
        sums = writer.fresh(f"{output}/sums")
        self.sliding.to_onnx(writer, (inputs[0], writer.weight(output, "ones", ones)), sums, len(ones))
        writer.node("Mul", (sums, writer.weight(output, "share", self.share)), output)

    def _ones(self, like: Tensor) -> Tensor:
        return torch.ones((1, 1, *self.sliding.kernel), dtype=like.dtype, device=like.device)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        out, _, inp = self.sliding.pairs()
        shape = (self.share.size, int(np.prod(self.sliding.in_spatial)))
        one = sp.coo_array((self.share.reshape(-1)[out], (out, inp)), shape=shape)
        return (sp.csr_array(sp.kron(sp.eye_array(self.in_shapes[0][0]), one, format="csr")),)


def read_average_pool(node: Node) -> tuple[AveragePool, ...]:
    """AveragePool; with `count_include_pad` the declared padding counts, what `ceil_mode` adds behind it never does."""
    kernel = tuple(int(k) for k in node.attributes["kernel_shape"])
    sliding = read_sliding(node, kernel, node.outputs[0], only_variable(node))
    out = sliding.out_spatial
    counted = sliding.pairs()[0]
    if np.bincount(counted, minlength=int(np.prod(out))).min() == 0:
        # readers do not agree on whether such a window exists at all
        raise node.refuse("a window lies in the padding only")
    if node.attributes.get("count_include_pad", 0):
        pads = node.attributes.get("pads") or [0] * (2 * len(kernel))
        behind = [int(p) for p in pads[len(kernel) :]]
        mode = node.attributes.get("auto_pad", "NOTSET")
        if mode != "NOTSET":
            behind = [0 if mode == "VALID" else max(a, 0) for a in sliding.after]
        axes = zip(sliding.in_spatial, sliding.before, behind, strict=True)
        padded = Sliding(kernel, sliding.strides, sliding.dilations, (0,) * len(kernel), tuple(i + b + a for i, b, a in axes), out)
        counted = padded.pairs()[0]
    count = np.bincount(counted, minlength=int(np.prod(out)))
    return (AveragePool(**node.common(), share=(1.0 / count).reshape(out), sliding=sliding),)
