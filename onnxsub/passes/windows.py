r"""Windows as units: the three substitutes of `y = max_j x_j`, what each is off by, what it costs to prune.

| method | function of the window's elements x | exact at |
|---|---|---|
| `con` | `max_j x_j(x0)` | the anchor |
| `act` | `x_a`, a the winner at the anchor | where a stays the winner |
| `lin` | `x_a + line(x_b - x_a)`, b the winner at the adversarial point | both points |

`line` goes through `(d0, max(0, d0))` and `(d1, max(0, d1))` of `d = x_b - x_a` at the two points. Since a wins at the one and b at
the other, `d0 <= 0 <= d1` and both values are the network's own. Where `a = b` it is `x_a`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from onnxsub.ops.base import Activation, Array
from onnxsub.ops.picked import Picked
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import WindowMax, Windows, contenders

__all__ = ["Fixed", "line_error", "narrowed", "original_windows", "read_by", "window_cost", "window_line"]

_COINCIDE = 1e-9
"""Steps of a difference smaller than this, relative to the values, choose no slope: float64 rounding would."""


def original_windows(op: Windows | SubstitutedMax) -> Windows:
    """The windows of the file behind windows that may be partly substituted."""
    return op.base if isinstance(op, SubstitutedMax) else op


def _picked(op: Windows, **arrays: Array) -> Picked:
    values: dict[str, Any] = {name: a.reshape(op.out_shape) for name, a in arrays.items()}
    return Picked(
        op_type=op.op_type, node=op.node, inputs=op.inputs, output=op.output, in_shapes=op.in_shapes, out_shape=op.out_shape,
        **values,
    )  # fmt: skip


def _fixed_to(op: Windows, winner: Array) -> Picked:
    zero = np.zeros(len(winner))
    return _picked(op, first=winner, second=winner, weight=np.ones(len(winner)), other=zero, shift=zero)


def window_line(op: Windows, method: str, x: Array) -> Picked:
    """The line of every window.

    Args:
        method: `con`, `act` or `lin`.
        x: the operator's input at the anchor, or at the anchor and at the adversarial point (`lin`): `(1 or 2, *in_shape)`.
    """
    table, rows = op.table, np.arange(op.out_size)
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    values = np.where(table < 0, -np.inf, flat[:, table])
    winners = np.take_along_axis(np.broadcast_to(table, values.shape), values.argmax(axis=2)[..., None], 2)[..., 0]
    first = winners[0]
    if method == "act":
        return _fixed_to(op, first)
    if method == "con":
        zero = np.zeros(len(rows))
        return _picked(op, first=first, second=first, weight=zero, other=zero, shift=values[0].max(axis=1))
    second = winners[1]
    d0, d1 = (f[second] - f[first] for f in flat)
    size = np.abs(flat[:, np.stack([first, second])]).max(axis=(0, 1))
    apart = (d1 - d0 > _COINCIDE * size) & (d1 > 0)
    slope = np.where(apart, d1 / np.where(apart, d1 - d0, 1.0), 0.0)
    second = np.where(apart, second, first)
    return _picked(op, first=first, second=second, weight=1 - slope, other=slope, shift=np.where(apart, -slope * d0, 0.0))


def _ends(op: Windows, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    table = op.table
    low, high = (np.where(table < 0, -np.inf, end.reshape(-1)[table]) for end in (lower, upper))
    return table, low, high


def _span(coefficient: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Smallest and largest `coefficient x` for x in [low, high]; 0 where the coefficient is, also next to an infinite end."""
    with np.errstate(invalid="ignore"):
        one, other = coefficient * low, coefficient * high
    nothing = coefficient == 0
    return np.where(nothing, 0.0, np.minimum(one, other)), np.where(nothing, 0.0, np.maximum(one, other))


def line_error(op: Windows, lower: Array, upper: Array, line: Picked) -> tuple[Array, Array]:
    """Smallest intervals `[e_lo, e_hi]` with `max_j x_j - line(x)` inside for all `lower <= x <= upper`: flat, `(W,)` each.

    The difference is convex and piecewise linear in x. Its largest value is the largest over j of that of `x_j - line(x)`. Its
    smallest: elements outside the line at their lower ends, m the largest of these; then at a corner of the pieces of
    `max(x_a, x_b, m) - w x_a - v x_b`, whose coordinates are ends of a or b, or m.

    Args:
        lower, upper: of the operator's input, `(*in_shape)`. An end that is not a number gives one that is none.
    """
    table, low, high = _ends(op, lower, upper)
    a, b, w, v, shift = (t.reshape(-1) for t in (line.first, line.second, line.weight, line.other, line.shift))
    flat_low, flat_high = lower.reshape(-1), upper.reshape(-1)
    (la, ua), (lb, ub) = ((flat_low[i], flat_high[i]) for i in (a, b))
    is_a, is_b = table == a[:, None], (table == b[:, None]) & (a != b)[:, None]
    outside = ~(is_a | is_b)
    _, rest_a = _span(-w, la, ua)
    _, rest_b = _span(-v, lb, ub)
    others = np.where(outside, high, -np.inf).max(axis=1) + rest_a + rest_b
    by_a = _span(1 - w, la, ua)[1] + rest_b
    by_b = np.where(is_b.any(axis=1), _span(1 - v, lb, ub)[1] + rest_a, -np.inf)
    most = np.maximum(np.maximum(others, by_a), by_b)
    floor = np.where(outside, low, -np.inf).max(axis=1)
    least = np.full(len(a), np.inf)
    corners = (la, ua, lb, ub, floor)
    both = is_b.any(axis=1)
    with np.errstate(invalid="ignore"):
        for p in corners:
            xa = np.clip(p, la, ua)
            for q in corners:
                xb = np.clip(q, lb, ub)
                top = np.maximum(np.maximum(xa, np.where(both, xb, -np.inf)), floor)
                value = top - np.where(w == 0, 0.0, w * xa) - np.where(v == 0, 0.0, v * xb)
                least = np.minimum(least, value)
    return least - shift, most - shift


def window_cost(
    op: Windows, box: tuple[Array, Array], windows: Array, line: Picked | None, gradient: Array | None
) -> tuple[Array, Array]:
    """What it costs to prune `windows` (flat positions), and which of them are not fixed on the box.

    Args:
        box: interval of the operator's input, `(*in_shape)`, float64.
        line, gradient: for rank `influence`: largest error of the line times the margin's derivative; None: the width of y.
    """
    table, low, high = _ends(op, *box)
    is_open = contenders(table[windows], box[0].reshape(-1), box[1].reshape(-1)).sum(axis=1) > 1
    least, most = low.max(axis=1), high.max(axis=1)
    if line is None or gradient is None:
        return (most - least)[windows], is_open
    one, other = line_error(op, *box, line)
    error = np.maximum(np.abs(one), np.abs(other))
    # the line of a fixed window is exact but for rounding, which must not order anything
    error[error <= 1e-6 * np.maximum(np.abs(least), np.abs(most))] = 0.0
    return (error * gradient.reshape(-1))[windows], is_open


class Fixed:
    """What bounds leave of windows: which are fixed, by which element, and who can win in the others."""

    def __init__(self, op: Windows, lower: Array, upper: Array) -> None:
        table = op.table
        self.alive = contenders(table, lower.reshape(-1), upper.reshape(-1))
        self.fixed = (self.alive.sum(axis=1) == 1).reshape(op.out_shape)
        self.winner = table[np.arange(len(table)), self.alive.argmax(axis=1)]
        self._op = op

    @property
    def line(self) -> Picked:
        """Every window's first contender: the window itself where it is fixed."""
        return _fixed_to(self._op, self.winner)

    def narrow(self) -> WindowMax:
        """The windows over their contenders alone."""
        op = self._op
        most = int(self.alive.sum(axis=1).max(initial=1))
        order = np.argsort(~self.alive, axis=1, kind="stable")[:, :most]
        table = np.where(np.take_along_axis(self.alive, order, 1), np.take_along_axis(op.table, order, 1), -1)
        return WindowMax(
            op_type=op.op_type, node=op.node, inputs=op.inputs, output=op.output, in_shapes=op.in_shapes, out_shape=op.out_shape,
            windows=table,
        )  # fmt: skip


def narrowed(op: Windows | SubstitutedMax, box: tuple[torch.Tensor, torch.Tensor]) -> Windows | SubstitutedMax:
    """Windows that are the same on a box: those that are fixed there are lines, the others have their contenders only.

    Args:
        box: proved interval of the operator's input, `(*in_shape)`.
    """
    base = original_windows(op)
    found = Fixed(base, *(end.double().cpu().numpy() for end in box))
    kept = op.kept if isinstance(op, SubstitutedMax) else np.ones(op.out_shape, dtype=np.bool_)
    open_ = kept & ~found.fixed
    inside = (base.table >= 0).sum()
    if isinstance(op, Windows) and open_.all() and found.alive.sum() == inside:
        return op
    line = found.line.only(found.fixed & kept)
    if isinstance(op, SubstitutedMax):
        line = _merged(op.picked, line, op.kept)
    return SubstitutedMax.of(found.narrow(), open_, line)


def _merged(one: Picked, other: Picked, where: Array) -> Picked:
    """`other` at the outputs `where`, `one` elsewhere."""
    arrays = {n: np.where(where, getattr(other, n), getattr(one, n)) for n in ("first", "second", "weight", "other", "shift")}
    return replace(one, **arrays)


def read_by(op: Activation | Windows | SubstitutedMax, kept: Array | None) -> Array:
    """Flat positions of the inputs that the kept outputs of an operator read, sorted; None: all are kept."""
    if isinstance(op, Activation):
        return np.arange(op.out_size) if kept is None else np.flatnonzero(kept)
    table = original_windows(op).table
    if kept is not None:
        table = table[np.flatnonzero(kept)]
    found: Array = np.unique(table[table >= 0])
    return found
