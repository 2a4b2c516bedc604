"""The figures of one model at one place of the grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from onnxsub.evaluate.robustness.grid import Grid, Place
from onnxsub.evaluate.robustness.measure import Measure, measure
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.stopping import used_rows
from onnxsub.evaluate.robustness.tally import Tally, tally, verdict_of

__all__ = ["Cell", "Cells"]

_UNSAID: Mapping[str, Any] = MappingProxyType({"intervals": [], "of_these_samples": None, "reached": False})
"""What an unfinished run says in place of the intervals among the further figures of a measure."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One model at one place.

    Attributes:
        model: its name. settings: as of a run of the place alone.
        rows: of the samples, in the order of the units. used: how many of them, from the first on, the figures are made of.
        counts, measure: of these.
    """

    model: str
    settings: RobustnessSettings
    rows: tuple[SampleRow, ...]
    used: int
    counts: Tally
    measure: Measure

    @staticmethod
    def of(model: str, settings: RobustnessSettings, rows: Sequence[SampleRow]) -> Cell:
        """The figures of the rows of a run, finished or not.

        What an unfinished run has seen is no random part of the data (what is easy ends first), so it guarantees nothing.
        """
        used = used_rows(rows, settings)
        counts = tally(rows[:used], settings)
        found = measure(rows[:used], counts, settings)
        if counts.pending:
            left = f"{len(counts.pending):,} samples have not been looked at"
            why = f"Nothing yet: {left}, and what was seen first may be what is easy."
            unsaid = {k: v for k, v in _UNSAID.items() if k in found.more}
            found = replace(found, interval=None, guarantee=why, more={**found.more, **unsaid})
        return Cell(model, settings, tuple(rows), used, counts, found)

    @property
    def seen(self) -> list[SampleRow]:
        """The rows that the figures are made of."""
        return [row for row in self.rows[: self.used] if row.status != "pending"]

    @property
    def nothing_decided(self) -> bool:
        """Whether every sample that was looked at failed, or stayed undecided where that is no answer.

        An attack that fails and points that all satisfy are the answers of `security` and `accuracy`, and what an attack comes to
        that of `approximate`: there only failures count.
        """
        answers = self.settings.metric in ("security", "accuracy") or self.settings.approximate is not None
        return all(r.status == "failed" or (not answers and verdict_of(r, self.settings) == "undecided") for r in self.seen)

    def figures(self, *, indices: bool = False) -> dict[str, Any]:
        """What every document says of a place: counts, estimate, interval, guarantee.

        Args:
            indices: also the positions of the samples behind each count.
        """
        interval, counts = self.measure.interval, asdict(self.counts)
        return {
            **{name: len(found) for name, found in counts.items()},
            **({"index": {name: list(found) for name, found in counts.items()}} if indices else {}),
            "estimate": self.measure.estimate(),
            "interval": None if interval is None else interval.to_json(),
            "samples": self.measure.samples,
            "guarantee": self.measure.guarantee,
        }

    def to_json(self, *, indices: bool = False) -> dict[str, Any]:
        """A block of the document `onnxsub.robustness-many/1`."""
        s = self.settings
        place = {"model": self.model, "metric": s.metric, "property": s.prop, "eps": s.eps}
        return {**place, **self.figures(indices=indices)}


class Cells:
    """Every model at every place, in the order of the models and of the grid, as their rows come in.

    Args:
        models: their names.
    """

    def __init__(self, grid: Grid, models: Sequence[str]) -> None:
        self._grid = grid
        self._rows: dict[tuple[str, Place], list[SampleRow]] = {(model, place): [] for model in models for place in grid.places}

    def kept(self, placed: Iterable[tuple[str, Place, SampleRow]]) -> Iterator[tuple[str, Place, SampleRow]]:
        """Passes the rows on, each after it has been kept."""
        for model, place, row in placed:
            self._rows[model, place].append(row)
            yield model, place, row

    def all(self) -> tuple[Cell, ...]:
        """The figures of what was kept."""
        return tuple(Cell.of(model, self._grid.places[place], rows) for (model, place), rows in self._rows.items())
