"""Two models on the same samples, of some of which it is open whether a property holds: the difference as far as it is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import Interval
from onnxsub.metrics.paired import mcnemar, paired_interval

__all__ = ["PairedShares", "paired_shares"]


@dataclass(frozen=True)
class PairedShares:
    """How often a property holds of one model and not of the other.

    Attributes:
        count: samples. both, neither, first, second: of them, those where it surely holds of both, of neither, of that one only.
        open: all others.
        lower, upper: of the difference of the shares (first - second), what is open read against the first model and for it.
        interval: of the difference over everything that the samples were drawn from.
        p_value: of the exact McNemar test; the larger one of the two readings, 1 where they point in different directions.
    """

    count: int
    both: int
    neither: int
    first: int
    second: int
    open: int
    lower: float
    upper: float
    interval: Interval
    p_value: float

    def to_json(self) -> dict[str, Any]:
        names = ("count", "both", "neither", "first", "second", "open", "lower", "upper", "p_value")
        return {**{name: getattr(self, name) for name in names}, "interval": self.interval.to_json()}


def paired_shares(first: Sequence[bool | None], second: Sequence[bool | None], confidence: float) -> PairedShares:
    """The comparison; None is open.

    Raises:
        InputError: no samples, or not one of each model per sample.
    """
    if not first or len(first) != len(second):
        raise InputError(f"{len(first)} and {len(second)} samples are no pairs; compare models on the same samples")
    n, pairs = len(first), list(zip(first, second, strict=True))
    sure = {(a, b): sum(pair == (a, b) for pair in pairs) for a in (True, False) for b in (True, False)}
    # what is open read against the first model, then for it: no other reading goes further
    readings = []
    for open_first in (False, True):
        told = [(open_first if a is None else a, (not open_first) if b is None else b) for a, b in pairs]
        readings.append((sum(a and not b for a, b in told), sum(b and not a for a, b in told)))
    low, high = (paired_interval(won, lost, n, confidence) for won, lost in readings)
    ends = [(won - lost) / n for won, lost in readings]
    # a reading in between has its difference in between, and so its direction
    p = max(mcnemar(won, lost) for won, lost in readings) if ends[0] * ends[1] > 0 else 1.0
    return PairedShares(
        n, sure[True, True], sure[False, False], sure[True, False], sure[False, True], n - sum(sure.values()),
        ends[0], ends[1], Interval(low.lower, high.upper, confidence, low.method), p,
    )  # fmt: skip
