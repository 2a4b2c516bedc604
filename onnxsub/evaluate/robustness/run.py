"""`onnxsub robustness`: one figure or a grid of them over a data set, in a run folder."""

from __future__ import annotations

from pathlib import Path

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN, Report, RunOptions, drive, reopen
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.robustness.grid import GridPlan, kind_in
from onnxsub.evaluate.robustness.job import RobustnessJob
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["open_robustness", "robustness"]


def open_robustness(folder: Path, *, allow_commands: bool = False) -> GridPlan:
    """The plan of a run folder, from the files that its `run.toml` names.

    Raises:
        InputError: no run folder, another version or another command's, a file that is gone or has changed.
    """
    if (folder / PLAN).is_file() and kind_in(folder / PLAN) is ManySettings:
        return reopen(folder, ManySettings.SCHEMA, ManySettings.from_json, allow_commands=allow_commands)
    return reopen(folder, RobustnessSettings.SCHEMA, RobustnessSettings.from_json, allow_commands=allow_commands)


def robustness(
    plan: GridPlan,
    folder: Path,
    options: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> RobustnessResult:
    """Begins the run of a folder, or goes on with it, until every unit is settled or the wanted error is reached.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of units that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit a model.
        MissingDependencyError: Ray or a verifier is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    if plan.settings.alone and len(plan.models) != 1:
        raise InputError(f"settings of one place are about one model, and the plan has {len(plan.models)}; make a grid of them")
    run = drive(RobustnessJob(plan), folder, options or RunOptions(), engine=engine, progress=progress)
    finished = run.enough or run.counts["pending"] == run.counts["running"] == 0
    return RobustnessResult(
        folder, plan.to_json(), run.summary, run.counts, finished, run.interrupted, run.failures, run.done_now, run.wall_s,
        run.busy_s,
    )  # fmt: skip
