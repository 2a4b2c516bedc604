"""The job of `onnxsub robustness`: a unit per model, place of the grid and sample, or a batch of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxsub.evaluate.drive import GRACE
from onnxsub.evaluate.job import Plain
from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.able import check_robustness
from onnxsub.evaluate.robustness.cell import Cell, Cells
from onnxsub.evaluate.robustness.grid import Grid
from onnxsub.evaluate.robustness.kinds import BATCH, kind_of
from onnxsub.evaluate.robustness.row import CellRow, SampleRow, placed_rows
from onnxsub.evaluate.robustness.stopping import Watcher
from onnxsub.evaluate.tables import write_results
from onnxsub.metrics.globally import shuffled

__all__ = ["RobustnessJob"]


@dataclass(frozen=True, eq=False)
class RobustnessJob(Plain):
    """All places of a grid, of all models, each in the order in which a stopped run may be read.

    The method of a unit is its property, the gamma its radius; distances and batches serve all radii and have none. Where there is
    one place only, units do not name it.

    Attributes:
        plan: of a `Grid`.
    """

    plan: Plan[Any]

    @property
    def grid(self) -> Grid:
        """What is measured."""
        grid: Grid = self.plan.settings
        return grid

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(kind_of(settings, self.grid.batch) for settings in self.grid.places.values()))

    @property
    def limit(self) -> float | None:
        timeout = self.grid.timeout
        samples = self.grid.batch * len(self.grid.radii) if BATCH in self.kinds else 1
        return None if timeout is None else float(2 * timeout * samples + GRACE)

    def check(self, *, here: bool) -> None:
        largest = self.grid.radii[-1]
        for model in self.plan.loaded:
            for settings in self.grid.places.values():
                if settings.eps == largest:
                    check_robustness(model, settings, here=here)

    def units(self) -> Iterator[UnitKey]:
        g, index = self.grid, self.plan.samples.index
        # where a run may stop early, what it has seen must be a random part of the data
        order = [index[i] for i in shuffled(len(index), g.seed)] if g.sequential else index
        kinds = {(metric, prop): kind_of(settings, g.batch) for (metric, prop, _), settings in g.places.items()}
        for entry in self.plan.models:
            for (_, prop), kind in kinds.items():
                if kind == BATCH:
                    yield from ((entry.name, i, kind, prop, -1.0, "") for i in index[:: g.batch])
                    continue
                method, radii = ("", (-1.0,)) if g.alone else (prop, (-1.0,) if kind == "locate" else g.radii)
                # the units of a sample follow each other: a worker keeps its model and its anchor
                yield from ((entry.name, i, kind, method, eps, "") for i in order for eps in radii)

    def label(self, row: int) -> int | None:
        y = self.plan.samples.y
        return None if y is None or not self.grid.needs_label else int(y[row])

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {i: place for place, i in enumerate(self.plan.samples.index)}

    def block(self, unit: Unit) -> tuple[int, ...]:
        if unit.kind != BATCH:
            return ()
        at = self._places[unit.sample]
        return self.plan.samples.index[at : at + self.grid.batch]

    def watch(self, units: Iterable[Unit]) -> Watcher | None:
        (first, *_) = self.grid.places.values()
        return Watcher(first, units) if self.grid.sequential else None

    def conclude(self, ledger: Ledger, folder: Path) -> tuple[Cell, ...]:
        cells = Cells(self.grid, [m.name for m in self.plan.models])
        passing = cells.kept(placed_rows(ledger.units(), self.grid, self.plan.samples.index))
        if self.grid.alone:
            write_results((row for *_, row in passing), folder, SampleRow)
        else:
            write_results((CellRow.of(*placed) for placed in passing), folder, CellRow)
        return cells.all()
