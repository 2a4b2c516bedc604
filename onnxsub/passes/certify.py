"""The pass `certify`: what bounds alone prove of a network on a ball."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.substitute import original_activation
from onnxsub.propagate import compute_bounds, margin_bounds

__all__ = ["certified_radius", "keeps_its_pieces", "margin_rows", "worst_margin_bound"]

Ball = Callable[[float], tuple[Array, Array]]
"""Radius to the box `B(radius)`."""


def margin_rows(classes: int, label: int) -> Array:
    """Rows of `f_y - f_t`, one per other class t: `(classes - 1, classes)`."""
    rows = -np.eye(classes)
    rows[:, label] += 1.0
    return np.delete(rows, label, axis=0)


def worst_margin_bound(network: Network, box: tuple[Array, Array], label: int, method: str = "crown") -> float:
    """A lower bound of `min_t f_y - f_t` over the box; positive: no other class is reached there."""
    bounds = compute_bounds(network, *box, method, only_unstable=True, output=False)
    return float(margin_bounds(network, bounds, margin_rows(network.classes, label))[0].min())


def certified_radius(
    network: Network,
    ball: Ball,
    label: int,
    upper: float,
    *,
    method: str = "crown",
    tol: float = 0.01,
    stop: Callable[[], bool] | None = None,
) -> float:
    """A radius on which bounds prove that the class is kept, within the share `tol` of the largest such radius below `upper`.

    At a fixed network the margin's bound is nearly linear in the radius, so the next radius is where the line through the two
    ends of the bracket crosses zero, kept inside the bracket.

    Args:
        upper: where to stop looking: a distance at which another class is known to be reached.
        stop: asked before every bound; True ends the search with what is proved so far.
    """
    low, high = 0.0, upper
    at_low = worst_margin_bound(network, ball(0.0), label, method)
    if at_low <= 0 or upper <= 0:
        return 0.0
    at_high = worst_margin_bound(network, ball(upper), label, method)
    if at_high > 0:
        return upper
    while high - low > tol * high:
        if stop is not None and stop():
            break
        share = at_low / (at_low - at_high) if np.isfinite(at_high) else 0.5
        radius = low + (high - low) * min(max(share, 0.1), 0.9)
        margin = worst_margin_bound(network, ball(radius), label, method)
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
