"""What the samples of a run say, as one number with its interval, and what is guaranteed of it, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxsub.evaluate.robustness.holds import holds
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally, verdict_of
from onnxsub.evaluate.robustness.values import bracket_of
from onnxsub.evaluate.robustness.words import near_words, point_words, proof_words, property_words, value_words
from onnxsub.metrics.globally import GlobalEstimate, estimate_sequential, estimate_share, estimate_values
from onnxsub.metrics.intervals import Interval, clopper_pearson, hoeffding_interval
from onnxsub.metrics.pointwise import Rho, estimated, frequency, frequency_interval, severity

__all__ = ["Measure", "measure", "rhos_of"]


@dataclass(frozen=True)
class Measure:
    """One metric of a data set.

    Attributes:
        quantity: what is measured, in words.
        lower, upper: the share or mean over the samples that were seen, as far as it is known: equal where every sample is decided.
        counted: how misclassified and undecided samples enter, in words.
        interval: of the same over everything that the samples were drawn from; None where nothing was seen.
        samples: that it is made of. guarantee: what may be relied on, in words.
        more: further figures under their JSON names.
    """

    quantity: str
    lower: float | None
    upper: float | None
    counted: str
    interval: Interval | None
    samples: int
    guarantee: str
    more: Mapping[str, Any] = field(default_factory=dict)

    def estimate(self) -> dict[str, Any]:
        """The key `estimate` of the contract."""
        return {"quantity": self.quantity, "lower": self.lower, "upper": self.upper, "counted": self.counted, **self.more}


_POPULATION = (
    "The interval speaks of all inputs of the kind that the data were drawn from, "
    "provided that the samples are independent draws of them"
)


def measure(rows: Sequence[SampleRow], counts: Tally, settings: RobustnessSettings) -> Measure:
    """The metric of the settings over the rows that were looked at."""
    seen = [r for r in rows if r.status != "pending"]
    if not seen:
        return _nothing(settings, "no sample was looked at")
    return _MEASURES[settings.metric](seen, counts, settings)


def _satisfaction(rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings) -> Measure:
    n, proved, open_ = len(rows), len(counts.proved), len(counts.undecided)
    interval = _between(proved, proved + open_, n, s.confidence)
    guarantee = (
        f"{proof_words(s)} {_POPULATION}; it holds with {_percent(s.confidence)} confidence, whatever the undecided samples are: "
        "its lower end takes them as violated, its upper end as satisfied."
    )
    shares = {"proved": proved / n, "violated": len(counts.violated) / n, "undecided": open_ / n}
    shares["misclassified"] = len(counts.misclassified) / n
    quantity = f"constraint satisfaction: share of samples of which it is true that {property_words(s)}"
    counted = _counted(s, "undecided samples lie between lower (taken as violated) and upper (taken as satisfied)")
    return Measure(quantity, proved / n, (proved + open_) / n, counted, interval, n, guarantee, {"shares": shares})


def _security(rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings) -> Measure:
    n, stood = len(rows), len(counts.undecided)
    sure = sum(holds(r, s) is True for r in rows)  # a unit that broke off, or that time ended, is no attack that failed
    guarantee = (
        "Every violated sample has a counterexample that onnxruntime confirmed, so at most this share is robust. That the attack "
        "failed proves nothing: the share that is robust may be smaller, down to zero. "
        f"{_POPULATION}, and of this attack only ({_percent(s.confidence)} confidence)."
    )
    attack = "the attack" if s.attack is None else f"the attack ({s.attack})"
    quantity = f"constraint security: share of samples of which {attack} could not refute that {property_words(s)}"
    counted = _counted(s, "undecided means that the attack failed; where a limit ended it, it counts in the upper end only")
    return Measure(quantity, sure / n, stood / n, counted, _between(sure, stood, n, s.confidence), n, guarantee)


def _accuracy(rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings) -> Measure:
    assert s.draws is not None
    n, satisfied = len(rows), sum(r.satisfied or 0 for r in rows)
    # of a unit that broke off nothing is known, nor of the points for which the time of a sample did not suffice
    possible = satisfied + s.draws * sum(r.status == "failed" for r in rows)
    possible += sum(s.draws - (r.drawn or 0) for r in rows if r.status == "drawn")
    lower, upper = satisfied / (n * s.draws), possible / (n * s.draws)
    pooled = _between(satisfied, possible, n * s.draws, s.confidence)
    ends = [hoeffding_interval(mean, n, s.confidence) for mean in (lower, upper)]
    guarantee = (
        "Uniform points are no attack and no proof: a share of 1 does not say that a sample is robust, it says that points which "
        f"violate the property are rare in its ball. {_POPULATION} ({_percent(s.confidence)} confidence); "
        "'of_these_samples' speaks of the balls round these very samples."
    )
    more = {"draws": s.draws, "points": n * s.draws, "satisfied": satisfied, "of_these_samples": pooled.to_json()}
    quantity = f"constraint accuracy: how often a random point at most {s.eps:g} away in each value {point_words(s)}"
    counted = _counted(s, "violated means that one of the points does not satisfy; undecided, that all do")
    interval = Interval(ends[0].lower, ends[1].upper, s.confidence, "hoeffding")
    return Measure(quantity, lower, upper, counted, interval, n, guarantee, more)


def _pointwise(rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings) -> Measure:
    rhos = rhos_of(rows)
    low, high = frequency(rhos, s.eps)
    mean = severity(rhos, s.eps)
    guarantee = (
        f"{proof_words(s)} {_POPULATION}; it holds with {_percent(s.confidence)} confidence for this one radius, wherever the "
        "distances lie within their brackets."
    )
    quantity = f"adversarial frequency phi({s.eps:g}): share of samples with another class within {s.eps:g}"
    counted = "a misclassified sample has the distance 0; one of which a bracket is known may or may not lie within the radius"
    near = None if mean is None else {"lower": mean[0], "upper": mean[1]}
    interval = frequency_interval(rhos, s.eps, s.confidence)
    often, far = estimated([_taken(r) for r in rows], s.eps)
    told = {"frequency": often, "severity": far, "by": s.via or s.distances}
    return Measure(quantity, low, high, counted, interval, len(rhos), guarantee, {"severity": near, "estimated": told})


def _taken(row: SampleRow) -> float:
    """What is taken for the distance of a sample: of a substitute its own, else the nearest point that is known."""
    if row.status == "misclassified":
        return 0.0
    found = row.upper if row.value is None else row.value
    return math.inf if found is None else found


def _global(rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings) -> Measure:
    found: GlobalEstimate
    if s.quantitative:
        what, brackets = value_words(s), [bracket_of(r, s) for r in rows]
        if s.sequential:
            assert s.error is not None
            found = estimate_sequential(brackets, s.error, s.confidence, value_range=s.values, what=what)
        else:
            found = estimate_values(brackets, s.confidence, s.values, error=s.error, what=what)
        quantity = f"global robustness, quantitative: mean of {what}"
        if s.approximate is not None:
            quantity += f", by {s.approximate} alone: a bound from {'above' if s.local.smallest else 'below'}"
        counted = "a sample of which a bracket is known enters the lower and the upper mean with its two ends"
        counted += ", a misclassified one with the distance 0" if s.needs_distances else ""
    else:
        what, statuses = near_words(s), [verdict_of(r, s) for r in rows]
        if s.sequential:
            assert s.error is not None
            found = estimate_sequential(statuses, s.error, s.confidence, what=what)
        else:
            found = estimate_share(statuses, s.confidence, error=s.error, what=what)
        quantity = f"global robustness, qualitative: share of inputs of which it is true that {what}"
        counted = _counted(s, "an undecided one as violated in the lower share and as satisfied in the upper one")
    more: dict[str, Any] = {"intervals": [i.to_json() for i in found.intervals], "error": s.error, "reached": found.reached}
    if s.approximate is not None:
        bound = "upper" if s.local.smallest else "lower"
        more["approximate"] = {"method": s.approximate, "bound": bound, "value": getattr(found, bound)}
    guarantee = f"{found.guarantee} {proof_words(s)}"
    return Measure(quantity, found.lower, found.upper, counted, found.interval, found.samples, guarantee, more)


def _nothing(s: RobustnessSettings, why: str) -> Measure:
    return Measure(property_words(s), None, None, why, None, 0, f"Nothing: {why}.")


_MEASURES = {
    "satisfaction": _satisfaction, "security": _security, "accuracy": _accuracy, "pointwise": _pointwise, "global": _global,
}  # fmt: skip


def rhos_of(rows: Sequence[SampleRow]) -> list[Rho]:
    """The brackets of the distances of all rows that were looked at."""
    seen = [r for r in rows if r.status != "pending"]
    return [Rho(r.lower or 0.0, math.inf if r.upper is None else r.upper, r.status == "misclassified") for r in seen]


def _between(low: int, high: int, count: int, confidence: float) -> Interval:
    """Of a share of which `low` are sure and `high` possible: either end fails with half of the probability."""
    lower, upper = clopper_pearson(low, count, confidence), clopper_pearson(high, count, confidence)
    return Interval(lower.lower, upper.upper, confidence, "clopper-pearson")


def _counted(s: RobustnessSettings, rest: str) -> str:
    wrong = "a misclassified sample counts as violated and is listed apart; " if s.needs_label else ""
    return wrong + rest


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
