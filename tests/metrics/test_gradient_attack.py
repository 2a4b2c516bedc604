"""FGSM and PGD on a property: by hand on linear networks, against the exact extreme, and what they never say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxsub
from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.metrics.local import LocalOptions, approximate_local, extreme_local, gradient_attack, make_property
from onnxsub.query import Query
from onnxsub.region import InputSpace
from tests.handmade import Net
from tests.random_models import random_model

EPS = 0.1
CASES = {
    "confidence": {"gamma": 0.5},
    "sr": {"delta": 1.0},
    "sr-1": {"delta": 1.0, "norm": "1"},
    "sr-2": {"delta": 1.0, "norm": "2"},
    "scr": {"eta": 0.5},
    "lr": {"lipschitz": 1.0},
}


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Query:
    """`f = (2 x_1 - x_2, x_1 / 2)`: FGSM is exact."""
    net = Net(2)
    y = net.node("Gemm", ["x", net.weight([[2.0, 0.5], [-1.0, 0.0]]), net.weight([0.0, 0.0])])
    path = tmp_path_factory.mktemp("linear") / "net.onnx"
    onnx.save(net.model(y, 2), path)
    return onnxsub.make_query(path, np.array([0.5, 0.3], dtype=np.float32), threads=1)


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Query:
    path = tmp_path_factory.mktemp("gradient") / "net.onnx"
    onnx.save(random_model(11, kind="dense", classes=3), path)
    return onnxsub.make_query(path, np.array([0.4, 0.6], dtype=np.float32), threads=1)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize(("case", "value"), [("sr", 0.3), ("sr-1", 0.35), ("sr-2", math.hypot(0.3, 0.05)), ("lr", 3.0)])
def test_of_a_linear_network_it_finds_the_extreme(linear: Query, method: str, case: str, value: float) -> None:
    prop = make_property(case.partition("-")[0], EPS, **CASES[case])
    found = approximate_local(linear, prop, method)
    assert found.status == "approximate"
    assert found.value == pytest.approx(value, abs=1e-5)
    assert found.lower == pytest.approx(value, abs=2e-3 if case == "lr" else 1e-5)  # lr keeps room for rounding
    assert found.lower <= found.value
    assert found.upper == math.inf
    assert "nothing is proved of the other end" in found.reason


@pytest.mark.parametrize("case", list(CASES))
def test_it_bounds_the_extreme_from_its_side_and_pgd_is_not_weaker(case: str, query: Query) -> None:
    prop = make_property(case.partition("-")[0], EPS, **CASES[case])
    whole = extreme_local(query, prop, 1e-3, LocalOptions(timeout=20))
    ends = {}
    for method in ("fgsm", "pgd"):
        found = approximate_local(query, prop, method)
        assert found.witness is not None
        low, high = query.space.ball(query.x0, EPS)
        assert ((low <= found.witness) & (found.witness <= high)).all()
        assert float(prop.measure(query, found.witness[None]).quantity[0]) == found.value
        known, unknown = (found.upper, found.lower) if prop.smallest else (found.lower, found.upper)
        assert math.isinf(unknown)
        ends[method] = known
        assert known >= whole.lower - 1e-9 if prop.smallest else known <= whole.upper + 1e-9
    assert ends["pgd"] <= ends["fgsm"] if prop.smallest else ends["pgd"] >= ends["fgsm"]
    # on seven units it is no worse than the search of the engines
    assert ends["pgd"] == pytest.approx(whole.upper if prop.smallest else whole.lower, rel=2e-2)
    again = approximate_local(query, prop, "pgd")
    assert (again.lower, again.upper) == (approximate_local(query, prop, "pgd").lower, approximate_local(query, prop, "pgd").upper)


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize("case", [*CASES, "cr"])
def test_security_is_violated_by_a_replayed_point_or_undecided(case: str, method: str, query: Query) -> None:
    prop = make_property(case.partition("-")[0], 0.5, **CASES.get(case, {}))
    mild = {"confidence": 0.99, "sr": 1e6, "scr": 1e-9, "lr": 1e6}
    harmless = make_property(prop.name, 0.5, **{k: mild[prop.name] for k in CASES.get(case, {}) if k != "norm"}) \
        if prop.name in mild else replace(prop, eps=1e-7)  # fmt: skip
    calm = gradient_attack(query, harmless, method)
    assert (calm.status, calm.lower, calm.upper) == ("undecided", None, None)
    assert "nothing is proved" in (calm.reason or "")
    sharp = {"confidence": 1e-4, "sr": 1e-4, "scr": 0.9999, "lr": 1e-4}
    strict = make_property(prop.name, 0.5, **{k: sharp[prop.name] for k in CASES.get(case, {}) if k != "norm"})
    found = gradient_attack(query, strict, method)
    assert found.status == "violated"
    assert found.verifier == method or "the anchor itself" in (found.reason or "")
    assert found.witness is not None
    assert strict.measure(query, found.witness[None]).violated[0]
    assert found.prop is strict


def test_one_step_is_that_of_the_paper(query: Query) -> None:
    """Of cr: `x0 + eps sign` of the gradient of the cross-entropy, by finite differences."""
    prop = make_property("cr", 0.5)
    found = gradient_attack(query, prop, "fgsm")
    x = query.x0.astype(np.float64)
    step = 1e-3

    def loss(at: np.ndarray) -> float:
        f = query.logits(at[None].astype(np.float32))[0].astype(np.float64)
        return float(np.log(np.exp(f - f[query.label]).sum()))

    sign = np.sign([loss(x + step * e) - loss(x - step * e) for e in np.eye(len(x))])
    assert found.witness is not None
    np.testing.assert_allclose(found.witness, np.clip(x + 0.5 * sign, 0, 1), atol=1e-6)


def test_hostile_questions(query: Query, tmp_path: Path) -> None:
    prop = make_property("sr", EPS, delta=1.0)
    with pytest.raises(InputError, match="--attack 'cw' is unknown; choose one of fgsm, pgd"):
        gradient_attack(query, prop, "cw")
    with pytest.raises(InputError, match="--approximate '' is unknown"):
        approximate_local(query, prop, "")
    with pytest.raises(InputError, match="its value is the distance"):
        approximate_local(query, make_property("cr", EPS), "fgsm")
    assert approximate_local(query, make_property("sr", 0.0, delta=1.0), "pgd").lower == 0.0
    huge = approximate_local(query, make_property("sr", 1e39, delta=1.0), "pgd")
    assert 0 < huge.lower < math.inf
    late = approximate_local(query, prop, "pgd", budget=Budget(1e-9))
    assert late.lower >= 0
    assert "time limit" in late.reason
    assert "time limit" in (gradient_attack(query, make_property("sr", EPS, delta=1e6), "pgd", budget=Budget(1e-9)).reason or "")
    wrong = onnxsub.make_query(query.model.path, query.x0, (query.label + 1) % 3, threads=1)
    assert approximate_local(wrong, make_property("scr", EPS, eta=0.5), "pgd").status == "misclassified"
    assert gradient_attack(wrong, make_property("scr", EPS, eta=0.5), "pgd").status == "misclassified"
    # a constant network has no gradient at all
    net = Net(2)
    onnx.save(net.model(net.node("Gemm", ["x", net.weight(np.zeros((2, 2))), net.weight([1.0, 0.0])]), 2), tmp_path / "c.onnx")
    flat = onnxsub.make_query(tmp_path / "c.onnx", query.x0, space=InputSpace(0.0, 1.0), threads=1)
    for case, parameters in CASES.items():
        held = make_property(case.partition("-")[0], EPS, **parameters)
        assert approximate_local(flat, held, "pgd").value == pytest.approx(0.7310586 if held.smallest else 0.0, abs=1e-6)
