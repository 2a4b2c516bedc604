"""The run folder: begun or gone on with, its units done by an engine until all are settled or enough are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.anchored import Anchors
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.job import Job
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.lock import end_family, lock
from onnxsub.evaluate.loop import do_units, enough
from onnxsub.evaluate.pace import Pace
from onnxsub.evaluate.plan import Plan, RunSettings, difference, plan_with, read_plan, write_plan
from onnxsub.evaluate.processes import Processes
from onnxsub.evaluate.tables import RESULTS, SAMPLES
from onnxsub.files import make_folder, one_line

__all__ = ["GRACE", "LEDGER", "PLAN", "Driven", "Report", "RunOptions", "drive", "reopen"]

PLAN = "run.toml"
LEDGER = "ledger.sqlite"

GRACE = 60.0
"""A unit without a limit of its own is killed after twice the time limit and so many seconds."""

Report = Callable[[float, str], None]

S = TypeVar("S", bound=RunSettings)
Summary = TypeVar("Summary")


@dataclass(frozen=True)
class RunOptions:
    """How a run is done; nothing here changes its results.

    Attributes:
        jobs: units side by side.
        engine: `processes` of this machine, or `ray`. address: of the Ray cluster, None: a local one.
        kill_after: seconds after which a unit is killed; None: twice its time limit and a minute, or never without a time limit.
        retry_failed: do units again that had failed, or that are not as they were written.
        allow_commands: a folder that is gone on with by its name alone may name programs (`command:...`) that are started.
    """

    jobs: int = 1
    engine: str = "processes"
    address: str | None = None
    kill_after: float | None = None
    retry_failed: bool = False
    allow_commands: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise OptionError(f"--jobs {self.jobs} is not possible; give 1 or more")
        if self.engine not in ("processes", "ray"):
            raise OptionError(f"--engine {self.engine!r} is unknown; choose processes or ray")
        if self.address is not None and self.engine != "ray":
            raise OptionError("--address names a Ray cluster; add --engine ray")
        if self.kill_after is not None and not self.kill_after > 0:
            raise OptionError(f"--kill-after {self.kill_after:g} is not a positive number; give one")


@dataclass(frozen=True, eq=False)
class Driven(Generic[Summary]):
    """How a run ended.

    Attributes:
        summary: of the job. counts: units by state. failures: reason -> how often. interrupted: ended by Ctrl-C.
        enough: ended because the units that are settled suffice.
        done_now: units of this call. wall_s: of this call. busy_s: of it, seconds that the units' own stages took, all together.
    """

    summary: Summary
    counts: Mapping[str, int]
    failures: Mapping[str, int]
    interrupted: bool
    enough: bool
    done_now: int
    wall_s: float
    busy_s: float


def reopen(
    folder: Path, schema: str, settings: Callable[[Mapping[str, Any]], S], *, allow_commands: bool = False
) -> Plan[S]:
    """The plan of a run folder, from the files that its `run.toml` names.

    Args:
        allow_commands: the folder may name programs that are started. Only its user can know whose word that is.

    Raises:
        InputError: no run folder, another version or another command's, a file that is gone or has changed, a program that is
            named by nobody but the folder.
    """
    if not (folder / PLAN).is_file():
        raise InputError(f"{str(folder)!r} is no run folder: it has no {PLAN}; name models and --data to begin one")
    recorded = read_plan(folder / PLAN, schema)
    _refuse_programs(recorded, folder, allowed=allow_commands)
    plan = plan_with(recorded, settings)
    changed = difference(recorded, plan.to_json())
    if changed is not None:
        raise InputError(f"{str(folder)!r} cannot go on: {changed}; restore the file or choose another --run")
    return plan


def drive(
    job: Job[Summary],
    folder: Path,
    options: RunOptions,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> Driven[Summary]:
    """Begins the run of a folder, or goes on with it, until every unit is done or failed, or enough are; then concludes the job.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of units that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit a model,
            what every unit would fail on.
        MissingDependencyError: Ray, a solver, a verifier or its program is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    start = time.perf_counter()
    anchors = Anchors(job)
    begun, here = (folder / PLAN).exists(), options.address is None
    if not begun:
        job.check(here=here)  # before the folder is made
    make_folder(folder, "choose another --run")
    _refuse_links(folder)
    _refuse_others(folder)
    with lock(folder / "lock.sqlite"):
        checksum = _same_run(job.plan, folder)
        with Ledger(folder / LEDGER, kinds=job.kinds) as ledger:
            ledger.seals.bind(checksum, lambda: _written(job.plan, folder))
            mark = _mark(ledger.run_id, folder / LEDGER)
            end_family(mark)
            if ledger.empty:
                _refuse_lost(folder)
                groups = ledger.add(job.units())
            else:
                groups = ledger.seals.take_over(job.units(), redo=options.retry_failed)
                ledger.recover(retry_failed=options.retry_failed)
                groups = ledger.groups() if options.retry_failed else groups
            pace = Pace(groups, options.jobs, progress)
            watch = job.watch(ledger.units())
            interrupted = False
            if pace.left and not enough(watch):
                if begun:
                    job.check(here=here)
                engine = engine or _engine(options, mark, job.plan)
                try:
                    with closing(engine):
                        limit = job.limit if options.kill_after is None else options.kill_after
                        do_units(job, ledger, engine, limit, anchors, pace, watch)
                except KeyboardInterrupt:
                    interrupted = True
                ledger.recover()
            summary = job.conclude(ledger, folder)
            counts = ledger.counts()
            failures = ledger.failures()
    wall = time.perf_counter() - start
    return Driven(summary, counts, failures, interrupted, enough(watch), pace.done_now, wall, pace.busy_s)


def _refuse_programs(recorded: Mapping[str, Any], folder: Path, *, allowed: bool) -> None:
    """Raises InputError where a plan names a program: a folder that was received is data, and starts nothing."""
    given = recorded.get("settings")
    found = [given.get(key) for key in ("verifier", "verifiers")] if isinstance(given, Mapping) else []
    names = [name for value in found for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    programs = [name for name in names if ":" in name]
    if programs and not allowed:
        raise InputError(
            f"{str(folder / PLAN)!r} names a program to start, {one_line(programs[0], 80)!r}; if that is yours, add "
            "--allow-commands, or begin the run by its whole command"
        )


def _refuse_links(folder: Path) -> None:
    """Raises InputError where something in the folder is a link: what is written there would change a file elsewhere."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise InputError(f"{str(path)!r} is a symbolic link; put the file itself there, or choose another --run")
        if not (path.is_file() or path.is_dir()):
            raise InputError(f"{str(path)!r} is a pipe or a device; put a file there, or choose another --run")


def _refuse_others(folder: Path) -> None:
    """Raises InputError where a folder that is no run's has a file under a name that a run writes."""
    name = _table_in(folder)
    if name is not None and not (folder / PLAN).exists():
        raise InputError(f"{str(folder)!r} is no run folder, and a run would overwrite its {name}; choose another --run")


def _refuse_lost(folder: Path) -> None:
    """Raises InputError where a run has results and its ledger holds nothing of them."""
    name = _table_in(folder)
    if name is not None:
        raise InputError(f"{str(folder)!r} has {name}, but its {LEDGER} is gone or empty; restore it or choose another --run")


def _table_in(folder: Path) -> str | None:
    """The name of a table of results that is there."""
    return next((name for name in (SAMPLES, RESULTS) if (folder / name).exists()), None)


def _mark(run_id: str, path: Path) -> str:
    """What the processes of this folder are known by: a copy has the same ledger in another file, and processes of its own."""
    status = path.stat()
    return f"{run_id}-{status.st_dev:x}-{status.st_ino:x}-"


def _same_run(plan: Plan[S], folder: Path) -> str | None:
    """Writes `run.toml`, or finds that the folder's is of the same run; returns its checksum, if it has one."""
    if not (folder / PLAN).exists():
        if (folder / LEDGER).exists():
            raise InputError(f"{str(folder)!r} has a ledger but no {PLAN}; restore it or choose another --run")
        return _written(plan, folder)
    recorded = read_plan(folder / PLAN, plan.settings.SCHEMA)
    other = difference(recorded, plan.to_json())
    if other is not None:
        raise InputError(f"{str(folder)!r} holds another run: {other}; choose another --run, or give the same options")
    return recorded.get("checksum")


def _written(plan: Plan[S], folder: Path) -> str:
    write_plan(plan, folder / PLAN)
    return str(read_plan(folder / PLAN, plan.settings.SCHEMA)["checksum"])


def _engine(options: RunOptions, run_id: str, plan: Plan[S]) -> Engine:
    match options.engine:
        case "processes":
            return Processes(options.jobs, run_id)
        case "ray":
            from onnxsub.evaluate.ray_cluster import RayCluster

            return RayCluster(options.jobs, plan, options.address)
        case other:
            raise ValueError(f"unknown engine {other!r}; choose processes or ray")
