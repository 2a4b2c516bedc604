"""Which samples are proved, violated, undecided and misclassified."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["Tally", "tally", "verdict_of"]


@dataclass(frozen=True)
class Tally:
    """Positions in the data set, each in exactly one of the five.

    Attributes:
        proved: a verifier proved the property. violated: a replayed point violates it. misclassified: the property speaks of the
            class of the sample, and the sample is not of that class to begin with: violated, and counted apart.
        undecided: everything else that was looked at. pending: not looked at (yet).
    """

    proved: tuple[int, ...]
    violated: tuple[int, ...]
    undecided: tuple[int, ...]
    misclassified: tuple[int, ...]
    pending: tuple[int, ...]

    @property
    def seen(self) -> int:
        """Samples that were looked at."""
        return len(self.proved) + len(self.violated) + len(self.undecided) + len(self.misclassified)


def verdict_of(row: SampleRow, settings: RobustnessSettings) -> str:
    """The name of the field of `Tally` in which a sample belongs.

    A distance decides the ball of radius eps: `rho > eps` proves it, `rho <= eps` violates it. An attack that failed and uniform
    points that all satisfy decide nothing; one point that does not is a counterexample.
    """
    if row.status in ("pending", "misclassified"):
        return row.status
    if row.status == "drawn":
        return "undecided" if row.satisfied == row.drawn else "violated"
    if settings.needs_distances:
        lower, upper = row.lower or 0.0, math.inf if row.upper is None else row.upper
        return "proved" if lower > settings.eps else "violated" if upper <= settings.eps else "undecided"
    if row.status in ("exact", "bracket", "approximate"):  # of the quantity: what it says of the property's own bound
        return _against(row, settings)
    return row.status if row.status in ("proved", "violated") else "undecided"


def _against(row: SampleRow, settings: RobustnessSettings) -> str:
    bound, lower, upper = settings.local.bound, row.lower, row.upper
    if settings.local.smallest:
        lower, upper, bound = (None if upper is None else -upper), (None if lower is None else -lower), -bound
    if upper is not None and upper <= bound:
        return "proved"
    return "violated" if lower is not None and lower > bound else "undecided"


def tally(rows: Iterable[SampleRow], settings: RobustnessSettings) -> Tally:
    """Sorts the rows."""
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(verdict_of(row, settings), []).append(row.index)
    return Tally(*(tuple(sorted(found.get(name, ()))) for name in ("proved", "violated", "undecided", "misclassified", "pending")))
