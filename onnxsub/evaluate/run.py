"""`onnxsub evaluate`: the distances of networks and of their substitutes, sample by sample, in a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.evaluate.able import probe
from onnxsub.evaluate.by_sample import SampleDistances, by_sample
from onnxsub.evaluate.drive import GRACE, LEDGER, PLAN, Report, RunOptions, drive, reopen
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.job import Plain
from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.loop import DEATHS
from onnxsub.evaluate.paper import precision_of
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.reference import keep_reference, kept_reference
from onnxsub.evaluate.row import Row, rows_of
from onnxsub.evaluate.settings import Settings, is_paper
from onnxsub.evaluate.spread import DistanceSpread, spreads
from onnxsub.evaluate.summary import Line, summarise
from onnxsub.evaluate.tables import results_of, write_results
from onnxsub.evaluate.task import KINDS, Attacked, Outcome
from onnxsub.passes.substitute import check_method
from onnxsub.results import VERSION
from onnxsub.shown import Shown
from onnxsub.verifiers.installed import check_engines

__all__ = ["DEATHS", "LEDGER", "PLAN", "EvaluateResult", "RunOptions", "evaluate", "open_run", "units_of"]


@dataclass(frozen=True, eq=False, repr=False)
class EvaluateResult(Shown):
    """What a run came to.

    Attributes:
        folder: of the run. counts: units by state. interrupted: ended by Ctrl-C.
        lines: per network, method, gamma and verifier. samples: the distances of each. spread: mean, median and quantiles of those.
        wall_s: of this call. busy_s: of it, seconds of attack, pruning and verification, all workers together.
    """

    folder: Path
    plan: Mapping[str, Any]
    counts: Mapping[str, int]
    lines: tuple[Line, ...]
    samples: tuple[SampleDistances, ...]
    spread: tuple[DistanceSpread, ...]
    failures: Mapping[str, int]
    interrupted: bool
    done_now: int
    wall_s: float
    busy_s: float
    jobs: int

    @property
    def line(self) -> str:
        counts = ", ".join(f"{n:,} {state}" for state, n in self.counts.items() if n)
        return f"{str(self.folder)!r}: {counts} units, {len(self.lines)} lines in the table"

    @property
    def finished(self) -> bool:
        """Whether every unit is done or failed."""
        return self.counts["pending"] == self.counts["running"] == 0

    @property
    def overhead(self) -> float | None:
        """Share of the workers' wall time that is neither attack, nor pruning, nor verification; None where nothing was done."""
        return 1.0 - self.busy_s / (self.jobs * self.wall_s) if self.done_now else None

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.evaluate/2`."""
        table, parquet = results_of(self.folder)
        return {
            "schema": "onnxsub.evaluate/2",
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
            "distances": [line.to_json() for line in self.spread],
            "samples": [sample.to_json() for sample in self.samples],
            "results": None if parquet is None else str(parquet),
            "samples_csv": str(table),
            "done_now": self.done_now,
            "time_s": {"total": self.wall_s, "busy": self.busy_s, "overhead": self.overhead},
        }


def open_run(folder: Path, *, allow_commands: bool = False) -> Plan[Settings]:
    """The plan of a run folder, from the files that its `run.toml` names.

    Raises:
        InputError: no run folder, another version, a file that is gone or has changed.
    """
    return reopen(folder, Settings.SCHEMA, Settings.from_json, allow_commands=allow_commands)


def evaluate(
    plan: Plan[Settings],
    folder: Path,
    options: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
    reference: str | None = None,
) -> EvaluateResult:
    """Begins the run of a folder, or goes on with it, until every unit is done or failed; then writes the result tables.

    Args:
        engine: in place of the one that the options name.
        progress: told the share of units that are settled, and rate and remaining time in words.
        reference: CSV file of values to stand beside the distances; the folder keeps them. See `onnxsub.evaluate.reference`.

    Raises:
        InputError: the folder belongs to another run or another process, samples that do not fit a model, a reference that is not
            understood.
        MissingDependencyError: Ray or a verifier is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    options = options or RunOptions()
    document = plan.to_json()
    values = kept_reference(folder, document, reference)
    run = drive(_Distances(plan), folder, options, engine=engine, progress=progress)
    if reference is not None:
        keep_reference(values, folder)
    lines, samples = tuple(summarise(run.summary)), tuple(by_sample(run.summary, values))
    return EvaluateResult(
        folder, document, run.counts, lines, samples, tuple(spreads(samples)), run.failures, run.interrupted, run.done_now,
        run.wall_s, run.busy_s, options.jobs,
    )  # fmt: skip


def units_of(plan: Plan[Settings]) -> Iterator[UnitKey]:
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


@dataclass(frozen=True, eq=False)
class _Distances(Plain):
    """The job of `onnxsub evaluate`."""

    plan: Plan[Settings]
    kinds: tuple[str, ...] = KINDS

    @property
    def limit(self) -> float | None:
        settings = self.plan.settings
        if settings.timeout is None or is_paper(settings.protocol):
            return None
        return 2 * settings.timeout + GRACE

    def check(self, *, here: bool) -> None:
        s = self.plan.settings
        for model in self.plan.loaded:
            network = probe(model, s.space).network
            for method in s.methods:
                check_method(network, method)
            if is_paper(s.protocol):
                precision_of(s, model.input_shape)
        check_engines(s.verifiers, s.solver, here=here)

    def units(self) -> Iterator[UnitKey]:
        return units_of(self.plan)

    def label(self, row: int) -> int | None:
        y = self.plan.samples.y
        return None if y is None else int(y[row])

    def attacked(self, unit: Unit, ledger: Ledger, shape: tuple[int, ...]) -> Attacked | None:
        if unit.needs is None:
            return None
        result, point = ledger.result(unit.needs)
        if point is None:
            return None
        return Attacked(result["d_adv"], point.reshape(shape), result["adversarial_label"], result["margin"])

    def followers(self, unit: Unit, outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
        if unit.kind == "attack" and outcome.state == "done":
            if outcome.result["status"] == "misclassified":
                nothing = {"status": "misclassified", "lower": 0.0, "upper": 0.0}
                return {"original": nothing, "substitute": nothing}
            if outcome.result["status"] == "none-found":
                return {"substitute": {"status": "none"}}  # no radius to prune for
        return {}

    def conclude(self, ledger: Ledger, folder: Path) -> tuple[Row, ...]:
        write_results(rows_of(ledger), folder, Row)
        return tuple(rows_of(ledger))
