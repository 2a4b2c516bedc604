r"""Backward propagation of linear functions: from coefficients of one tensor to coefficients of the network's input.

A linear function `a . t` of a tensor t is pulled back operator by operator: an affine operator by its transpose, a non-linear
one by the linear bounds of its `Relaxation`, which add to the bias. What reaches the input is `A x + b <= a . t` (Zhang et al.
2018, CROWN, theorem 3.2; Xu et al. 2020, algorithm 1). With parallel lines one pass gives both ends, since they differ in
the bias only (Weng et al. 2018, Fast-Lin).

Shapes: coefficients are `(B, R, *shape)`: B domains, R rows. B = 1 broadcasts, so that what is common to all domains is
computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Affine, Nonlinear, Shape
from onnxsub.ops.broadcast import flattened
from onnxsub.ops.combine import Sum
from onnxsub.ops.relaxation import Relaxation, Window, cropped

__all__ = ["Coefficients", "Front", "LinearBound", "flattened", "pull_back", "pull_front", "terms", "to_front"]

_WORK = 2**28
"""Products of one operator's transpose between two looks at the clock: less than 0.1 s of float64 on one core."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients `(B, R, *shape)` of a tensor.

    With a window, only the part inside the window of the two last axes is stored; the rest is zero.
    """

    data: Tensor
    window: Window = ()

    def full(self, shape: Shape) -> Tensor:
        """The whole tensor, zeros included."""
        if not self.window:
            return self.data
        whole = self.data.new_zeros((*self.data.shape[:2], *shape))
        cropped(whole, self.window).copy_(self.data)
        return whole

    def plus(self, other: Coefficients, shape: Shape) -> Coefficients:
        """The sum, over the smallest window that holds both."""
        if self.window == other.window:
            return Coefficients(self.data + other.data, self.window)
        if not self.window or not other.window:
            return Coefficients(self.full(shape) + other.full(shape))
        union = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(self.window, other.window, strict=True))
        return Coefficients(self._within(union) + other._within(union), union)

    def _within(self, window: Window) -> Tensor:
        sizes = tuple(w.stop - w.start for w in window)
        whole = self.data.new_zeros((*self.data.shape[:-2], *sizes))
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(self.window, window, strict=True))
        cropped(whole, inner).copy_(self.data)
        return whole


@dataclass(frozen=True, eq=False)
class LinearBound:
    """`coefficients . x + lower_bias <= a . t`, and `a . t <= coefficients . x + upper_bias` where both ends were asked for.

    Attributes:
        coefficients: over the network's input, `(B, R, *input_shape)` or a window of it.
        lower_bias, upper_bias: `(B, R)`.
        passed: `sum_k |A_k| . s_k` over the non-linear operators, for the slack (`rounding.py`), `(B, R)`; None without scales.
    """

    coefficients: Coefficients
    lower_bias: Tensor
    upper_bias: Tensor | None
    passed: Tensor | None = None

    def minimum(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Smallest value of the lower bound over the boxes `[lower, upper]` `(B, *input_shape)`: `(B, R)`."""
        centre, radius = self._extent(lower, upper)
        return centre - radius + self.lower_bias

    def range(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest value of the lower and largest of the upper bound over the boxes: `(B, R)` each."""
        if self.upper_bias is None:
            raise ValueError("this bound has a lower end only")
        centre, radius = self._extent(lower, upper)
        return centre - radius + self.lower_bias, centre + radius + self.upper_bias

    def _extent(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        a = self.coefficients.data.flatten(2)
        lo, hi = (cropped(end, self.coefficients.window).flatten(1).unsqueeze(-1) for end in (lower, upper))
        centre = torch.matmul(a, (lo + hi) / 2).squeeze(-1)
        radius = torch.matmul(a.abs(), (hi - lo) / 2).squeeze(-1)
        return centre, radius


@dataclass(frozen=True, eq=False)
class Front:
    """A linear function `sum_s coefficients[s] . s + bias` of several tensors s at once; bias `(B, R)`."""

    coefficients: dict[str, Coefficients]
    bias: Tensor


def pull_back(
    network: Network,
    tensor: str,
    start: Coefficients,
    relaxations: Mapping[str, Relaxation],
    *,
    both: bool = False,
    scales: Mapping[str, Tensor] | None = None,
    budget: Budget | None = None,
) -> LinearBound:
    """Pulls `start . tensor` back to the input.

    Args:
        tensor: name of the tensor that `start` multiplies.
        relaxations: by the name of the tensor that the non-linear operator writes; needed for all before `tensor`.
        both: also bound from above; needs parallel relaxations.
        scales: finite scales of the tensors that non-linear operators read, `(B, *shape)`: what `LinearBound.passed` needs.
        budget: looked at before every operator, and within one that takes long.

    Returns:
        A linear lower bound (and the parallel upper one) of `start . tensor` on the domains of the relaxations.
    """
    front = Front({tensor: start}, start.data.new_zeros(start.data.shape[:2]))
    return pull_front(network, front, relaxations, both=both, scales=scales, budget=budget)


def to_front(network: Network, tensor: str, start: Coefficients) -> Front:
    """`start . tensor` as a function of the input and of what non-linear operators write: equal to it, no bound is taken."""
    pending = {tensor: start}
    bias = start.data.new_zeros(start.data.shape[:2])
    for op in reversed(network.ops):
        if op.output not in pending or isinstance(op, Nonlinear):
            continue
        if not isinstance(op, Affine):
            raise op.missing("linear bounds")
        c = pending.pop(op.output)
        constant = _constant(op, c)
        bias = bias if constant is None else bias + constant
        _add(pending, op.inputs, _transpose(op, c), network.shapes)
    return Front(pending, bias)


def pull_front(
    network: Network,
    front: Front,
    relaxations: Mapping[str, Relaxation],
    *,
    both: bool = False,
    scales: Mapping[str, Tensor] | None = None,
    budget: Budget | None = None,
) -> LinearBound:
    """`pull_back` of a function of several tensors."""
    pending = dict(front.coefficients)
    lower = upper = front.bias
    passed = None if scales is None else torch.zeros_like(front.bias)
    for op in reversed(network.ops):
        c = pending.pop(op.output, None)
        if c is None:
            continue
        if budget is not None:
            budget.check()
        if isinstance(op, Affine):
            constant = _constant(op, c)
            if constant is not None:
                lower = lower + constant
                upper = upper + constant
            parts = _transpose(op, c, budget)
        elif isinstance(op, Nonlinear):
            relaxation = relaxations[op.output]
            if c.window and not relaxation.windowed:
                c = Coefficients(c.full(op.out_shape))
            size = None
            if scales is not None and passed is not None:
                found, low, high, size = relaxation.sized(c.data, c.window, scales[op.inputs[0]], both=both)
                passed = passed + size
            elif both:
                found, low, high = relaxation.both(c.data, c.window)
            else:
                found, low = relaxation.lower(c.data, c.window)
                high = low
            lower, upper = lower + low, upper + high
            if found is None:
                continue
            parts = (Coefficients(found, c.window),)
        else:
            raise op.missing("linear bounds")
        _add(pending, op.inputs, parts, network.shapes)
    c = pending.pop(network.input, None)
    if c is None:  # the tensor does not depend on the input at all
        c = Coefficients(front.bias.new_zeros((*front.bias.shape, *network.input_shape)))
    return LinearBound(c, lower, upper if both else None, passed)


def _add(
    pending: dict[str, Coefficients], names: Sequence[str], parts: tuple[Coefficients, ...], shapes: Mapping[str, Shape]
) -> None:
    for name, part in zip(names, parts, strict=True):
        have = pending.get(name)
        pending[name] = part if have is None else have.plus(part, shapes[name])


def _constant(op: Affine, c: Coefficients) -> Tensor | None:
    offset = op.offset(c.data)
    if offset is None:
        return None
    values = cropped(offset.expand(op.out_shape), c.window).reshape(-1)
    return torch.matmul(flattened(c.data, 2), values)


def _transpose(op: Affine, c: Coefficients, budget: Budget | None = None) -> tuple[Coefficients, ...]:
    rows = c.data.shape[1]
    work = c.data.numel() * terms(op)
    if budget is None or work <= _WORK or rows == 1:
        return _transposed(op, c)
    step = max(1, int(rows * _WORK // work))
    found = []
    for part in torch.split(c.data, step, dim=1):
        budget.check()
        found.append(_transposed(op, Coefficients(part, c.window)))
    return tuple(Coefficients(torch.cat([p.data for p in same], 1), same[0].window) for same in zip(*found, strict=True))


def terms(op: Affine) -> int:
    """How many products an element of the output takes, about."""
    weight = getattr(op, "weight", None)
    if weight is None:
        return 1
    return int(weight[0].size) if hasattr(op, "sliding") else int(weight.shape[-1])


def _transposed(op: Affine, c: Coefficients) -> tuple[Coefficients, ...]:
    lead = c.data.shape[:2]
    if isinstance(op, Sum) and all(shape == op.out_shape for shape in op.in_shapes):
        return tuple(Coefficients(c.data if sign > 0 else -c.data, c.window) for sign in op.signs)
    if c.window and len(op.inputs) == 1:
        flat = c.data.flatten(0, 1)  # never with a -1: a window that lies in the padding has no elements
        found = op.transpose_window(flat, c.window)
        if found is not None:
            data, window = found
            return (Coefficients(data.reshape(*lead, *data.shape[1:]), window),)
    if c.window:
        c = Coefficients(c.full(op.out_shape))
    parts = op.transpose(c.data.reshape(-1, *op.out_shape))
    return tuple(Coefficients(p.reshape(*lead, *p.shape[1:])) for p in parts)
