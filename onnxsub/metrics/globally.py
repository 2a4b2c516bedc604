r"""Global robustness with a guarantee: what N samples say of the distribution that they were drawn from.

    qualitative    R = E[g],       g(x) = 1 where the property holds at x, else 0
    quantitative   D = E[g_bar],   g_bar(x) in [A, B], such as the distance to the decision boundary, cut off at B

The samples are the data set, the population is the distribution from which its samples were drawn independently. Nothing is
said of inputs of another kind.

*What is not decided.* A sample that no verifier decided has an unknown g in {0, 1}. Counting it as violated gives a smaller mean,
counting it as proved a larger one, `E[g_low] <= R <= E[g_high]`, so the interval runs from the lower end for `g_low` to the upper
end for `g_high`: the union of both intervals. Each end alone fails with probability `alpha / 2`, so it holds at `1 - alpha`. An
attack proves nothing and every sample that it does not break is undecided: it gives an upper bound of R, and the lower end is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.metrics.intervals import Interval, check_range, clopper_pearson, hoeffding_interval
from onnxsub.metrics.sequential import run_sequential
from onnxsub.results import VERSION, jsonable

__all__ = ["MISCLASSIFIED", "GlobalEstimate", "estimate_sequential", "estimate_share", "estimate_values", "shuffled"]

STATUSES = ("proved", "violated", "undecided", "misclassified")

MISCLASSIFIED = ("violated", "excluded")
"""What a misclassified sample counts as: the property does not hold there, or it is none of the population."""

Bracket = tuple[float, float]


@dataclass(frozen=True)
class GlobalEstimate:
    """What is known of R or D.

    Attributes:
        kind: `share` (R) or `mean` (D).
        lower, upper: the mean over the samples; they differ where samples are undecided.
        intervals: of the mean over the distribution, by method.
        samples: that count.
        counts: of every status (for a mean of values: none).
        error: half the width that was asked for; None where none was.
        reached: whether some interval is that narrow.
        guarantee: one sentence for a reader who has not read the papers.
    """

    kind: str
    lower: float
    upper: float
    intervals: tuple[Interval, ...]
    samples: int
    counts: Mapping[str, int]
    error: float | None
    reached: bool
    guarantee: str

    @property
    def estimate(self) -> float | None:
        """The mean over the samples where all of them are decided."""
        return self.lower if self.lower == self.upper else None

    @property
    def interval(self) -> Interval:
        """The narrowest of the intervals. Choosing it costs no confidence: Clopper-Pearson always lies within Hoeffding."""
        return min(self.intervals, key=lambda i: i.width)

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.global/1`."""
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.global/1",
                "version": VERSION,
                "kind": self.kind,
                "estimate": {"lower": self.lower, "upper": self.upper},
                "interval": self.interval.to_json(),
                "intervals": [i.to_json() for i in self.intervals],
                "samples": self.samples,
                **self.counts,
                "error": self.error,
                "reached": self.reached,
                "guarantee": self.guarantee,
            }
        )
        return document


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers 0 to `count - 1` in random order: a data set may be sorted by class, a sequence must not be."""
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]


def estimate_share(
    statuses: Sequence[str],
    confidence: float,
    *,
    misclassified: str = "violated",
    error: float | None = None,
    what: str = "the property holds",
) -> GlobalEstimate:
    """R from one status per sample: `proved`, `violated`, `undecided` or `misclassified`.

    Args:
        misclassified: one of `MISCLASSIFIED`.
        error: half the width that is wanted, for `reached`; `intervals.require_samples` says beforehand how many samples it needs.
        what: what is counted, for the guarantee: "the class does not change within 0.1".

    Raises:
        InputError: an unknown status, or no samples that count.
    """
    counts = _counts(statuses)
    bad = counts["violated"] + (counts["misclassified"] if misclassified == "violated" else 0)
    samples = counts["proved"] + counts["undecided"] + bad
    _check(samples, misclassified)
    low, high = counts["proved"], counts["proved"] + counts["undecided"]
    exact = Interval(
        clopper_pearson(low, samples, confidence).lower, clopper_pearson(high, samples, confidence).upper, confidence,
        "clopper-pearson",
    )  # fmt: skip
    intervals = (_hoeffding(low / samples, high / samples, samples, confidence, (0.0, 1.0)), exact)
    text = _share_guarantee(exact, samples, counts, misclassified, what)
    reached = _reached(intervals, error)
    return GlobalEstimate("share", low / samples, high / samples, intervals, samples, counts, error, reached, text)


def estimate_values(
    values: Sequence[float | Bracket], confidence: float, value_range: tuple[float, float], *, error: float | None = None,
    what: str = "the value",
) -> GlobalEstimate:  # fmt: skip
    """D from one number or bracket `(lower, upper)` per sample, cut off at the ends of `value_range`."""
    low, high = check_range(value_range)
    brackets = [_cut(v, low, high) for v in values]
    _check(len(brackets), "violated")
    lower, upper = (min(max(math.fsum(b[i] for b in brackets) / len(brackets), low), high) for i in (0, 1))
    interval = _hoeffding(lower, upper, len(brackets), confidence, value_range)
    text = _mean_guarantee(interval, len(brackets), value_range, what)
    return GlobalEstimate("mean", lower, upper, (interval,), len(brackets), {}, error, _reached((interval,), error), text)


def estimate_sequential(
    outcomes: Iterable[str] | Iterable[float | Bracket],
    error: float,
    confidence: float,
    *,
    value_range: tuple[float, float] | None = None,
    misclassified: str = "violated",
    what: str | None = None,
) -> GlobalEstimate:
    """R (statuses) or D (numbers or brackets, with `value_range`), sample by sample, until the interval is at most `2 error` wide.

    Args:
        outcomes: in random order (`shuffled`); may be computed as they are asked for. No sample beyond the last needed is.
    """
    share = value_range is None
    low, high = (0.0, 1.0) if value_range is None else check_range(value_range)
    seen: list[str] = []
    used: list[Bracket] = []

    def brackets() -> Iterable[Bracket]:
        for outcome in outcomes:
            if isinstance(outcome, str):
                if not share:
                    raise InputError(f"the outcome {outcome!r} is a status; a mean of values needs numbers")
                seen.append(outcome)
                _counts([outcome])
                if outcome == "misclassified" and misclassified == "excluded":
                    continue
                used.append((float(outcome == "proved"), float(outcome in ("proved", "undecided"))))
            elif share:
                raise InputError(f"the outcome {outcome!r} is no status; numbers need their value_range")
            else:
                used.append(_cut(outcome, low, high))
            yield used[-1]

    _check(1, misclassified)
    run = run_sequential(brackets(), error, confidence, value_range=(low, high), binary=share)
    lower, upper = (math.fsum(b[i] for b in used) / len(used) for i in (0, 1))
    counts = _counts(seen) if share else {}
    if share:
        text = _share_guarantee(run.interval, run.samples, counts, misclassified, what or "the property holds")
    else:
        text = _mean_guarantee(run.interval, run.samples, (low, high), what or "the value")
    stop = "The samples at hand were used up before it was narrow enough"
    if run.reached:
        stop = "The samples were taken one by one until that was narrow enough"
    text += f" {stop}; the confidence allows for looking after every one."
    return GlobalEstimate(
        "share" if share else "mean", lower, upper, (run.interval,), run.samples, counts, error, run.reached, text
    )  # fmt: skip


def _counts(statuses: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(STATUSES, 0)
    for status in statuses:
        if status not in counts:
            raise InputError(f"the status {status!r} is unknown; it is one of {', '.join(STATUSES)}")
        counts[status] += 1
    return counts


def _check(samples: int, misclassified: str) -> None:
    if misclassified not in MISCLASSIFIED:
        raise InputError(f"misclassified samples count as {misclassified!r}? choose one of {', '.join(MISCLASSIFIED)}")
    if samples < 1:
        raise InputError("no samples that count: give more, or count the misclassified ones as violated")


def _cut(value: float | Bracket, low: float, high: float) -> Bracket:
    lower, upper = value if isinstance(value, tuple) else (value, value)
    if not lower <= upper:  # NaN fails too
        raise InputError(f"the value [{lower:g}, {upper:g}] is no bracket; give two numbers, the smaller one first")
    return min(max(lower, low), high), min(max(upper, low), high)


def _hoeffding(lower: float, upper: float, samples: int, confidence: float, value_range: tuple[float, float]) -> Interval:
    one, other = (hoeffding_interval(mean, samples, confidence, value_range) for mean in (lower, upper))
    return Interval(one.lower, other.upper, confidence, "hoeffding")


def _reached(intervals: tuple[Interval, ...], error: float | None) -> bool:
    return error is None or min(i.width for i in intervals) <= 2 * error


def _share_guarantee(interval: Interval, samples: int, counts: Mapping[str, int], misclassified: str, what: str) -> str:
    drawn = "inputs drawn as the samples were"
    if misclassified == "excluded":
        drawn = "correctly classified " + drawn
    sure = f"With confidence {100 * interval.confidence:g} % over the choice of the {samples} samples,"
    undecided = counts["undecided"]
    if undecided and not counts["proved"]:
        return (
            f"{sure} {what} for at most {_above(interval.upper)} % of {drawn}. No sample was proved, as with every attack, so "
            "there is no lower bound: it may be anything below that."
        )
    text = f"{sure} {what} for {_below(interval.lower)} % to {_above(interval.upper)} % of {drawn}."
    if undecided:
        text += f" The {undecided} undecided samples count as violated in the first number and as proved in the second."
    return text


def _below(share: float) -> str:
    """A share as percent, rounded down: a guarantee is never more than what was computed."""
    return f"{math.floor(1e4 * share) / 100:.2f}"


def _above(share: float) -> str:
    """The same, rounded up."""
    return f"{math.ceil(1e4 * share) / 100:.2f}"


def _mean_guarantee(interval: Interval, samples: int, value_range: tuple[float, float], what: str) -> str:
    low, high = value_range
    return (
        f"With confidence {100 * interval.confidence:g} % over the choice of the {samples} samples, the mean of {what}, cut off at "
        f"{low:g} and {high:g}, is between {interval.lower:.6g} and {interval.upper:.6g} for inputs drawn as the samples were."
    )
