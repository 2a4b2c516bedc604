"""How far the new model has fallen behind the baseline, at least and at most; the exact test and the interval of the difference.

The baseline counts with what it guarantees: samples that are proved (or that withstood the attack), lower ends of distances.
What is undecided of the new model counts once in its favour (`least`) and once against it (`most`); a sample that both leave
undecided has not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.gate.pairs import Pair, Seen
from onnxsub.metrics.intervals import Interval
from onnxsub.metrics.paired import mcnemar, mean_interval, paired_interval

__all__ = ["Comparison", "Fall", "compare", "distance_of"]

_SAME = 2e-6
"""Distances that differ by no more are equal: each is known to 1e-6."""


@dataclass(frozen=True)
class Fall:
    """The drop under one reading of the undecided samples.

    Attributes:
        drop: difference of the shares, or the part of the baseline's mean distance that is gone; negative for a rise.
        down, up: samples that fell and rose.
    """

    drop: float
    down: int
    up: int

    @property
    def p_value(self) -> float:
        """Of the exact test that falling and rising are equally likely."""
        return mcnemar(self.down, self.up)

    def beyond(self, most: float, significance: float | None) -> bool:
        """Whether the drop is more than `most`, and significant where that is asked for: the samples that rose speak against it."""
        significant = significance is None or (self.down > self.up and self.p_value <= significance)
        return self.drop > most + 1e-12 and significant

    def to_json(self) -> dict[str, Any]:
        return {"drop": self.drop, "down": self.down, "up": self.up, "p_value": self.p_value}


@dataclass(frozen=True)
class Comparison:
    """Baseline against new model.

    Attributes:
        old: what the baseline guarantees: a share, or a mean distance. new: the same of the new model, at least and at most.
        least, most: the fall, the undecided samples read in favour of the new model and against it.
        interval: of the difference old - new over everything that the samples were drawn from.
        test: name of the test.
    """

    old: float
    new: tuple[float, float]
    least: Fall
    most: Fall
    interval: Interval
    test: str

    def to_json(self) -> dict[str, Any]:
        return {
            "baseline": self.old, "new": {"lower": self.new[0], "upper": self.new[1]}, "least": self.least.to_json(),
            "most": self.most.to_json(), "interval": self.interval.to_json(), "test": self.test,
        }  # fmt: skip


def compare(pairs: Sequence[Pair], settings: RobustnessSettings) -> Comparison:
    """The comparison of pairs that all have a baseline."""
    return _distances(pairs, settings) if settings.needs_distances else _shares(pairs, settings)


def _shares(pairs: Sequence[Pair], s: RobustnessSettings) -> Comparison:
    n = len(pairs)
    lost = [p for p in pairs if p.change == "lost"]
    won = sum(p.change == "won" for p in pairs)
    surely = sum(p.new.broken for p in lost)
    maybe_won = sum(p.old is not None and p.old.broken and p.new.open for p in pairs)
    robust, open_ = sum(p.new.robust for p in pairs), sum(p.new.open for p in pairs)
    least = Fall((surely - won - maybe_won) / n, surely, won + maybe_won)
    most = Fall((len(lost) - won) / n, len(lost), won)
    # the end of a share's interval that is nearer to the new model's harm, and the other one
    low, high = (paired_interval(f.down, f.up, n, s.confidence) for f in (least, most))
    interval = Interval(low.lower, high.upper, s.confidence, low.method)
    old = sum(p.old is not None and p.old.robust for p in pairs) / n
    return Comparison(old, (robust / n, (robust + open_) / n), least, most, interval, "exact McNemar test")


def _distances(pairs: Sequence[Pair], s: RobustnessSettings) -> Comparison:
    old = [distance_of(p.old, s)[0] for p in pairs if p.old is not None]
    new = [distance_of(p.new, s) for p in pairs]
    n = len(pairs)
    mean = sum(old) / n
    ends = [sum(d[end] for d in new) / n for end in (0, 1)]
    falls = []
    for end in (1, 0):
        down = sum(d[end] < before - _SAME for before, d in zip(old, new, strict=True))
        up = sum(d[end] > before + _SAME for before, d in zip(old, new, strict=True))
        falls.append(Fall((mean - ends[end]) / mean if mean > 0 else 0.0, down, up))
    differences = [[before - d[end] for before, d in zip(old, new, strict=True)] for end in (1, 0)]
    interval = mean_interval(differences[0], differences[1], s.confidence)
    return Comparison(mean, (ends[0], ends[1]), falls[0], falls[1], interval, "exact sign test")


def distance_of(seen: Seen, s: RobustnessSettings) -> tuple[float, float]:
    """`lower <= rho <= upper` of a sample, cut to the width of the domain, beyond which there is no input."""
    if seen.verdict == "misclassified":
        return 0.0, 0.0
    width = s.domain[1] - s.domain[0]
    lower, upper = seen.row.lower, seen.row.upper
    return min(lower or 0.0, width), width if upper is None else min(upper, width)
