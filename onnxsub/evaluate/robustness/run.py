"""`onnxsub robustness`: one metric of one property over a data set, in a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxsub.evaluate.drive import Report, RunOptions, drive, reopen
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.job import RobustnessJob
from onnxsub.evaluate.robustness.measure import Measure, measure
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.stopping import used_rows
from onnxsub.evaluate.robustness.tally import Tally, tally

__all__ = ["open_robustness", "robustness", "sum_up"]

_UNSAID: Mapping[str, Any] = MappingProxyType({"intervals": [], "of_these_samples": None, "reached": False})
"""What an unfinished run says in place of the intervals among the further figures of a measure."""


def open_robustness(folder: Path, *, allow_commands: bool = False) -> Plan[RobustnessSettings]:
    """The plan of a run folder, from the files that its `run.toml` names.

    Raises:
        InputError: no run folder, another version or another command's, a file that is gone or has changed.
    """
    return reopen(folder, RobustnessSettings.SCHEMA, RobustnessSettings.from_json, allow_commands=allow_commands)


def sum_up(rows: Sequence[SampleRow], settings: RobustnessSettings) -> tuple[int, Tally, Measure]:
    """Rows used, counts and measure of the rows of a run, finished or not.

    What an unfinished run has seen is no random part of the data (what is easy ends first), so it guarantees nothing.
    """
    used = used_rows(rows, settings)
    counts = tally(rows[:used], settings)
    found = measure(rows[:used], counts, settings)
    if counts.pending:
        why = f"Nothing yet: {len(counts.pending):,} samples have not been looked at, and what was seen first may be what is easy."
        unsaid = {k: v for k, v in _UNSAID.items() if k in found.more}
        found = replace(found, interval=None, guarantee=why, more={**found.more, **unsaid})
    return used, counts, found


def robustness(
    plan: Plan[RobustnessSettings],
    folder: Path,
    options: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> RobustnessResult:
    """Begins the run of a folder, or goes on with it, until every sample is settled or the wanted error is reached.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of samples that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit the model.
        MissingDependencyError: Ray or a verifier is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    run = drive(RobustnessJob(plan), folder, options or RunOptions(), engine=engine, progress=progress)
    used, counts, found = sum_up(run.summary, plan.settings)
    finished = run.enough or run.counts["pending"] == run.counts["running"] == 0
    return RobustnessResult(
        folder, plan.to_json(), run.summary, used, counts, found, run.counts, finished, run.interrupted, run.failures, run.done_now,
        run.wall_s, run.busy_s,
    )  # fmt: skip
