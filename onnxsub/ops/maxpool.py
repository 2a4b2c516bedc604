"""MaxPool and GlobalMaxPool: the largest element of each window; and what is left of them where that element is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Array, Box, Nonlinear
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.interval_rows import Rows, times
from onnxsub.ops.movement import Selection
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Relaxation, Window, check_mode, cropped
from onnxsub.ops.sliding import Sliding, read_sliding

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
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
class MaxPool(Nonlinear):
    """`y[c, o] = max_k x[c, o stride + k dilation - before]`, padding left out.

    Linear bounds: below the element with the largest lower end; above, with k the element of the largest upper end and M the
    largest upper end of the others, the chord of `max(x_k, M)` (x_k itself where `l_k >= M`).
    """

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

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        return self.forward(lower), self.forward(upper)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> MaxPoolRelaxation:
        check_mode(mode)
        index: Tensor = self.cached(("index", lower.device), lambda: torch.as_tensor(self.index, device=lower.device))
        low, high = (_windows(t, index) for t in (lower, upper))
        # ties of lower ends go to the larger upper end: that element is the exact maximum whenever one is
        below = high.masked_fill(low < low.amax(-1, keepdim=True), -math.inf).argmax(-1, keepdim=True)
        # a lower end may be -inf, which must still win against padding
        known = low.clamp(min=torch.finfo(low.dtype).min)
        above = known.masked_fill(high < high.amax(-1, keepdim=True), -math.inf).argmax(-1, keepdim=True)
        others = high.scatter(-1, above, -math.inf).amax(-1)
        l, u = low.gather(-1, above).squeeze(-1), high.gather(-1, above).squeeze(-1)
        exact = l >= others
        split = ~exact & (u > others)
        # halves: the width of an interval may overflow where its ends do not
        width = torch.where(split, u / 2 - l / 2, torch.ones_like(u))
        endless = ~torch.isfinite(width)
        zero = torch.zeros_like(u)
        slope = torch.where(split, torch.where(endless, zero, (u / 2 - others / 2) / width), exact.to(u.dtype))
        # through (l, M) and (u, u); M itself where the upper ends tie; u where the interval has no end
        offset = torch.where(split, torch.where(endless, u, others - slope * l), torch.where(exact, zero, others))
        positions = index.expand(*low.shape)
        return MaxPoolRelaxation(
            below=positions.gather(-1, below).squeeze(-1), above=positions.gather(-1, above).squeeze(-1),
            slope=slope, offset=offset,
            in_spatial=self.sliding.in_spatial, out_spatial=self.sliding.out_spatial,
        )  # fmt: skip

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        """Per window `y >= x_j`, `y <= x_j + (max_{k != j} u_k - l_j) (1 - a_j)`, `sum a = 1`, a binary (Tjeng et al. 2019).

        Elements that another one always exceeds are left out; a window with one element left is that element.
        """
        lower, upper = encoder.bounds(self.output)
        candidates = self.candidates()
        low = np.where(candidates < 0, -np.inf, lower[candidates])
        high = np.where(candidates < 0, -np.inf, upper[candidates])
        rows = np.arange(len(candidates))
        floor = low.max(axis=1)
        first = np.where(low == floor[:, None], high, -np.inf).argmax(axis=1)
        alive = high > floor[:, None]
        alive[rows, first] = True
        high = np.where(alive, high, -np.inf)
        single = np.flatnonzero(alive.sum(axis=1) == 1)
        open_ = np.flatnonzero(alive.sum(axis=1) > 1)
        y = xs[0].take(candidates[single, first[single]]).spread(single, len(candidates))
        if len(open_) == 0:
            return y
        high, alive = high[open_], alive[open_]
        window, element = np.nonzero(alive)
        position = candidates[open_][window, element]
        used = np.unique(position)
        x = encoder.variables(xs[0].take(used), lower[used], upper[used]).take(np.searchsorted(used, position))
        most = high.max(axis=1)
        result = encoder.continuous(floor[open_], most)
        switch = encoder.binary(len(window))
        # the largest upper end among the others: the second largest for the element that has the largest
        best = high.argmax(axis=1)
        rest = high.copy()
        rest[np.arange(len(rest)), best] = -np.inf
        bound = np.where(element == best[window], rest.max(axis=1)[window], most[window]) - lower[position]
        gap = result.take(window) - x
        encoder.rows(gap, 0.0, np.inf)
        encoder.rows(gap + switch.scale(bound), -np.inf, bound)
        import scipy.sparse as sp

        sums = sp.csr_array((np.ones(len(window)), (window, np.arange(len(window)))), shape=(len(open_), len(window)))
        encoder.rows(switch.apply(sums), 1.0, 1.0)
        return y + result.spread(open_, len(candidates))

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """The slope of a window's element is 1 where no other one can be the largest, 0 where it cannot be, else in [0, 1]."""
        ((lower, upper),) = boxes
        index = torch.as_tensor(self.index)
        low, high = (_windows(t, index)[0] for t in (lower, upper))
        able = ~(high < low.amax(-1, keepdim=True))  # also where an end is not a number
        sole = able & (able.sum(-1, keepdim=True) == 1)
        count, channels = rows[0].shape[:2]
        centre, radius = (t.reshape(count, channels, -1, 1) for t in rows)
        products = times((centre, radius), sole.to(lower.dtype), able.to(lower.dtype))
        size = math.prod(self.sliding.in_spatial)
        where = torch.where(index < 0, size, index).reshape(1, 1, -1).expand(count, channels, -1)
        found = []
        for t in products:
            whole = t.new_zeros((count, channels, size + 1))
            whole.scatter_add_(-1, where, t.reshape(count, channels, -1))
            found.append(whole[..., :size].reshape(count, *self.in_shapes[0]))
        return ((found[0], found[1]),)

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

    def candidates(self) -> Array:
        """Flat input positions of every window of the whole tensor, `(C P, K)`; -1 for padding."""
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
