"""One model over the samples: measured in a run folder of the cache, or read from a run folder that is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN, Report, RunOptions
from onnxsub.evaluate.plan import Plan, difference, read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.robustness.row import SampleRow, row_of
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Samples
from onnxsub.files import make_folder, refuse_links, write_atomic
from onnxsub.ops.base import Array

__all__ = ["Measured", "make_cache", "measured", "points_of", "recorded"]

_HARMLESS = ("confidence", "threads")
"""Settings that decide no verdict: a recorded run may differ in them."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What is known of one model.

    Attributes:
        name, path, sha256: of the file. folder: of the run.
        rows: position in the data -> what is known of that sample, for every sample of the gate.
        computed: samples that this call has looked at; the others were in the folder.
        failures: reason -> how many samples broke off for it.
        interrupted: by Ctrl-C, so that rows may be pending.
    """

    name: str
    path: str
    sha256: str
    folder: Path
    rows: Mapping[int, SampleRow]
    computed: int
    failures: Mapping[str, int]
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Where it lies, and whether it was computed now."""
        return {
            "name": self.name, "path": self.path, "sha256": self.sha256, "run": str(self.folder), "computed": self.computed,
            "failures": dict(self.failures),
        }  # fmt: skip


def measured(
    path: str, samples: Samples, settings: RobustnessSettings, cache: Path, options: RunOptions, progress: Report | None = None
) -> Measured:
    """The run of a model in the cache, begun, gone on with, or only read where it is finished.

    A folder belongs to what decides the verdicts: the model's and the data's SHA-256, the samples, the settings, the version.

    Raises:
        ModelError, InputError, MissingDependencyError, OutputError: as a run of `onnxsub robustness`.
    """
    plan = Plan.of((path,), samples, settings)
    folder = make_cache(cache) / _key(plan)
    refuse_links(cache, folder)
    (entry,) = plan.models
    if (folder / PLAN).is_file():
        # the same model under another name is the same run
        (known,) = read_plan(folder / PLAN, RobustnessSettings.SCHEMA)["model"]
        plan = replace(plan, models=(replace(entry, name=known["name"]),))
    run = robustness(plan, folder, options, progress=progress)
    rows = {row.index: row for row in run.rows}
    return Measured(entry.name, path, entry.sha256, folder, rows, run.done_now, run.failures, run.interrupted)


def recorded(folder: Path, samples: Samples, settings: RobustnessSettings) -> Measured:
    """A finished run of `onnxsub robustness`, or of a gate, without its model file.

    Raises:
        InputError: no run folder, other samples or settings, samples that are pending.
    """
    if not (folder / PLAN).is_file():
        raise InputError(f"--baseline {str(folder)!r} is a folder without {PLAN}; give a model or the folder of a run")
    document = read_plan(folder / PLAN, RobustnessSettings.SCHEMA)
    wanted = Plan((), samples, settings, ()).to_json()
    other = difference(_decisive(document), _decisive(wanted))
    if other is not None:
        raise InputError(
            f"--baseline {str(folder)!r} cannot be compared: {other}; give the same options, or the baseline's model"
        )
    with read_ledger(folder) as ledger:
        units = list(ledger.units())
    rows = {unit.sample: row_of(unit) for unit in units}
    left = sum(row.status == "pending" for row in rows.values())
    if left or len(rows) < len(samples.index):
        raise InputError(
            f"--baseline {str(folder)!r} is not finished: {left:,} samples are pending; go on with it by "
            f"onnxsub robustness --run {folder}"
        )
    failures: dict[str, int] = {}
    for row in rows.values():
        if row.status == "failed" and row.reason:
            failures[row.reason] = failures.get(row.reason, 0) + 1
    (entry,) = document["model"]
    return Measured(entry["name"], entry["path"], entry["sha256"], folder, rows, 0, failures)


def points_of(run: Measured, chosen: frozenset[int]) -> dict[int, Array]:
    """Sample -> its counterexample (float32, flat), of the chosen samples that have one."""
    found: dict[int, Array] = {}
    with read_ledger(run.folder) as ledger:
        for unit in list(ledger.units()):
            if unit.sample in chosen and unit.state == "done":
                _, point = ledger.result(unit.id)
                if point is not None:
                    found[unit.sample] = point
    return found


def _decisive(document: Mapping[str, Any]) -> dict[str, Any]:
    settings = {k: v for k, v in document["settings"].items() if k not in _HARMLESS}
    return {"data": document["data"], "settings": settings}


def _key(plan: Plan[RobustnessSettings]) -> str:
    """A name of the run's folder that two different runs do not share."""
    document = plan.to_json()
    (entry,) = plan.models
    decides = {
        "model": entry.sha256, "settings": document["settings"], "version": document["version"],
        "data": {k: v for k, v in document["data"].items() if k != "source"},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return f"{entry.sha256[:12]}-{digest[:12]}"


def make_cache(cache: Path) -> Path:
    """The cache, which no version control is to keep."""
    make_folder(cache, "choose another --cache")
    if not (cache / ".gitignore").exists():
        write_atomic(cache / ".gitignore", b"*\n")
    return cache
