"""A run of `onnxsub robustness` as its report reads it, and what a page is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.robustness.cell import Cell, Cells
from onnxsub.evaluate.robustness.grid import Grid, grid_from, kind_in
from onnxsub.evaluate.robustness.row import placed_rows
from onnxsub.evaluate.samples import parse_indices
from onnxsub.report.picture import Picture
from onnxsub.report.robustness_tables import Figures
from onnxsub.report.table import Table

__all__ = ["Parts", "RobustnessRun", "read_robustness"]


@dataclass(frozen=True, eq=False)
class RobustnessRun:
    """What a run folder holds.

    Attributes:
        plan: content of its `run.toml`. grid: its settings. cells: every model at every place. units: numbers by state.
    """

    plan: Mapping[str, Any]
    grid: Grid
    cells: tuple[Cell, ...]
    units: Mapping[str, int]

    @property
    def warnings(self) -> list[str]:
        """What is left to do, and why samples failed."""
        waiting = self.units["pending"] + self.units["running"]
        what = "samples are still to be looked at" if self.grid.alone else "units of work are still to be done"
        left = [f"the run is not finished: {waiting:,} of {sum(self.units.values()):,} {what}."] if waiting else []
        reasons = {r.reason: None for c in self.cells for r in c.seen if r.status == "failed" and r.reason}
        return left + [f"samples failed, which count as undecided: {reason}" for reason in reasons]


@dataclass(frozen=True, eq=False)
class Parts:
    """What stands on a page.

    Attributes:
        title: where the user gives none. lead: paragraphs. facts: names and values. texts: further `.csv` files by their names.
        lines: of the table as CSV and JSON have it.
    """

    title: str
    lead: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    texts: Mapping[str, str]
    lines: tuple[Figures, ...]


def read_robustness(run: Path) -> RobustnessRun:
    """What a run folder holds. Raises InputError where nothing is done yet, or it is another version's."""
    plan = read_plan(run / PLAN, kind_in(run / PLAN).SCHEMA)
    grid = grid_from(plan)
    cells = Cells(grid, [m["name"] for m in plan["model"]])
    with read_ledger(run) as ledger:
        units: Mapping[str, int] = ledger.counts()
        if not units["done"]:
            raise InputError(f"{str(run)!r} has no results yet; run onnxsub robustness --run {run} first")
        deque(cells.kept(placed_rows(ledger.units(), grid, parse_indices(plan["data"]["index"]))), maxlen=0)
    found = cells.all()
    if grid.sequential and found[0].measure.more.get("reached"):
        units = {**units, "pending": 0, "running": 0, "not needed": units["pending"] + units["running"]}
    return RobustnessRun(plan, grid, found, units)
