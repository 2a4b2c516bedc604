"""The figures of one model at one place of the grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.evaluate.many.row import CellRow
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.robustness.measure import Measure
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.run import sum_up
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally, verdict_of

__all__ = ["Cell", "cells_of"]


@dataclass(frozen=True, eq=False)
class Cell:
    """One model at one place.

    Attributes:
        model: its name. settings: as of a run of the place alone. rows: of the samples. counts, measure: of these.
    """

    model: str
    settings: RobustnessSettings
    rows: tuple[SampleRow, ...]
    counts: Tally
    measure: Measure

    @staticmethod
    def of(model: str, settings: RobustnessSettings, rows: Sequence[SampleRow]) -> Cell:
        """The figures of the rows."""
        _, counts, found = sum_up(rows, settings)
        return Cell(model, settings, tuple(rows), counts, found)

    @property
    def nothing_decided(self) -> bool:
        """Whether every sample that was looked at failed, or stayed undecided where that is no answer."""
        answers = self.settings.metric in ("security", "accuracy")
        seen = [row for row in self.rows if row.status != "pending"]
        return all(r.status == "failed" or (not answers and verdict_of(r, self.settings) == "undecided") for r in seen)

    def to_json(self) -> dict[str, Any]:
        """A block of the document `onnxsub.robustness-many/1`."""
        interval, c = self.measure.interval, self.counts
        return {
            "model": self.model, "metric": self.settings.metric, "property": self.settings.prop, "eps": self.settings.eps,
            "proved": len(c.proved), "violated": len(c.violated), "undecided": len(c.undecided),
            "misclassified": len(c.misclassified), "pending": len(c.pending), "estimate": self.measure.estimate(),
            "interval": None if interval is None else interval.to_json(), "samples": self.measure.samples,
            "guarantee": self.measure.guarantee,
        }  # fmt: skip


def cells_of(rows: Iterable[CellRow], settings: ManySettings, models: Sequence[str]) -> tuple[Cell, ...]:
    """Every model at every place, in the order of the models and of the grid."""
    found: Mapping[tuple[str, str, str, float], list[CellRow]] = {
        (model, *place): [] for model in models for place in settings.places
    }
    for row in rows:
        found[row.model, row.metric, row.prop, row.eps].append(row)
    return tuple(Cell.of(name, settings.places[metric, prop, eps], own) for (name, metric, prop, eps), own in found.items())
