"""Regions of the input box, and along which input each of them is halved.

What a row's line says of an input is a poor guide: the line is loose by what the units lose, and along which input that becomes
less it does not say. So the halves along the promising inputs are bounded before one is chosen (strong branching, Applegate et al.
1995), by zonotopes and a backward pass of the rows alone. ACAS Xu 2_5, property 1, takes 192 regions; 487,000 along what the lines
say did not end it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.ops.base import Box

__all__ = ["TRIED", "Regions", "halved", "promises"]

_SIDE = 0.5  # weight of the side's length beside what the line says: a line that does not lean says nothing
_SMALLEST = 1e-12  # of the ends of a side: what is no longer halved
_EVEN = 1e-2  # weight of the promise beside what halves have shown: it decides where they are alike

TRIED = 5
"""Inputs of each region whose halves are bounded before one is chosen."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Boxes `(B, n)` and the number of the clause that is looked for in each, `(B,)`.

    Attributes:
        within: intervals of the pre-activations that hold in there, by the tensor that the operator writes; empty: unknown.
    """

    lower: Tensor
    upper: Tensor
    clause: Tensor
    within: Mapping[str, Box]

    def __len__(self) -> int:
        return len(self.clause)

    def take(self, rows: Tensor | slice) -> Regions:
        within = {name: (l[rows], u[rows]) for name, (l, u) in self.within.items()}
        return Regions(self.lower[rows], self.upper[rows], self.clause[rows], within)

    def halves(self, axes: Tensor) -> Regions:
        """Both halves along some inputs, `axes` `(B, K)`: `2 K` of each region side by side, the lower half of an input first."""
        many = axes.shape[1]
        own = self.take(torch.arange(len(self)).repeat_interleave(2 * many))
        at = axes.repeat_interleave(2, 1).reshape(-1, 1)
        middle = own.lower.gather(1, at) / 2 + own.upper.gather(1, at) / 2
        first = torch.arange(len(own))[:, None] % 2 == 0
        lower = own.lower.scatter(1, at, torch.where(first, own.lower.gather(1, at), middle))
        upper = own.upper.scatter(1, at, torch.where(first, middle, own.upper.gather(1, at)))
        return Regions(lower, upper, own.clause, own.within)


def promises(regions: Regions, c: Tensor, side: Tensor) -> Tensor:
    """What halves along each input promise, `(B, n)`: by the slope `c` of the weakest row's line and the length of the side beside
    the whole box's, `(n,)`; -1 where a side is too short to be halved."""
    size = regions.upper - regions.lower
    able = size > _SMALLEST * (regions.lower.abs() + regions.upper.abs())
    return (_shares(c.abs() * size) + _SIDE * _shares(size / side.clamp(min=1e-300))).masked_fill(~able, -1.0)


def halved(regions: Regions, promise: Tensor, top: Tensor, bound: Callable[[Regions], Tensor]) -> tuple[Regions, Tensor]:
    """The halves of regions along the input whose halves have the lowest tops together, without those that are refuted; and the
    numbers of the regions that they are halves of.

    Args:
        promise: as of `promises`, of which each row has one that is not negative.
        top: what is left to be refuted of each, not negative: the largest value of its weakest row, for example; `(B,)`.
        bound: the same of other regions; below zero they are refuted.
    """
    if not len(regions):
        return regions, regions.clause
    value, axes = promise.topk(min(TRIED, int((promise >= 0).sum(1).max())), dim=1)
    tried = regions.halves(axes)
    ends = bound(tried).reshape(len(regions), -1, 2)
    # halves of which nothing is known say no more than the region itself
    known = torch.where(ends.isfinite(), ends.clamp(min=0), top[:, None, None])
    lost = known.sum(2) / (2 * top[:, None]).clamp(min=1e-300)
    best = (_EVEN * value - lost.nan_to_num(1.0, 1.0)).masked_fill(value < 0, -torch.inf).argmax(1)
    rows = (torch.arange(len(regions)) * axes.shape[1] + best)[:, None] * 2 + torch.arange(2)
    open_ = ~(ends[torch.arange(len(regions)), best] < 0)
    return tried.take(rows[open_]), torch.arange(len(regions))[:, None].expand(-1, 2)[open_]


def _shares(values: Tensor) -> Tensor:
    """Values `(B, n)` as shares of the largest one of their row; 0 where they are no numbers."""
    return (values / values.amax(1, keepdim=True).clamp(min=1e-300)).nan_to_num(0.0, 0.0, 0.0)
