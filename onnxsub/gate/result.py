"""The answer of a gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxsub.evaluate.samples import Samples, format_indices
from onnxsub.gate.checks import FAILED, PASSED, UNDECIDED, Check, outcome_of
from onnxsub.gate.comparison import Comparison, distance_of
from onnxsub.gate.measured import Measured
from onnxsub.gate.options import GateOptions
from onnxsub.gate.pairs import Pair, Seen
from onnxsub.results import VERSION
from onnxsub.shown import Shown

__all__ = ["GateResult", "witness_distance"]


@dataclass(frozen=True, eq=False, repr=False)
class GateResult(Shown):
    """Whether the new model passes, and why.

    Attributes:
        options: what was asked. samples: of which data.
        new, old: the two models' runs; no `old` without a baseline.
        pairs: one per sample, in the order of the data.
        comparison: of the two models; None without a baseline. checks: what had to hold.
        seconds: of the whole gate.
    """

    options: GateOptions
    samples: Samples
    new: Measured
    old: Measured | None
    pairs: tuple[Pair, ...]
    comparison: Comparison | None
    checks: tuple[Check, ...]
    seconds: float

    @property
    def line(self) -> str:
        return self.headline

    @property
    def verdict(self) -> str:
        """`passed`, `failed` or `undecided`."""
        return outcome_of(self.checks, fail_on_undecided=self.options.fail_on_undecided)

    @property
    def passed(self) -> bool:
        return self.verdict == PASSED

    @property
    def lost(self) -> tuple[Pair, ...]:
        """Samples that only the baseline counts as robust, those with a counterexample first."""
        return tuple(sorted((p for p in self.pairs if p.change == "lost"), key=lambda p: (p.new.open, p.index)))

    @property
    def won(self) -> tuple[Pair, ...]:
        """Samples that only the new model counts as robust."""
        return tuple(p for p in self.pairs if p.change == "won")

    def counts(self, which: str) -> dict[str, int]:
        """Samples by verdict, of `old` or `new`."""
        seen: Sequence[Seen] = [s for p in self.pairs if (s := p.old if which == "old" else p.new) is not None]
        first = "withstood" if self.options.metric == "security" else "proved"
        return {**dict.fromkeys((first, "violated", "undecided", "misclassified"), 0), **Counter(s.verdict for s in seen)}

    @property
    def mean_distance(self) -> float | None:
        """The mean distance that is guaranteed of the new model; None where distances were not measured."""
        if not self.options.settings.needs_distances:
            return None
        return sum(distance_of(p.new, self.options.settings)[0] for p in self.pairs) / len(self.pairs)

    @property
    def headline(self) -> str:
        """The verdict and its reason in one sentence."""
        worst = next(o for o in (FAILED, UNDECIDED, PASSED) if any(c.outcome == o for c in self.checks))
        return f"{self.verdict}: {next(c.said for c in self.checks if c.outcome == worst)}"

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.gate/1`."""
        s = self.samples
        return {
            "schema": "onnxsub.gate/1",
            "version": VERSION,
            "verdict": self.verdict,
            "headline": self.headline,
            "checks": [check.to_json() for check in self.checks],
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "new": {**self.new.to_json(), **self.counts("new")},
            "baseline": None if self.old is None else {**self.old.to_json(), **self.counts("old")},
            "samples": len(self.pairs),
            "lost": [_pair_json(p) for p in self.lost],
            "won": [_pair_json(p) for p in self.won],
            "data": {
                "source": s.source, "sha256": s.sha256, "array": s.array, "labels": s.labels, "classes": s.classes,
                "index": format_indices(s.index),
            },
            "settings": asdict(self.options),
            "time_s": {"total": self.seconds},
        }  # fmt: skip


def _pair_json(pair: Pair) -> dict[str, Any]:
    row = pair.new.row
    return {
        "sample": pair.index, "label": pair.label, "predicted": row.predicted, "verdict": pair.new.verdict,
        "baseline": None if pair.old is None else pair.old.verdict, "distance": witness_distance(pair.new), "reason": row.reason,
    }  # fmt: skip


def witness_distance(seen: Seen) -> float | None:
    """How far the counterexample is; None where there is none."""
    if seen.verdict == "misclassified":
        return 0.0
    if seen.verdict != "violated":
        return None
    return seen.row.distance if seen.row.distance is not None else seen.row.upper
