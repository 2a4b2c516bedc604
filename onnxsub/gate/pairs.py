"""Samples paired: what the baseline says of each, what the new model says, and what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import verdict_of
from onnxsub.evaluate.samples import Samples

__all__ = ["Pair", "Seen", "pair_up"]


@dataclass(frozen=True)
class Seen:
    """What one model says of one sample.

    Attributes:
        row: of the run. verdict: `proved`, `violated`, `undecided`, `misclassified`, or of an attack `withstood`.
    """

    row: SampleRow
    verdict: str

    @staticmethod
    def of(row: SampleRow, settings: RobustnessSettings) -> Seen:
        verdict = verdict_of(row, settings)
        if settings.metric == "security" and verdict == "undecided" and row.status != "failed":
            verdict = "withstood"  # which is what is counted there; a unit that broke off is no attack that failed
        return Seen(row, verdict)

    @property
    def robust(self) -> bool:
        """Whether the sample counts as robust."""
        return self.verdict in ("proved", "withstood")

    @property
    def open(self) -> bool:
        """Whether it may be either."""
        return self.verdict == "undecided"

    @property
    def broken(self) -> bool:
        """Whether an input of the ball is known that has another class."""
        return not (self.robust or self.open)


@dataclass(frozen=True)
class Pair:
    """One sample.

    Attributes:
        index: position in the data.
        label: class to defend, where the data have none the one that the new model predicts; None: not known.
        old, new: what the models say; no `old` without a baseline.
    """

    index: int
    label: int | None
    old: Seen | None
    new: Seen

    @property
    def change(self) -> str:
        """`lost`: the baseline counts as robust, the new model does not. `won`: the other way round. Else `kept`."""
        if self.old is None or self.old.robust == self.new.robust:
            return "kept"
        return "lost" if self.old.robust else "won"


def pair_up(
    samples: Samples, old: Mapping[int, SampleRow] | None, new: Mapping[int, SampleRow], settings: RobustnessSettings
) -> tuple[Pair, ...]:
    """The samples in the order of the data."""
    found = []
    for number, i in enumerate(samples.index):
        before = None if old is None else Seen.of(old[i], settings)
        after = Seen.of(new[i], settings)
        label = after.row.label if samples.y is None else int(samples.y[number])
        found.append(Pair(i, label, before, after))
    return tuple(found)
