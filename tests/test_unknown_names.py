"""A name that nothing answers to raises; it never runs another method under its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxsub.evaluate.distances import find_attack
from onnxsub.evaluate.drive import RunOptions, _engine
from onnxsub.evaluate.robustness.job import RobustnessJob
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.words import proof_words
from onnxsub.evaluate.robustness.work import locate
from onnxsub.evaluate.row import rows_of
from onnxsub.evaluate.settings import Settings, is_paper
from onnxsub.evaluate.task import Task
from onnxsub.metrics.adversarial import Targets
from onnxsub.metrics.globally import estimate_share
from onnxsub.metrics.local import LocalOptions, StandardRobustness, make_property
from onnxsub.metrics.local.search import search
from onnxsub.metrics.margin import MarginOptions, smallest_margin
from onnxsub.metrics.tables import count_by
from onnxsub.model import load_model
from onnxsub.ops.relaxation import check_mode
from onnxsub.properties import Property, vnncomp_word, witness_text, write_property
from onnxsub.properties.write import number
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.report.table import distances
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.datasets import load_dataset
from onnxsub.zoo.train import pick_device
from tests.random_models import random_model


def set_on(frozen: Any, **values: Any) -> Any:
    """A copy with values that its own check would refuse: what a name would do that someone added to that check alone."""
    changed = replace(frozen)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


@pytest.fixture(scope="module")
def query() -> Query:
    model = load_model(random_model(1, kind="dense", classes=3))
    return make_query(model, np.full(model.input_shape, 0.5))


DISTANCE = RobustnessSettings("pointwise", 0.1)
PLAIN: dict[str, Callable[[], object]] = {
    "mode": lambda: check_mode("crwon"),
    "targets": lambda: Targets("runnerup"),
    "misclassified": lambda: estimate_share(["proved"], 0.95, misclassified="exclude"),
    "property": lambda: make_property("ssr", 0.1, delta=1.0),
    "norm": lambda: StandardRobustness(0.1, 1.0, "3"),
    "verifier of a property": lambda: LocalOptions("bb"),
    "verifier of a margin": lambda: MarginOptions(verifier="marabou"),
    "count_by": lambda: count_by([], "verdict"),
    "layout": lambda: PruneOptions(layout="compakt"),
    "engine": lambda: RunOptions(engine="threads"),
    "engine at work": lambda: _engine(set_on(RunOptions(), engine="threads"), "run", None),  # type: ignore[arg-type]
    "metric": lambda: RobustnessSettings("pontwise", 0.1),
    "proof": lambda: proof_words(set_on(DISTANCE, distances="attak")),
    "protocol": lambda: Settings(protocol="fats"),
    "protocol by name": lambda: is_paper("fats"),
    "protocol of a table": lambda: distances([], {}, "fats"),
    "rounding": lambda: number(0.1, "ROUND_UP"),
    "word of a status": lambda: vnncomp_word("exact"),
    "device": lambda: pick_device("mps"),
    "architecture": lambda: architecture("H"),
    "data set": lambda: load_dataset("minst"),
}


@pytest.mark.parametrize("use", PLAIN.values(), ids=PLAIN.keys())
def test_an_unknown_name_raises(use: Callable[[], object]) -> None:
    with pytest.raises(ValueError) as raised:
        use()
    assert "\n" not in str(raised.value)


def test_versions_of_a_property_are_two() -> None:
    text = Property((), (1,), (2,))
    with pytest.raises(ValueError, match=r"choose 1\.0 or 2\.0"):
        write_property(text, "2.1")
    with pytest.raises(ValueError, match=r"choose 1\.0 or 2\.0"):
        witness_text(replace(text, version="3.0"), np.zeros(1), np.zeros(2))


def test_a_norm_of_outputs_is_one_of_three(query: Query) -> None:
    odd = set_on(StandardRobustness(0.1, 1.0), norm="3")
    for use in (odd.counterexamples, odd.linear_clauses):
        with pytest.raises(ValueError, match="norm '3' is unknown"):
            use(query)


def test_a_verifier_that_is_only_registered_does_not_run_another_one(query: Query) -> None:
    prop = StandardRobustness(0.01, 1.0)
    for name in ("marabou", "new"):
        options = set_on(LocalOptions(), verifier=name)
        with pytest.raises(ValueError, match=r"choose (one of bab, milp|bab or milp)"):
            search(query, prop, prop.counterexamples(query), options)
    target = next(t for t in range(query.classes) if t != query.label)
    with pytest.raises(ValueError, match="choose bab or milp"):
        smallest_margin(query, target, 0.5, set_on(MarginOptions(), verifier="new"))


def task_of(settings: Any, query: Query, kind: str) -> Task:
    return Task(0, kind, "model.onnx", query.model.sha256, query.x0, query.label, None, None, None, settings, 1, None)


def test_units_of_a_run(query: Query) -> None:
    with pytest.raises(ValueError, match="choose one of exact, substitute, attack, region"):
        locate(task_of(set_on(DISTANCE, distances="attak"), query, "locate"), query)
    with pytest.raises(ValueError, match="choose one of fast, paper"):
        find_attack(task_of(set_on(Settings(), protocol="fats"), query, "attack"), query)

    class _Plan:
        settings = set_on(RobustnessSettings("satisfaction", 0.1), metric="new")

    with pytest.raises(KeyError, match="new"):
        _ = RobustnessJob(_Plan()).kinds  # type: ignore[arg-type]

    class _Ledger:
        def units(self) -> list[Any]:
            class _Unit:
                model, sample, kind = "m", 0, "certificate"

            return [_Unit()]

    with pytest.raises(ValueError, match="certificate"):
        list(rows_of(_Ledger()))  # type: ignore[arg-type]
