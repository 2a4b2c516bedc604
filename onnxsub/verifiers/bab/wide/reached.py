r"""What a bound that stays above zero says of the units all the same: where each must be for the row to be reached.

A bound is a sum of terms, one per unit, each at its largest (`bound.py`). With unit j at z the sum is `V - max t_j + t_j(z)`; where
that is negative, no point has its unit there. A term is a parabola on either side of 0, so what is left is known in closed form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.bound import Evaluated

__all__ = ["reached"]

_WIDER = 1e-9  # of the interval: what an end is moved outward by


def reached(now: Evaluated, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The narrowest intervals `(N, m)` outside of which the bounds are negative; an empty one has its ends the wrong way round.

    Ends stay where they were where a number is none.
    """
    least = now.terms - now.proved[:, None]  # what the unit's term must be, at least
    q, nu, kappa, mu, centre, reach = now.q, now.nu, now.kappa, now.mu, now.centre, now.reach
    # t = constant + slope z - curve / 2 z^2
    on_constant = mu / 2 * reach**2 - kappa / 2 * centre**2
    off = _piece(kappa, kappa * centre - nu, on_constant - least, lower, upper.clamp(max=0))
    on = _piece(kappa - mu, q - nu - mu * reach + kappa * centre, on_constant - least, lower.clamp(min=0), upper)
    low, high = torch.minimum(off[0], on[0]), torch.maximum(off[1], on[1])
    wider = _WIDER * (upper - lower)
    low, high = torch.maximum(low - wider, lower), torch.minimum(high + wider, upper)
    sane = least.isfinite() & ~low.isnan() & ~high.isnan()
    return torch.where(sane, low, lower), torch.where(sane, high, upper)


def _piece(curve: Tensor, slope: Tensor, rest: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The hull of where `rest + slope z - curve / 2 z^2 >= 0` on an interval; infinite ends the wrong way round: nowhere."""

    def holds(z: Tensor) -> Tensor:
        return (rest + slope * z - curve / 2 * z**2 >= 0) & (begin <= end)

    at_begin, at_end = holds(begin), holds(end)
    square = slope**2 + 2 * curve * rest
    # the root that is a difference of two near numbers comes from the product of both
    both = slope + torch.where(slope < 0, -1.0, 1.0) * square.clamp(min=0).sqrt()
    first, second = both / (curve + 0.0), -2 * rest / both  # a negative zero would turn an infinite one round
    left, right = torch.minimum(first, second), torch.maximum(first, second)
    inside = (square >= 0) & (begin <= end)
    # concave or straight: between the roots, one of which may be infinite; convex: from an end to the root next to it
    concave = curve >= 0
    some = (concave & inside & (right >= begin) & (left <= end)) | at_begin | at_end
    low = torch.where(at_begin, begin, torch.where(concave, left, right))
    high = torch.where(at_end, end, torch.where(concave, right, left))
    low, high = torch.maximum(low, begin), torch.minimum(high, end)
    return torch.where(some, low, torch.full_like(low, math.inf)), torch.where(some, high, torch.full_like(high, -math.inf))
