r"""The pass `certify`: what bounds alone prove of a network on a ball, and what a substitute's lines add to that.

Two lower bounds of the margin `min_t f_y - f_t` over a box:

- plain: linear bounds of f (CROWN).
- by a substitute: every pruned unit is its line plus an interval `[e_lo, e_hi]` that contains `s(z) - line(z)` on the unit's
  proved interval; kept units have their linear bounds. The errors are propagated to the margin by the same backward pass.

Both hold, so the better one counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.relaxation import Elementwise, Relaxation
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.substitute import original_activation
from onnxsub.propagate import Bounds, compute_bounds, margin_bounds

__all__ = ["certified_radius", "keeps_its_pieces", "margin_rows", "worst_margin_bound"]

_SMALLEST = 1e-10  # radii below it are far below what float32 can tell apart

Ball = Callable[[float], tuple[Array, Array]]
"""Radius to the box `B(radius)`."""


def margin_rows(classes: int, label: int) -> Array:
    """Rows of `f_y - f_t`, one per other class t: `(classes - 1, classes)`."""
    rows = -np.eye(classes)
    rows[:, label] += 1.0
    return np.delete(rows, label, axis=0)


def worst_margin_bound(
    network: Network, box: tuple[Array, Array], label: int, method: str = "crown", substitute: Network | None = None
) -> float:
    """A lower bound of `min_t f_y - f_t` over the box; positive: no other class is reached there.

    Args:
        network: f.
        substitute: a substitute of f whose lines are tried too.
    """
    bounds = compute_bounds(network, *box, method, only_unstable=True, output=False)
    rows = margin_rows(network.classes, label)
    low = margin_bounds(network, bounds, rows)[0]
    if substitute is not None:
        low = torch.maximum(low, margin_bounds(network, _with_lines(network, substitute, bounds), rows)[0])
    return float(low.min())


def _with_lines(network: Network, substitute: Network, bounds: Bounds) -> Bounds:
    """The bounds of f in which the relaxation of every pruned unit that is not stable is its line plus its error interval."""
    relaxations: dict[str, Relaxation] = dict(bounds.relaxations)
    for op in substitute.activations:
        if not isinstance(op, Substituted):
            continue
        l, u = bounds.pre[op.output]
        base = original_activation(op)
        slope, offset = torch.from_numpy(op.slope).to(l), torch.from_numpy(op.offset).to(l)
        low, high = base.line_error(l, u, slope.expand_as(l), offset.expand_as(l))
        plain = relaxations[op.output]
        assert isinstance(plain, Elementwise)  # every activation's is
        own = torch.from_numpy(op.kept) | base.affine_on(l, u)
        relaxations[op.output] = Elementwise(
            torch.where(own, plain.lower_slope, slope),
            torch.where(own, plain.lower_offset, offset + low),
            torch.where(own, plain.upper_slope, slope),
            torch.where(own, plain.upper_offset, offset + high),
        )
    return Bounds(bounds.lower, bounds.upper, bounds.pre, bounds.output, relaxations, bounds.method)


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
) -> float:
    """A radius on which bounds prove that the class is kept, within the share `tol` of the largest such radius below `upper`.

    At a fixed network the margin's bound is nearly linear in the radius, so the next radius is where the line through the two
    ends of the bracket crosses zero, kept inside the bracket.

    Args:
        upper: where to stop looking: a distance at which another class is known to be reached.
        stop: asked before every bound; True ends the search with what is proved so far.
        substitute: a substitute of the network whose lines are tried too.
        start: a radius that is certified already.
    """

    def margin_at(radius: float) -> float:
        return worst_margin_bound(network, ball(radius), label, method, substitute)

    def late() -> bool:
        return stop is not None and stop()

    if upper <= start or late():
        return min(start, upper)
    low, high = start, upper
    at_low, at_high = margin_at(start), margin_at(upper)
    if at_low <= 0:
        return start
    if at_high > 0:
        return upper
    while high - low > tol * high and high > _SMALLEST and not late():
        share = at_low / (at_low - at_high) if np.isfinite(at_high) else 0.5
        radius = low + (high - low) * min(max(share, 0.1), 0.9)
        margin = margin_at(radius)
        if margin > 0:
            low, at_low = radius, margin
        else:
            high, at_high = radius, margin
    return low


def keeps_its_pieces(original: Network, substitute: Network, box: tuple[Array, Array], *, method: str = "crown") -> bool:
    """Whether the substitute provably equals the original on the box: every pruned unit's line is its activation there.

    Judged by bounds of the original network. A line counts as equal within rounding: 1e-9 of the pre-activation's size.
    """
    pruned = [op for op in substitute.activations if isinstance(op, Substituted)]
    bounds = compute_bounds(original, *box, method, output=False, only_unstable=True)
    for op in pruned:
        l, u = (end[0].double() for end in bounds.pre[op.output])
        low, high = original_activation(op).line_error(l, u, torch.from_numpy(op.slope), torch.from_numpy(op.offset))
        size = 1e-9 * (1.0 + torch.maximum(l.abs(), u.abs()))
        off = (torch.maximum(low.abs(), high.abs()) > size) & ~torch.from_numpy(op.kept)
        if bool(off.any()):
            return False
    return True
