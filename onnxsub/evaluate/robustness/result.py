"""The answer of `onnxsub robustness`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.evaluate.robustness.measure import Measure
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally
from onnxsub.evaluate.tables import results_of
from onnxsub.results import VERSION
from onnxsub.shown import Shown, number

__all__ = ["RobustnessResult"]


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessResult(Shown):
    """What a run came to.

    Attributes:
        folder: of the run. plan: content of its `run.toml`.
        cells: every model at every place of the grid; one model, metric, property and radius have one.
        units: number of units by state. finished: no unit is left, or enough are done. interrupted: ended by Ctrl-C.
        failures: reason -> how often. done_now, wall_s, busy_s: see `onnxsub.evaluate.drive.Driven`.
    """

    folder: Path
    plan: Mapping[str, Any]
    cells: tuple[Cell, ...]
    units: Mapping[str, int]
    finished: bool
    interrupted: bool
    failures: Mapping[str, int]
    done_now: int
    wall_s: float
    busy_s: float

    @property
    def alone(self) -> bool:
        """Whether the run is about one model, metric, property and radius."""
        return bool(self.plan["schema"] == RobustnessSettings.SCHEMA)

    @property
    def cell(self) -> Cell:
        """The only one. Raises InputError where there are several."""
        if len(self.cells) != 1:
            raise InputError(f"this run has {len(self.cells)} figures; take one of its cells, or cell_of(model=..., eps=...)")
        return self.cells[0]

    def cell_of(self, **where: Any) -> Cell:
        """The cell of a `model`, `metric`, `prop` and `eps`, as far as they are needed. Raises InputError where it is not one."""
        found = [c for c in self.cells if all(_place(c).get(k) == v for k, v in where.items())]
        if len(found) != 1:
            raise InputError(f"{len(found)} of {len(self.cells)} figures are of {where}; name model, metric, prop and eps of one")
        return found[0]

    @property
    def rows(self) -> tuple[SampleRow, ...]:
        """One per sample, of the only cell, in the order of the units."""
        return self.cell.rows

    @property
    def used(self) -> int:
        """How many of the rows, from the first on, the measure is made of."""
        return self.cell.used

    @property
    def counts(self) -> Tally:
        """Of those rows."""
        return self.cell.counts

    @property
    def measure(self) -> Measure:
        """Estimate, interval and guarantee of the only cell."""
        return self.cell.measure

    @property
    def line(self) -> str:
        if not self.alone:
            return f"{str(self.folder)!r}: {len(self.plan['model']):,} models, {len(self.cells):,} figures"
        m = self.measure
        ends = number(m.lower) if m.lower == m.upper else f"{number(m.lower)} to {number(m.upper)}"
        return f"{str(self.folder)!r}: {self.plan['settings']['metric']} {ends} of {m.samples:,} samples"

    @property
    def nothing_decided(self) -> bool:
        """Whether no sample is decided at any place, though some were looked at."""
        return any(cell.counts.seen for cell in self.cells) and all(cell.nothing_decided for cell in self.cells)

    def to_json(self, *, indices: bool = False) -> dict[str, Any]:
        """The document `onnxsub.robustness/1`, of several models or places `onnxsub.robustness-many/1`.

        Args:
            indices: also the positions of the samples behind each count.
        """
        table, parquet = results_of(self.folder)
        models = [{k: model[k] for k in ("name", "path", "sha256")} for model in self.plan["model"]]
        about = {"data": self.plan["data"], "settings": self.plan["settings"]}
        if self.alone:
            what = {"model": models[0], **about, **self.cell.figures(indices=indices)}
        else:
            what = {"models": models, **about, "blocks": [cell.to_json(indices=indices) for cell in self.cells]}
        return {
            "schema": "onnxsub.robustness/1" if self.alone else "onnxsub.robustness-many/1",
            "version": VERSION,
            "run": str(self.folder),
            **what,
            "units": dict(self.units),
            "finished": self.finished,
            "interrupted": self.interrupted,
            "failures": dict(self.failures),
            "results": None if parquet is None else str(parquet),
            "samples_csv": str(table),
            "done_now": self.done_now,
            "time_s": {"total": self.wall_s, "busy": self.busy_s},
        }


def _place(cell: Cell) -> dict[str, Any]:
    s = cell.settings
    return {"model": cell.model, "metric": s.metric, "prop": s.prop, "eps": s.eps}
