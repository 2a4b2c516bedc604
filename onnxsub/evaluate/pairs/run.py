"""The pairs of one or two models in a run folder: begun or gone on with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxsub.evaluate.able import probe
from onnxsub.evaluate.drive import GRACE, Driven, Report, RunOptions, drive
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.job import Plain
from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.samples import Samples, anchor_of
from onnxsub.evaluate.tables import write_results
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor, Pair
from onnxsub.metrics.adversarial_pairs import Found, Pairs
from onnxsub.model import load_model
from onnxsub.query import Query, make_query
from onnxsub.verifiers.installed import check_engines

__all__ = ["PairJob", "anchors_for", "run_pairs"]


def run_pairs(
    models: tuple[str, ...],
    samples: Samples,
    options: AdversarialOptions,
    folder: Path,
    run: RunOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Report | None = None,
) -> Driven[tuple[Pairs, ...]]:
    """Solves every pair (sample, target) of each model, and writes the result tables; `summary` holds what is known of each model.

    Args:
        models: paths; one that is given twice is worked on once.
        engine: in place of the one that the options name.
        progress: told the share of pairs that are settled, and rate and remaining time in words.

    Raises:
        InputError: the folder belongs to another run or another process, samples or targets that do not fit a model.
        MissingDependencyError: Ray or a solver is not installed.
        OutputError: the disk is full. What is done is kept.
    """
    once = {os.path.realpath(path): path for path in reversed(models)}
    files = list(dict.fromkeys(map(os.path.realpath, models)))
    plan = Plan.of(tuple(once[file] for file in files), samples, PairSettings.of(options))
    done = drive(PairJob(plan), folder, run or RunOptions(), engine=engine, progress=progress)
    known = [replace(pairs, interrupted=done.interrupted) for pairs in done.summary]
    return replace(done, summary=tuple(known[files.index(os.path.realpath(path))] for path in models))


def anchors_for(path: str, samples: Samples, options: AdversarialOptions) -> list[Anchor]:
    """The samples as the model at `path` takes them. Raises InputError."""
    shape, domain = load_model(path).input_shape, options.space.interval
    labels = [None] * len(samples.index) if samples.y is None else samples.y.tolist()
    rows = zip(samples.index, samples.x, labels, strict=True)
    return [Anchor(i, anchor_of(x, shape, domain, f"{path!r}: sample {i}"), y) for i, x, y in rows]


@dataclass(frozen=True)
class _Census:
    """What the samples are to a model: their labels, those that it misclassifies, the targets of the others."""

    labels: dict[int, int]
    misclassified: tuple[int, ...]
    targets: dict[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class PairJob(Plain):
    """One unit per model, sample that it classifies rightly, and target class."""

    plan: Plan[PairSettings]
    kinds: tuple[str, ...] = ("pair",)

    @property
    def limit(self) -> float | None:
        timeout = self.plan.settings.timeout
        return None if timeout is None else 2 * timeout + GRACE

    @cached_property
    def census(self) -> Mapping[str, _Census]:
        """Per model; it costs one inference per sample, and is the same every time."""
        found = {}
        options = self.plan.settings.options
        for number, entry in enumerate(self.plan.models):
            labels, wrong, targets = {}, [], {}
            for row, index in enumerate(self.plan.samples.index):
                query = self._query(number, row)
                labels[index] = query.label
                chosen = options.targets.of(query)
                if query.misclassified:
                    wrong.append(index)
                else:
                    targets[index] = chosen
            found[entry.name] = _Census(labels, tuple(wrong), targets)
        return found

    def _query(self, model: int, row: int) -> Query:
        s, samples = self.plan.settings, self.plan.samples
        loaded = self.plan.loaded[model]
        x = anchor_of(samples.x[row], loaded.input_shape, s.domain, f"sample {samples.index[row]}")
        return make_query(loaded, x, self.label(row), space=s.space, threads=s.threads)

    def check(self, *, here: bool) -> None:
        s = self.plan.settings
        for model in self.plan.loaded:
            probe(model, s.space)
        check_engines((s.verifier,), s.solver, here=here)
        _ = self.census  # targets that are no classes of a model

    def units(self) -> Iterator[UnitKey]:
        for entry in self.plan.models:
            for index, targets in self.census[entry.name].targets.items():
                for target in targets:
                    yield entry.name, index, "pair", str(target), -1.0, ""

    def label(self, row: int) -> int | None:
        y = self.plan.samples.y
        return None if y is None else int(y[row])

    def conclude(self, ledger: Ledger, folder: Path) -> tuple[Pairs, ...]:
        done: dict[str, list[tuple[Unit, Pair]]] = {entry.name: [] for entry in self.plan.models}
        for unit in ledger.units():
            if unit.state == "done" and unit.result is not None:
                # the ledger writes what is infinite as nothing
                lower = -math.inf if unit.result["lower"] is None else unit.result["lower"]
                done[unit.model].append((unit, Pair.of(unit.model, unit.sample, {**unit.result, "lower": lower})))
        write_results((p for found in done.values() for _, p in found), folder, Pair)
        known = []
        for entry, model in zip(self.plan.models, self.plan.loaded, strict=True):
            census = self.census[entry.name]
            found = tuple(Found(p, _point(ledger, unit, model.input_shape)) for unit, p in done[entry.name])
            planned = sum(map(len, census.targets.values()))
            classes, wrong, labels = max(model.outputs, 2), census.misclassified, census.labels
            known.append(Pairs(entry.name, entry.path, entry.sha256, classes, found, planned, wrong, labels, interrupted=False))
        return tuple(known)


def _point(ledger: Ledger, unit: Unit, shape: tuple[int, ...]) -> Any:
    _, x = ledger.result(unit.id)
    assert x is not None
    return x.reshape(shape)
