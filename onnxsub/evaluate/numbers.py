"""Distances as people read them: one number of decimals for all that stand together, ends of brackets rounded outwards."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

__all__ = ["NONE", "Digits"]

NONE = "-"

_FIGURES = 4
_MOST = 9


@dataclass(frozen=True)
class Digits:
    """So many decimals."""

    decimals: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Digits:
        """Four figures of the value in the middle; none where all are whole numbers."""
        known = sorted(abs(v) for v in values if v and math.isfinite(v))
        if not known or all(v == int(v) for v in known):
            return Digits(0 if known else _FIGURES)
        return Digits(min(max(_FIGURES - 1 - math.floor(math.log10(known[len(known) // 2])), 0), _MOST))

    def near(self, value: float | None) -> str:
        """Rounded to the nearest."""
        return self._rounded(value, ROUND_HALF_EVEN)

    def low(self, value: float | None) -> str:
        """Rounded down, as befits a lower end."""
        return self._rounded(value, ROUND_FLOOR)

    def high(self, value: float | None) -> str:
        """Rounded up, as befits an upper end."""
        return self._rounded(value, ROUND_CEILING)

    def bracket(self, status: str, lower: float | None, upper: float | None) -> str:
        """A distance: one number where it is exact, else its two ends, or why there is none."""
        if status == "exact":
            return self.near(upper)
        if status == "none":
            return "none"
        if status == "misclassified":
            return self.near(0.0)
        if status != "bracket" or lower is None:
            return NONE
        return f"at least {self.low(lower)}" if upper is None else f"{self.low(lower)} to {self.high(upper)}"

    def _rounded(self, value: float | None, way: str) -> str:
        if value is None or math.isnan(value):
            return NONE
        if math.isinf(value):
            return "none"
        # the shortest decimal that is this float: 0.12 is rounded down to 0.1200, not to 0.1199
        return f"{Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-self.decimals), rounding=way):,}"
