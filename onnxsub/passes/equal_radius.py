"""The radius up to which a substitute is provably the network."""

from __future__ import annotations

from collections.abc import Callable

from onnxsub.budget import Budget, OutOfTime
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.certify import keeps_its_pieces

__all__ = ["equal_radius"]

_NEAR = 0.03  # of the radius: how near the two ends are brought
_SMALLEST = 1e-5  # of the largest radius: below it there is none worth telling
_FIRST = 1 / 16  # of the bracket: where it is first cut, for few substitutes are equal over half of it


def equal_radius(
    original: Network,
    substitute: Network,
    ball: Callable[[float], tuple[Array, Array]],
    largest: float,
    *,
    anchor: Array,
    budget: Budget | None = None,
) -> float:
    """A radius on whose ball `keeps_its_pieces` holds, within 3 % of the largest such radius up to `largest`; 0: none was found.

    For `act` it is the radius within which no pruned unit can leave its piece. A distance of the substitute that is not larger is
    one of the network.

    Args:
        ball: radius to the ends of `B(radius)`.
        budget: its end ends the search with what is proved so far.
    """

    def equal(radius: float) -> bool:
        return keeps_its_pieces(original, substitute, ball(radius), anchor=anchor, budget=budget)

    low, high = 0.0, largest
    try:
        if equal(largest):
            return largest
        while high - low > _NEAR * high and high > _SMALLEST * largest:
            middle = high * _FIRST if low == 0 else (low * high) ** 0.5
            if equal(middle):
                low = middle
            else:
                high = middle
    except OutOfTime:
        pass
    return low
