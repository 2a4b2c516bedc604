r"""The last step of a normalisation: a product that is known to stay within a limit, whatever its factors' intervals are.

    |x_i - mean| / sqrt(var) <= sqrt(n - 1),    |x_i| / sqrt(mean of x^2) <= sqrt(n),    |x_i| / |x|_p <= 1

for n numbers, since `var >= (d^2 + d^2 / (n - 1)) / n` where one of them is d away from the mean. Intervals of the two factors know
nothing of it: where the variance may be nearly 0 they allow `1 / sqrt(epsilon)` times as much.

Executed (`bilinear.py`), it stays within `sqrt(n) (1 + (n + 128) u)` and twice what the product may be off by: an execution divides
by the root of the mean square of nearly what it divides, which need not have the mean 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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

_UNIT = 2.0**-24


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

    def of_raw_moments(self) -> Normalised:
        """The product as it is executed with a variance that need not be that of the numbers: it has no limit."""
        return replace(self, limit=math.inf)

    def _limits(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The limit of real numbers or of executions, widened, broadcastable to `(N, *out_shape)`."""
        if self.rooms is None:
            return lower.new_tensor(self.most)
        count = self.limit**2 + 1
        off = self._off(*self.split(torch.maximum(lower.abs(), upper.abs())))
        return (2 * off + math.sqrt(count) * (1 + (count + 128) * _UNIT)).reshape(-1, *self.out_shape)

    def interval(self, *boxes: Box) -> Box:
        low, high = super().interval(*boxes)
        most = self._limits(*boxes[0])
        return low.maximum(-most).minimum(most), high.minimum(most).maximum(-most)

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Planes:
        found = super().relax(lower, upper, mode, alpha)
        most = self._limits(lower, upper)
        tilted = found.spread < most
        spread = torch.where(tilted, found.spread, most)
        value = torch.where(tilted, found.value, torch.zeros_like(found.value))
        return _Limited(spread, value, self, found.x, found.y, tilted.to(value.dtype))
