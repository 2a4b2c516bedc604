r"""The last step of a normalisation: a product that is known to stay within a limit, whatever its factors' intervals are.

    |x_i - mean| / sqrt(var) <= sqrt(n - 1),    |x_i| / sqrt(mean of x^2) <= sqrt(n),    |x_i| / |x|_p <= 1

for n numbers, since `var >= (d^2 + d^2 / (n - 1)) / n` where one of them is d away from the mean. Intervals of the two factors know
nothing of it: where the variance may be nearly 0 they allow `1 / sqrt(epsilon)` times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxsub.ops.base import Box
from onnxsub.ops.bilinear import Pairwise, Planes

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from onnxsub.lazy import torch

__all__ = ["Normalised"]

_SLACK = 1e-9
"""Share of the limit by which it is widened: more than float64 rounds in sums of 1e6 terms."""


@dataclass(frozen=True, eq=False)
class _Limited(Planes):
    """The planes of a product; where they are farther apart than the limits, the limits (`tilted` is 0 there, else 1)."""

    tilted: Tensor

    def coefficients(self, a: Tensor) -> Tensor:
        return super().coefficients(a * self.tilted.unsqueeze(1))


@dataclass(frozen=True, eq=False, kw_only=True)
class Normalised(Pairwise):
    """`x y`, of which it is known that it lies within `-limit` and `limit`.

    Bounds hold for the factors of a normalisation, and for any others whose product keeps the limit; not for those whose product
    does not.

    Attributes:
        limit: 0 or more, without what rounding takes.
    """

    limit: float

    @property
    def most(self) -> float:
        """The limit, widened."""
        return self.limit * (1 + _SLACK)

    def interval(self, *boxes: Box) -> Box:
        low, high = super().interval(*boxes)
        return low.clamp(-self.most, self.most), high.clamp(-self.most, self.most)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Planes:
        found = super().relax(lower, upper, mode, alpha)
        tilted = found.spread < self.most
        spread = torch.where(tilted, found.spread, torch.full_like(found.spread, self.most))
        value = torch.where(tilted, found.value, torch.zeros_like(found.value))
        return _Limited(spread, value, self, found.x, found.y, tilted.to(value.dtype))
