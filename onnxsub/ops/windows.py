r"""Windows: operators whose every output is the largest of some elements of the input, `y_w = max_k x[table[w, k]]`.

MaxPool, ReduceMax and the maximum of several tensors are of this kind; a minimum is `-max(-x)`. A window is a unit of its own kind:
it is *fixed* on a box where one of its elements is the largest whatever the input is.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Box, Nonlinear
from onnxsub.ops.interval_rows import Rows, times
from onnxsub.ops.relaxation import Relaxation, Window, check_mode, cropped

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.picked import Picked
else:
    from onnxsub.lazy import torch

__all__ = ["Chords", "WindowLines", "WindowMax", "Windows", "choices", "chords", "contenders", "encode_windows", "switches"]


@dataclass(frozen=True, eq=False)
class Chords:
    """Per window the element below and the chord above, each `(..., W)`: `x_below <= y <= slope x_above + offset`.

    `below` and `above` count within the window, or are positions, as the maker says.
    """

    below: Tensor
    above: Tensor
    slope: Tensor
    offset: Tensor


def chords(low: Tensor, high: Tensor) -> Chords:
    """Bounds of the maximum of elements within `[low, high]`, `(..., K)`; -inf in both stands for no element.

    Below: the element with the largest lower end. Above, with k the element of the largest upper end and M the largest upper end of
    the others: the chord of `max(x_k, M)` (x_k itself where `l_k >= M`).
    """
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
    return Chords(below.squeeze(-1), above.squeeze(-1), slope, offset)


def contenders(table: Array, lower: Array, upper: Array) -> Array:
    """Which elements of each window can be the largest one on a box, `(W, K)`; exactly one where the window is fixed.

    Elements that another one always reaches are left out; of several that are the same number one is left.

    Args:
        table: `(W, K)`; -1 for no element.
        lower, upper: flat.
    """
    low, high = (np.where(table < 0, -np.inf, end[table]) for end in (lower, upper))
    floor = low.max(axis=1)
    first = np.where(low == floor[:, None], high, -np.inf).argmax(axis=1)
    found: Array = (table >= 0) & ~(high <= floor[:, None])  # also where an end is not a number
    found[np.arange(len(table)), first] = True
    return found


def choices(table: Array, lower: Array, upper: Array) -> int:
    """How many choices are left on a box: of a window with m elements that can be the largest, m - 1."""
    return int((contenders(table, lower, upper).sum(axis=1) - 1).sum())


def switches(table: Array, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Window and flat position of the element that each binary of `encode_windows` stands for, in the order of the columns."""
    alive = contenders(table, lower, upper)
    open_ = np.flatnonzero(alive.sum(axis=1) > 1)
    window, element = np.nonzero(alive[open_])
    return open_[window], table[open_[window], element]


def encode_windows(encoder: Encoder, x: LinExpr, table: Array, lower: Array, upper: Array) -> LinExpr:
    """Per window `y >= x_j`, `y <= x_j + (max_{k != j} u_k - l_j) (1 - a_j)`, `sum a = 1`, a binary (Tjeng et al. 2019).

    Only elements that can win have a binary; a window with one such element is that element.
    """
    alive = contenders(table, lower, upper)
    count = alive.sum(axis=1)
    single, open_ = np.flatnonzero(count == 1), np.flatnonzero(count > 1)
    y = x.take(table[single, alive[single].argmax(axis=1)]).spread(single, len(table))
    if len(open_) == 0:
        return y
    alive = alive[open_]
    low, high = (np.where(alive, end[table[open_]], -np.inf) for end in (lower, upper))
    window, element = np.nonzero(alive)
    position = table[open_][window, element]
    used = np.unique(position)
    columns = encoder.variables(x.take(used), lower[used], upper[used]).take(np.searchsorted(used, position))
    most = high.max(axis=1)
    result = encoder.continuous(low.max(axis=1), most)
    switch = encoder.binary(len(window))
    # the largest upper end among the others: the second largest for the element that has the largest
    best = high.argmax(axis=1)
    rest = high.copy()
    rest[np.arange(len(rest)), best] = -np.inf
    bound = np.where(element == best[window], rest.max(axis=1)[window], most[window]) - lower[position]
    gap = result.take(window) - columns
    encoder.rows(gap, 0.0, np.inf)
    encoder.rows(gap + switch.scale(bound), -np.inf, bound)
    import scipy.sparse as sp

    sums = sp.csr_array((np.ones(len(window)), (window, np.arange(len(window)))), shape=(len(open_), len(window)))
    encoder.rows(switch.apply(sums), 1.0, 1.0)
    return y + result.spread(open_, len(table))


@dataclass(frozen=True, eq=False)
class WindowLines(Relaxation):
    """Chords for the windows `index`, and the line `picked` for all others, exactly.

    Attributes:
        index: `(W',)`, flat positions in the output.
        chords: `(B, W')`, with positions in the flat input.
        picked: zero for the windows `index`; None where there are no others.
        in_shape, out_shape: of the operator.
    """

    index: Tensor
    chords: Chords
    picked: Picked | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def parallel(self) -> bool:
        return len(self.index) == 0

    def both(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor, Tensor]:
        if not self.parallel:
            return super().both(a, window)
        data, bias = self.lower(a, window)
        return data, bias, bias

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        b, r = a.shape[:2]
        if window:
            whole = a.new_zeros((b, r, *self.out_shape))
            cropped(whole, window).copy_(a)
            a = whole
        size, c = math.prod(self.in_shape), self.chords
        flat = a.reshape(b, r, math.prod(self.out_shape))
        if self.picked is None:
            result, bias = flat.new_zeros((b, r, size)), flat.new_zeros((b, r))
        else:
            (found,) = self.picked.transpose(a.reshape(b * r, *self.out_shape))
            result = found.reshape(b, r, size)
            offset = self.picked.offset(a)
            bias = flat.new_zeros((b, r)) if offset is None else torch.matmul(flat, offset.reshape(-1))
        if len(self.index):
            part = flat if len(self.index) == flat.shape[-1] else flat[..., self.index]
            positive, negative = part.clamp(min=0), part.clamp(max=0)
            shape = part.shape
            result = result.scatter_add(-1, c.below.unsqueeze(1).expand(shape), positive)
            result = result.scatter_add(-1, c.above.unsqueeze(1).expand(shape), negative * c.slope.unsqueeze(1))
            terms = negative * c.offset.unsqueeze(1)
            above = terms.sum(-1)
            if above.device.type == "cpu" and bool(torch.isnan(above).any()):  # 0 inf = 0
                above = torch.where(negative < 0, terms, torch.zeros_like(terms)).sum(-1)
            bias = bias + above
        return result.reshape(b, r, *self.in_shape), bias


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows(Nonlinear):
    """Every output is the largest of some input elements."""

    @property
    @abc.abstractmethod
    def table(self) -> Array:
        """Flat input positions of every window, `(out_size, K)`, int64; -1 for no element. Every window has an element."""

    def index_tensor(self, like: Tensor) -> Tensor:
        """`table` on a device, with the position behind the last element in place of -1."""
        size = math.prod(self.in_shapes[0])
        made: Tensor = self.cached(
            ("table", like.device), lambda: torch.as_tensor(np.where(self.table < 0, size, self.table), device=like.device)
        )
        return made

    def gathered(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """The elements of every window (or of some), `(B, W, K)`; -inf where there is none."""
        index = self.index_tensor(x)
        flat = x.reshape(len(x), math.prod(self.in_shapes[0]))
        return torch.nn.functional.pad(flat, (0, 1), value=-math.inf)[:, index if windows is None else index[windows]]

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0]
        return self.forward(lower), self.forward(upper)

    def lines(self, lower: Tensor, upper: Tensor, windows: Tensor, picked: Picked | None = None) -> WindowLines:
        """Chords for `windows` (flat output positions) on `[lower, upper]` `(B, *in_shape)`, `picked` for the others."""
        found = chords(self.gathered(lower, windows), self.gathered(upper, windows))
        index = self.index_tensor(lower)[windows].expand(len(lower), -1, -1)
        below, above = (index.gather(-1, k.unsqueeze(-1)).squeeze(-1) for k in (found.below, found.above))
        return WindowLines(windows, Chords(below, above, found.slope, found.offset), picked, self.in_shapes[0], self.out_shape)

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        return encode_windows(encoder, xs[0], self.table, *encoder.bounds(self.output))

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """The slope of a window's element is 1 where no other one can be the largest, 0 where it cannot be, else in [0, 1]."""
        ((lower, upper),) = boxes
        low, high = self.gathered(lower)[0], self.gathered(upper)[0]
        index = self.index_tensor(lower)
        size = math.prod(self.in_shapes[0])
        # also where an end is not a number
        able = ~(high < low.amax(-1, keepdim=True)) & (index < size)
        sole = able & (able.sum(-1, keepdim=True) == 1)
        count = rows[0].shape[0]
        centre, radius = (t.reshape(count, self.out_size, 1) for t in rows)
        found = []
        for t in times((centre, radius), sole.to(lower.dtype), able.to(lower.dtype)):
            whole = t.new_zeros((count, size + 1))
            whole = whole.index_add(1, index.reshape(-1), t.reshape(count, index.numel()))
            found.append(whole[:, :size].reshape(count, *self.in_shapes[0]))
        return ((found[0], found[1]),)


@dataclass(frozen=True, eq=False, kw_only=True)
class WindowMax(Windows):
    """Windows that a table states.

    Attributes:
        windows: the `table`.
    """

    windows: Array

    def __post_init__(self) -> None:
        size = math.prod(self.in_shapes[0])
        if self.windows.ndim != 2 or len(self.windows) != self.out_size or self.windows.max(initial=-1) >= size:
            raise ValueError(f"{self.op_type} {self.node!r}: its windows do not fit {self.in_shapes[0]} to {self.out_shape}")
        if (self.windows < 0).all(axis=1).any():
            raise ValueError(f"{self.op_type} {self.node!r}: a window has no element")

    @property
    def table(self) -> Array:
        return self.windows

    def forward(self, *xs: Tensor) -> Tensor:
        return self.gathered(xs[0]).amax(-1).reshape(len(xs[0]), *self.out_shape)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> WindowLines:
        check_mode(mode)
        return self.lines(lower, upper, torch.arange(self.out_size, device=lower.device))

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Gather, and MaxPool over rows of K elements: both have one form at every opset. Missing elements repeat another one."""
        some = self.windows.max(axis=1, keepdims=True)
        index = np.where(self.windows < 0, some, self.windows)
        count, most = index.shape
        flat = writer.fresh(f"{output}/flat")
        writer.reshape(inputs[0], flat, (math.prod(self.in_shapes[0]),))
        taken = writer.step("Gather", (flat, writer.integers(output, "index", index.reshape(-1))), output, "elements", axis=1)
        image = writer.fresh(f"{output}/windows")
        writer.reshape(taken, image, (1, count, most))
        pooled = writer.step("MaxPool", (image,), output, "largest", kernel_shape=[1, most], strides=[1, most])
        writer.reshape(pooled, output, self.out_shape)
