"""`onnxsub robustness` of several models, metrics, properties or radii: one run folder, one table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import OptionError
from onnxsub.evaluate.drive import PLAN, Report, RunOptions, drive, reopen
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.labels import Classes
from onnxsub.evaluate.many.cell import Cell, cells_of
from onnxsub.evaluate.many.job import ManyJob
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import Plan, schema_of
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples, read_samples
from onnxsub.evaluate.tables import results_of
from onnxsub.results import VERSION
from onnxsub.shown import Shown

__all__ = ["ManyResult", "choose_many", "holds_many", "open_many", "robustness_many"]


@dataclass(frozen=True, eq=False, repr=False)
class ManyResult(Shown):
    """What a run came to.

    Attributes:
        folder: of the run. plan: content of its `run.toml`. cells: every model at every place of the grid.
        units: number of units by state. interrupted: ended by Ctrl-C. failures: reason -> how often.
        done_now, wall_s, busy_s: see `onnxsub.evaluate.drive.Driven`.
    """

    folder: Path
    plan: Mapping[str, Any]
    cells: tuple[Cell, ...]
    units: Mapping[str, int]
    interrupted: bool
    failures: Mapping[str, int]
    done_now: int
    wall_s: float
    busy_s: float

    @property
    def line(self) -> str:
        return f"{str(self.folder)!r}: {len(self.plan['model']):,} models, {len(self.cells):,} figures"

    @property
    def finished(self) -> bool:
        """Whether no unit is left."""
        return self.units["pending"] == self.units["running"] == 0

    @property
    def nothing_decided(self) -> bool:
        """Whether no sample is decided at any place, though some were looked at."""
        looked = any(cell.counts.seen for cell in self.cells)
        return looked and all(cell.nothing_decided for cell in self.cells)

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.robustness-many/1`."""
        table, parquet = results_of(self.folder)
        return {
            "schema": "onnxsub.robustness-many/1",
            "version": VERSION,
            "run": str(self.folder),
            "models": [{k: model[k] for k in ("name", "path", "sha256")} for model in self.plan["model"]],
            "data": self.plan["data"],
            "settings": self.plan["settings"],
            "blocks": [cell.to_json() for cell in self.cells],
            "units": dict(self.units),
            "finished": self.finished,
            "interrupted": self.interrupted,
            "failures": dict(self.failures),
            "results": None if parquet is None else str(parquet),
            "samples_csv": str(table),
            "done_now": self.done_now,
            "time_s": {"total": self.wall_s, "busy": self.busy_s},
        }


def holds_many(folder: Path) -> bool:
    """Whether a folder holds a run of a grid. Raises InputError where its `run.toml` cannot be read."""
    return (folder / PLAN).is_file() and schema_of(folder / PLAN) == ManySettings.SCHEMA


def open_many(folder: Path, *, allow_commands: bool = False) -> Plan[ManySettings]:
    """The plan of a run folder, from the files that its `run.toml` names. Raises InputError as `reopen`."""
    return reopen(folder, ManySettings.SCHEMA, ManySettings.from_json, allow_commands=allow_commands)


def choose_many(
    settings: ManySettings,
    source: str | os.PathLike[str],
    choice: Choice,
    array: str | None = None,
    labels: str | None = None,
    classes: Classes | None = None,
) -> Samples:
    """The samples of a run: the chosen rows, the same for every model and place; labels where a property speaks of classes."""
    if not settings.needs_label:
        if labels not in (None, PREDICTED):
            raise OptionError(f"--labels: {', '.join(settings.props)} do not speak of classes; leave it out")
        labels = PREDICTED
    return read_samples(source, choice, array, labels, classes)


def robustness_many(
    plan: Plan[ManySettings],
    folder: Path,
    options: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> ManyResult:
    """Begins the run of a folder, or goes on with it, until every unit is settled.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of units that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit a model.
        MissingDependencyError: Ray or a verifier is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    run = drive(ManyJob(plan), folder, options or RunOptions(), engine=engine, progress=progress)
    cells = cells_of(run.summary, plan.settings, [m.name for m in plan.models])
    return ManyResult(
        folder, plan.to_json(), cells, run.counts, run.interrupted, run.failures, run.done_now, run.wall_s, run.busy_s
    )
