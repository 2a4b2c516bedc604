"""The run: a folder, its units, an engine that does them, until all are settled."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.lock import end_family, lock
from onnxsub.evaluate.pace import Pace
from onnxsub.evaluate.parquet import check_parquet, write_parquet
from onnxsub.evaluate.plan import Plan, difference, plan_again, read_plan, write_plan
from onnxsub.evaluate.processes import Processes
from onnxsub.evaluate.row import rows_of
from onnxsub.evaluate.samples import anchor_of
from onnxsub.evaluate.summary import Line, summarise
from onnxsub.evaluate.task import Attacked, Outcome, Task
from onnxsub.results import VERSION

__all__ = ["LEDGER", "PLAN", "RESULTS", "EvaluateResult", "RunOptions", "evaluate", "open_run"]

PLAN = "run.toml"
LEDGER = "ledger.sqlite"
RESULTS = "results.parquet"

DEATHS = 3
"""A unit whose worker was lost so often is failed."""

_GRACE = 60.0  # a unit without a limit of its own is killed after twice the time limit and so many seconds

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class RunOptions:
    """How a run is done; nothing here changes its results.

    Attributes:
        jobs: units side by side.
        engine: `processes` of this machine, or `ray`. address: of the Ray cluster, None: a local one.
        kill_after: seconds after which a unit is killed; None: twice its time limit and a minute, or never without a time limit.
        retry_failed: do units again that had failed.
    """

    jobs: int = 1
    engine: str = "processes"
    address: str | None = None
    kill_after: float | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs} is not possible; give 1 or more")
        if self.engine not in ("processes", "ray"):
            raise InputError(f"--engine {self.engine!r} is unknown; choose processes or ray")
        if self.address is not None and self.engine != "ray":
            raise InputError("--address names a Ray cluster; add --engine ray")
        if self.kill_after is not None and not self.kill_after > 0:
            raise InputError(f"--kill-after {self.kill_after:g} is not a positive number; give one")


@dataclass(frozen=True, eq=False)
class EvaluateResult:
    """What a run came to.

    Attributes:
        folder: of the run. counts: units by state. lines: the summary. interrupted: ended by Ctrl-C.
        wall_s: of this call. busy_s: of it, seconds of attack, pruning and verification, all workers together.
    """

    folder: Path
    plan: Mapping[str, Any]
    counts: Mapping[str, int]
    lines: tuple[Line, ...]
    failures: Mapping[str, int]
    interrupted: bool
    done_now: int
    wall_s: float
    busy_s: float
    jobs: int

    @property
    def finished(self) -> bool:
        """Whether every unit is done or failed."""
        return self.counts["pending"] == self.counts["running"] == 0

    @property
    def overhead(self) -> float | None:
        """Share of the workers' wall time that is neither attack, nor pruning, nor verification; None where nothing was done."""
        return 1.0 - self.busy_s / (self.jobs * self.wall_s) if self.done_now else None

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.evaluate/1`."""
        return {
            "schema": "onnxsub.evaluate/1",
            "version": VERSION,
            "run": str(self.folder),
            "models": self.plan["model"],
            "data": self.plan["data"],
            "settings": self.plan["settings"],
            "units": dict(self.counts),
            "finished": self.finished,
            "interrupted": self.interrupted,
            "failures": dict(self.failures),
            "table": [line.to_json() for line in self.lines],
            "results": str(self.folder / RESULTS),
            "done_now": self.done_now,
            "time_s": {"total": self.wall_s, "busy": self.busy_s, "overhead": self.overhead},
        }


def open_run(folder: Path) -> Plan:
    """The plan of a run folder, from the files that its `run.toml` names.

    Raises:
        InputError: no run folder, another version, a file that is gone or has changed.
    """
    if not (folder / PLAN).is_file():
        raise InputError(f"{str(folder)!r} is no run folder: it has no {PLAN}; name models and --data to begin one")
    recorded = read_plan(folder / PLAN)
    plan = plan_again(recorded)
    changed = difference(recorded, plan.to_json())
    if changed is not None:
        raise InputError(f"{str(folder)!r} cannot go on: {changed}; restore the file or choose another --run")
    return plan


def evaluate(
    plan: Plan,
    folder: Path,
    options: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> EvaluateResult:
    """Begins the run of a folder, or goes on with it, until every unit is done or failed; then writes `results.parquet`.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of units that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit a model.
        MissingDependencyError: pyarrow, Ray or a verifier is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    options = options or RunOptions()
    start = time.perf_counter()
    check_parquet()
    anchors = _Anchors(plan)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {str(folder)!r}: {error.strerror or error}; choose another --run") from error
    with lock(folder / "lock.sqlite"):
        _same_run(plan, folder)
        with Ledger(folder / LEDGER) as ledger:
            end_family(ledger.run_id)
            if not any(ledger.counts().values()):
                ledger.add(units_of(plan))
            ledger.recover(retry_failed=options.retry_failed)
            pace = Pace(ledger.units(), options.jobs, progress)
            interrupted = False
            if pace.left:
                engine = engine or _engine(options, ledger.run_id, plan)
                try:
                    with closing(engine):
                        _loop(plan, ledger, engine, options, anchors, pace)
                except KeyboardInterrupt:
                    interrupted = True
                ledger.recover()
            write_parquet(rows_of(ledger), folder / RESULTS)
            counts = ledger.counts()
            lines = tuple(summarise(rows_of(ledger)))
            failures = _failures(ledger)
    wall = time.perf_counter() - start
    return EvaluateResult(
        folder, plan.to_json(), counts, lines, failures, interrupted, pace.done_now, wall, pace.busy_s, options.jobs
    )


def units_of(plan: Plan) -> Iterator[tuple[str, int, str, str, float, str]]:
    """The units as the ledger takes them, all of a sample behind its attack."""
    s = plan.settings
    for model in plan.models:
        for index in plan.samples.index:
            yield model.name, index, "attack", "", -1.0, ""
            for verifier in s.verifiers:
                yield model.name, index, "original", "", -1.0, verifier
                for method in s.methods:
                    for gamma in s.gammas:
                        yield model.name, index, "substitute", method, gamma, verifier


@dataclass
class _Anchors:
    """Anchors and labels of a plan, checked against its models."""

    plan: Plan
    _rows: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples, settings = self.plan.samples, self.plan.settings
        self._rows = {index: row for row, index in enumerate(samples.index)}
        for number, (entry, model) in enumerate(zip(self.plan.models, self.plan.loaded, strict=True)):
            what = f"model {entry.name!r} and data {Path(samples.source).name!r} do not belong together: a sample"
            # the values are looked at once; another model may want another shape
            for index, row in zip(samples.index, samples.x if number == 0 else samples.x[:1], strict=False):
                settings.space.check(anchor_of(row, model.input_shape, settings.domain, what), f"sample {index}")
            classes = max(model.outputs, 2)
            if samples.y is not None and not ((samples.y >= 0) & (samples.y < classes)).all():
                wrong = int(samples.y[(samples.y < 0) | (samples.y >= classes)][0])
                raise InputError(
                    f"model {entry.name!r} and data {Path(samples.source).name!r} do not belong together: label {wrong}, "
                    f"but the model has {classes} classes; check --labels"
                )

    def task(self, unit: Unit, ledger: Ledger, threads: int) -> Task:
        """The unit as a worker takes it."""
        plan = self.plan
        number = next(i for i, entry in enumerate(plan.models) if entry.name == unit.model)
        model = plan.loaded[number]
        row = self._rows[unit.sample]
        x = anchor_of(plan.samples.x[row], model.input_shape, plan.settings.domain, f"sample {unit.sample}")
        label = None if plan.samples.y is None else int(plan.samples.y[row])
        attacked = None
        if unit.needs is not None:
            result, point = ledger.result(unit.needs)
            if point is not None:
                attacked = Attacked(
                    result["d_adv"], point.reshape(model.input_shape), result["adversarial_label"], result["margin"]
                )
        return Task(
            unit.id, unit.kind, plan.models[number].path, model.sha256, x, label, unit.method, unit.gamma, unit.verifier,
            plan.settings, threads, attacked,
        )  # fmt: skip


def _same_run(plan: Plan, folder: Path) -> None:
    """Writes `run.toml`, or finds that the folder's is of the same run."""
    if not (folder / PLAN).exists():
        if (folder / LEDGER).exists():
            raise InputError(f"{str(folder)!r} has a ledger but no {PLAN}; restore it or choose another --run")
        write_plan(plan, folder / PLAN)
        return
    other = difference(read_plan(folder / PLAN), plan.to_json())
    if other is not None:
        raise InputError(f"{str(folder)!r} holds another run: {other}; choose another --run, or give the same options")


def _engine(options: RunOptions, run_id: str, plan: Plan) -> Engine:
    if options.engine == "processes":
        return Processes(options.jobs, run_id)
    from onnxsub.evaluate.ray_cluster import RayCluster

    return RayCluster(options.jobs, plan, options.address)


def _loop(plan: Plan, ledger: Ledger, engine: Engine, options: RunOptions, anchors: _Anchors, pace: Pace) -> None:
    limit = options.kill_after
    if limit is None and plan.settings.timeout is not None and plan.settings.protocol != "paper":
        limit = 2 * plan.settings.timeout + _GRACE
    under_way: dict[int, Unit] = {}
    while True:
        while len(under_way) < engine.jobs and (unit := ledger.take()) is not None:
            # memory is the usual reason for a lost worker, and threads cost some
            threads = max(1, plan.settings.threads >> unit.deaths)
            under_way[unit.id] = unit
            engine.submit(anchors.task(unit, ledger, threads), limit)
        if not under_way:
            return
        for outcome in engine.wait(1.0):
            pace.note(_book(ledger, under_way.pop(outcome.id), outcome), outcome)
        pace.tell()


def _book(ledger: Ledger, unit: Unit, outcome: Outcome) -> list[Unit]:
    """Writes an outcome to the ledger; returns the units that are settled by it."""
    if outcome.state == "died":
        if unit.deaths + 1 < DEATHS:
            ledger.put_back(unit.id, outcome.reason or "")
            return []
        outcome = replace(outcome, state="failed", reason=f"{outcome.reason}; {DEATHS} times")
    followers: dict[str, dict[str, Any]] = {}
    if unit.kind == "attack" and outcome.state == "done":
        if outcome.result["status"] == "misclassified":
            nothing = {"status": "misclassified", "lower": 0.0, "upper": 0.0}
            followers = {"original": nothing, "substitute": nothing}
        elif outcome.result["status"] == "none-found":
            followers = {"substitute": {"status": "none"}}  # no radius to prune for
    return ledger.finish(outcome, followers)


def _failures(ledger: Ledger) -> dict[str, int]:
    """Reasons of failed units, and how often each."""
    found: dict[str, int] = {}
    for unit in ledger.units():
        if unit.state == "failed" and unit.reason:
            found[unit.reason] = found.get(unit.reason, 0) + 1
    return found
