r"""The pass `certify`: what bounds alone prove of a network on a ball, and what a substitute's lines add to that.

Two lower bounds of the margin `min_t f_y - f_t` over a box:

- plain: linear bounds of f (CROWN).
- by a substitute: every pruned unit is its line plus an interval `[e_lo, e_hi]` that contains `s(z) - line(z)` on the unit's
  proved interval; kept units have their linear bounds. The errors are propagated to the margin by the same backward pass.

Both hold, so the better one counts. A margin that is not finite certifies nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Array, Operator
from onnxsub.ops.relaxation import Elementwise, Relaxation
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.certify_windows import past_windows, with_window_lines
from onnxsub.passes.substitute import original_activation
from onnxsub.propagate import Bounds, compute_bounds, margin_bounds
from onnxsub.query import other_classes

__all__ = ["certified_radius", "keeps_its_pieces", "margin_rows", "worst_margin_bound"]

_SMALLEST = 1e-10  # of the largest radius that is asked about: below it there is none worth telling
_CAREFUL = 2.5  # bounds at a radius that there must be time for, or the first one that is to prove something is asked half as far
_LEAST = 0.1  # share of a bracket of radii within which no next one lies from its ends

_UNIT = 2e-9
"""A line is its activation where they differ by less than this share of the unit's scale: twice what widens its interval."""

_MARGIN = 1e-9
"""And where all such differences together change the margin by less than this share of what it is at the anchor."""

Ball = Callable[[float], tuple[Array, Array]]
"""Radius to the box `B(radius)`."""


def margin_rows(classes: int, label: int, target: int | None = None) -> Array:
    """Rows of `f_y - f_t`, one per other class t, `(classes - 1, classes)`, or that of the target alone."""
    rows = -np.eye(classes)
    rows[:, label] += 1.0
    return rows[list(other_classes(classes, label, target))]


def worst_margin_bound(
    network: Network,
    box: tuple[Array, Array],
    label: int,
    method: str = "crown",
    substitute: Network | None = None,
    *,
    target: int | None = None,
    budget: Budget | None = None,
) -> float:
    """A lower bound of `min_t f_y - f_t` over the box; positive: no other class is reached there. `-inf` where there is none.

    Args:
        network: f.
        substitute: a substitute of f whose lines are tried too.
        target: the one class t that counts; None: every other class does.
        budget: looked at per operator and per chunk of rows.

    Raises:
        OutOfTime: the budget ended.
    """
    bounds = compute_bounds(network, *box, method, only_unstable=True, output=False, budget=budget)
    rows = margin_rows(network.classes, label, target)
    low = margin_bounds(network, bounds, rows, budget=budget)[0]
    if substitute is not None:
        low = torch.maximum(low, margin_bounds(network, _with_lines(network, substitute, bounds), rows, budget=budget)[0])
    worst = float(low.min())
    return worst if np.isfinite(worst) else -np.inf


def _with_lines(network: Network, substitute: Network, bounds: Bounds) -> Bounds:
    """The bounds of f in which the relaxation of every pruned unit that is not stable is its line plus its error interval."""
    relaxations: dict[str, Relaxation] = dict(bounds.relaxations)
    for op in substitute.prunable:
        if isinstance(op, SubstitutedMax):
            found = with_window_lines(op, *bounds.pre[op.output])
            relaxations[op.output] = relaxations[op.output] if found is None else found
        if not isinstance(op, Substituted):
            continue
        l, u = bounds.pre[op.output]
        base = original_activation(op)
        slope, offset = torch.from_numpy(op.slope).to(l), torch.from_numpy(op.offset).to(l)
        low, high = base.line_error(l, u, slope.expand_as(l), offset.expand_as(l))
        plain = relaxations[op.output]
        assert isinstance(plain, Elementwise)  # every activation's is
        # an error that is not finite is none that a line could carry
        finite = torch.isfinite(low) & torch.isfinite(high)
        own = torch.from_numpy(op.kept) | base.affine_on(l, u) | ~finite
        relaxations[op.output] = Elementwise(
            torch.where(own, plain.lower_slope, slope),
            torch.where(own, plain.lower_offset, offset + low),
            torch.where(own, plain.upper_slope, slope),
            torch.where(own, plain.upper_offset, offset + high),
        )
    return Bounds(bounds.lower, bounds.upper, bounds.pre, bounds.output, relaxations, bounds.method, bounds.scales)


def certified_radius(
    network: Network,
    ball: Ball,
    label: int,
    upper: float,
    *,
    method: str = "crown",
    tol: float = 0.01,
    stop: Callable[[], bool] | None = None,
    substitute: Network | None = None,
    start: float = 0.0,
    target: int | None = None,
    budget: Budget | None = None,
) -> float:
    """A radius on which bounds prove that the class is kept, within the share `tol` of the largest such radius below `upper`.

    The margin's bound `m(r)` falls slowly near the anchor and steeply far from it. The next radius is where the line through the
    two ends of the bracket crosses zero, drawn through `m / (|m| + m(0))`, which has the same zero and is far straighter; it is
    kept inside the bracket.

    Args:
        upper: where to stop looking: a distance at which another class is known to be reached.
        stop: asked before every bound; True ends the search with what is proved so far.
        substitute: a substitute of the network whose lines are tried too.
        start: a radius that is certified already; where bounds do not reach a share `tol` farther, it is the answer.
        target: the one class that counts; None: every other class does.
        budget: its end, also inside a bound, ends the search likewise.
    """

    def margin_at(radius: float) -> float:
        return worst_margin_bound(network, ball(radius), label, method, substitute, target=target, budget=budget)

    def late() -> bool:
        return (stop is not None and stop()) or (budget is not None and budget.over)

    if upper <= start or late():
        return min(start, upper)
    low, high = start, upper
    try:
        # at the anchor there is nothing to bound
        at_low = scale = _margin_of(network, ball(0.0)[0], label, target)
        if not at_low > 0:
            return start
        if start > 0:
            farther = min(start * (1 + tol), upper)
            at_low = margin_at(farther)
            if not at_low > 0:
                return start
            low = farther
        left = np.inf if budget is None else budget.remaining
        at_high = margin_at(upper)
        # where there is time for two more bounds at most, the next one had better prove something
        careful = budget is not None and budget.remaining < _CAREFUL * (left - budget.remaining)
        if at_high > 0:
            return upper
        while high - low > tol * high and high > _SMALLEST * upper and not late():
            above, below = _squashed(at_low, scale), -_squashed(at_high, scale)
            share = above / (above + below) if above + below > 0 else 0.5
            near = 0.5 if careful and low == start else 1.0
            radius = low + (high - low) * near * min(max(share, _LEAST), 1 - _LEAST)
            margin = margin_at(radius)
            if margin > 0:
                low, at_low = radius, margin
            else:
                high, at_high = radius, margin
    except OutOfTime:
        pass  # what is certified so far stays so
    return low


def _squashed(margin: float, scale: float) -> float:
    """`m / (|m| + scale)`; where that overflows the sign of m; a bound that says nothing is -1."""
    whole = abs(margin) + scale
    return margin / whole if 0 < whole < np.inf else 1.0 if margin > 0 else -1.0


def _margin_of(network: Network, x: Array, label: int, target: int | None) -> float:
    """The smallest `f_y - f_t` at one point."""
    with torch.no_grad():
        logits = network.forward(torch.as_tensor(np.array(x, dtype=np.float64)).reshape(1, *network.input_shape))[0].numpy()
    with np.errstate(invalid="ignore", over="ignore"):  # a margin that is no number certifies nothing
        return float((margin_rows(network.classes, label, target) @ logits).min())


def keeps_its_pieces(
    original: Network,
    substitute: Network,
    box: tuple[Array, Array],
    *,
    anchor: Array | None = None,
    method: str = "crown",
    budget: Budget | None = None,
) -> bool:
    """Whether the substitute provably equals the original on the box: every pruned unit's line is its activation there.

    Judged by bounds of the original network. With e_i the largest difference of a pruned unit's line and its activation on the
    unit's interval, both must hold:

    - `e_i <= 2e-9 s_i`, s_i the scale of its pre-activation (`propagate/rounding.py`): equal within rounding;
    - all e_i together, multiplied through to the logits, change no margin `f_y - f_t` by more than 1e-9 of its size at the anchor,
      y the class there. So a difference that a later layer magnifies does not pass for rounding.

    Args:
        anchor: `(*input_shape)`; None: the centre of the box.
        budget: looked at per operator and per chunk of rows.

    Raises:
        OutOfTime: the budget ended.
    """
    bounds = compute_bounds(original, *box, method, output=False, only_unstable=True, budget=budget)
    centre = (box[0] + box[1]) / 2 if anchor is None else anchor
    with torch.no_grad():
        changes = _changes(original, substitute, bounds)
        if changes is None:
            return False
        logits = original.forward(torch.as_tensor(np.array(centre, dtype=np.float64)).reshape(1, *original.input_shape))[0]
        if not bool(torch.isfinite(logits).all()):
            return False  # of what is no number nothing is proved, not even that it stays the same
        label = int(logits.argmax())
        margins = logits[label] - logits
        allowed = _MARGIN * margins
        total = changes + changes[label]
    others = torch.arange(len(logits)) != label
    return bool((total <= allowed)[others].all())


def _changes(original: Network, substitute: Network, bounds: Bounds) -> torch.Tensor | None:
    """How far the logits of both networks may lie apart on the box, `(classes,)`; None: some line is not its activation.

    With d_t at least `|t - t'|` of a tensor t of the original and t' of the substitute: an affine operator passes on `|L| d`, a
    maximum the largest d, a kept unit d times the steepest slope that it has, a pruned unit `|slope| d + e`.
    """
    apart = {original.input: torch.zeros((1, *original.input_shape), dtype=torch.float64)}
    for op in original.ops:
        read = [apart[n] for n in op.inputs]
        if isinstance(op, Affine):
            apart[op.output] = op.magnitude(*read)
            continue
        there = substitute.producers[op.output]
        if isinstance(op, Windows):
            lower, upper = (end[:1].double() for end in bounds.pre[op.output])
            found = past_windows(op, there, lower, upper, read[0], _UNIT * bounds.scales[op.inputs[0]][:1].double())
        elif isinstance(op, Activation):
            found = _past_units(op, there, bounds, read[0])
        else:  # of others it is known only that what is the same stays the same
            found = None if bool((read[0] != 0).any()) else torch.zeros((1, *op.out_shape), dtype=torch.float64)
        if found is None:
            return None
        apart[op.output] = found
    return apart[original.output].flatten()


def _past_units(op: Activation, there: Operator, bounds: Bounds, before: torch.Tensor) -> torch.Tensor | None:
    """`_changes` behind one activation, which `there` is in the substitute."""
    lower, upper = (end[:1].double() for end in bounds.pre[op.output])
    # no difference stays none, whatever the slope
    after = torch.where(before > 0, before * _steepest(op, lower - before, upper + before), torch.zeros_like(before))
    if not isinstance(there, Substituted):
        return after
    slope, offset = torch.from_numpy(there.slope)[None], torch.from_numpy(there.offset)[None]
    low, high = original_activation(there).line_error(lower, upper, slope, offset)
    error = torch.maximum(low.abs(), high.abs())
    pruned = ~torch.from_numpy(there.kept)[None]
    scale = bounds.scales[op.inputs[0]][:1].double()
    if bool((pruned & ~(error <= _UNIT * scale)).any()):  # NaN is no equality
        return None
    return torch.where(pruned, slope.abs() * before + error, after)


def _steepest(op: Activation, lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """The largest slope that an activation has on an interval; of one that jumps there, infinity."""
    if "slopes" in op.unsupported:
        return torch.where(op.affine_on(lower, upper), 0.0, torch.inf).to(lower)
    low, high = op.slopes(lower, upper)
    return torch.maximum(low.abs(), high.abs())
