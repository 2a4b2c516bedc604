"""Definitions, parameters and decisions of the local properties, on networks whose answer is known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.metrics.local import (
    PROPERTIES,
    LocalOptions,
    LocalVerdict,
    attack_local,
    decide_local,
    make_property,
    sample_local,
)
from onnxsub.metrics.local.extreme import extreme_local
from onnxsub.metrics.local.jacobian import lipschitz_bound
from onnxsub.metrics.local.lipschitz_attack import attack_ratio
from onnxsub.model import load_model
from onnxsub.properties import write_property
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.property import decide_property
from tests.clock import Clock

QUICK = LocalOptions(timeout=20)
X0 = np.array([0.5, 0.5], dtype=np.float32)


def linear(weight: list[list[float]], bias: list[float] | None = None, head: str = "") -> ModelProto:
    """`f(x) = W x + b`, with a Relu pair in front that changes nothing inside the domain."""
    w = np.array(weight, dtype=np.float32)
    b = np.zeros(len(w), dtype=np.float32) if bias is None else np.array(bias, dtype=np.float32)
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["z"], transB=1),
        *([helper.make_node(head, ["z"], ["y"])] if head else []),
    ]
    graph = helper.make_graph(
        nodes, "linear", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", w.shape[1]])],
        [helper.make_tensor_value_info("y" if head else "z", TensorProto.FLOAT, ["N", len(w)])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def ask(model: ModelProto, x0: np.ndarray = X0, label: int | None = None, space: InputSpace | None = None) -> Query:
    return make_query(load_model(model), x0, label, space=space, threads=1)


THREE = linear([[2, 0], [0, 1], [-1, -1]])  # at X0: (1, 0.5, -1)


def statuses(query: Query, name: str, eps: float, options: LocalOptions = QUICK, **values: list[float]) -> list[str]:
    """The status for each of several values of the parameter."""
    ((parameter, given),) = values.items()
    asked: list[dict[str, Any]] = [{parameter: v} for v in given]
    return [decide_local(query, make_property(name, eps, **own), options).status for own in asked]  # type: ignore[attr-defined]


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_standard_robustness_changes_at_the_largest_difference(verifier: str) -> None:
    options = replace(QUICK, verifier=verifier)
    query = ask(THREE)
    # |f - f0|: (2 d1, d2, d1 + d2) with |d| <= 0.1
    for norm, worst in (("inf", 0.2), ("1", 0.2 + 0.1 + 0.2)):
        props = [make_property("sr", 0.1, delta=factor * worst, norm=norm) for factor in (0.999, 1.001)]
        found = [decide_local(query, prop, options).status for prop in props]
        assert found == ["violated", "proved"], norm


def test_the_euclidean_norm_is_decided_up_to_a_narrow_band() -> None:
    query, worst = ask(THREE), math.sqrt(0.2**2 + 0.1**2 + 0.2**2)
    found = [decide_local(query, make_property("sr", 0.1, delta=f * worst, norm="2"), QUICK).status for f in (0.999, 1.001)]
    assert found == ["violated", "proved"]
    with pytest.raises(InputError, match="milp"):
        decide_local(query, make_property("sr", 0.1, delta=worst, norm="2"), LocalOptions(verifier="milp"))


def test_scores_are_decided_up_to_a_narrow_band() -> None:
    query = ask(THREE)
    corners = np.array([[0.4, 0.4], [0.4, 0.6], [0.6, 0.4], [0.6, 0.6]], dtype=np.float32)
    f = query.logits(corners).astype(np.float64)
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    f0 = query.logits(X0[None]).astype(np.float64)
    p0 = np.exp(f0) / np.exp(f0).sum()
    least = p[:, 0].min()  # quasiconcave in x: smallest at a corner
    assert statuses(query, "scr", 0.1, eta=[0.999 * least, 1.001 * least]) == ["proved", "violated"]
    change = np.abs(p - p0).max()
    assert statuses(query, "confidence", 0.1, gamma=[1.02 * change, 0.98 * change]) == ["proved", "violated"]


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("head", ["", "Sigmoid"])
def test_a_single_score_is_two_classes(head: str, verifier: str) -> None:
    query = ask(linear([[4, -2]], head=head))  # z = 1, at its least 1 - 0.1 * 6
    options = replace(QUICK, verifier=verifier)
    sigmoid = [1 / (1 + math.exp(-z)) for z in (0.4, 1.0, 1.6)]
    assert statuses(query, "scr", 0.1, options, eta=[sigmoid[0] - 1e-4, sigmoid[0] + 1e-4]) == ["proved", "violated"]
    change = sigmoid[1] - sigmoid[0]
    assert statuses(query, "confidence", 0.1, options, gamma=[change + 1e-4, change - 1e-4]) == ["proved", "violated"]
    assert statuses(query, "sr", 0.1, options, delta=[0.6001, 0.5999]) == ["proved", "violated"]
    assert decide_local(query, make_property("cr", 0.16), options).status == "proved"
    assert decide_local(query, make_property("cr", 0.17), options).status == "violated"


def test_lipschitz_robustness_of_a_linear_network_is_its_norm() -> None:
    query = ask(THREE)
    assert statuses(query, "lr", 0.1, lipschitz=[2.001, 1.99]) == ["proved", "violated"]
    # at the lower corner of the domain both inputs can only grow: the third logit falls by d1 + d2, the first grows by 2 d1
    corner = ask(linear([[2, -2], [0, 1]]), np.zeros(2, dtype=np.float32), 0)
    assert statuses(corner, "lr", 0.1, lipschitz=[2.001, 1.99]) == ["proved", "violated"]


def test_a_lipschitz_constant_of_zero_and_a_change_below_rounding_are_undecided() -> None:
    verdict = decide_local(ask(THREE), make_property("lr", 1e-6, lipschitz=0.0), QUICK)
    assert verdict.status == "undecided"
    assert "the output moves by" in str(verdict.reason)


def test_a_constant_network_is_never_violated() -> None:
    query = ask(linear([[0, 0], [0, 0]], [1.0, 0.0]))
    strict = {"sr": {"delta": 1e-6}, "lr": {"lipschitz": 0.0}, "scr": {"eta": 0.7}, "confidence": {"gamma": 1e-6}}
    for name, values in strict.items():
        assert decide_local(query, make_property(name, 0.3, **values), QUICK).status == "proved", name


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_ball_of_radius_zero_is_the_anchor(name: str) -> None:
    query = ask(THREE)
    prop = make_property(name, 0.0, **VALUES[name])
    assert decide_local(query, prop, QUICK).status == "proved"
    assert attack_local(query, prop, QUICK).status == "undecided"
    assert sample_local(query, prop, 10, seed=0) == (10, 10)


VALUES: dict[str, dict[str, float]] = {
    "cr": {}, "sr": {"delta": 0.5}, "scr": {"eta": 0.5}, "lr": {"lipschitz": 3.0}, "confidence": {"gamma": 0.2},
}  # fmt: skip


def test_the_domain_cuts_the_ball() -> None:
    query = ask(THREE, np.array([1.0, 1.0], dtype=np.float32))  # only smaller values are possible
    assert decide_local(query, make_property("sr", 0.1, delta=0.2001), QUICK).status == "proved"
    one_sided = ask(linear([[2, -2], [0, 0]]), np.array([1.0, 1.0], dtype=np.float32))
    assert decide_local(one_sided, make_property("sr", 0.1, delta=0.2001), QUICK).status == "proved"  # 0.4 without the domain


def test_normalised_models_are_asked_in_un_normalised_units() -> None:
    query = ask(THREE, space=InputSpace(mean=(0.2,), std=(0.25,)))
    found = [decide_local(query, make_property("sr", 0.1, delta=d), QUICK) for d in (0.801, 0.799)]  # 2 * 0.1 / 0.25
    assert [v.status for v in found] == ["proved", "violated"]
    assert found[1].distance == pytest.approx(0.1, rel=1e-6)
    assert found[1].value == pytest.approx(0.8, rel=1e-5)
    assert found[1].distance <= 0.1


def test_properties_of_the_class_need_the_anchor_to_be_of_it() -> None:
    wrong = ask(THREE, label=1)
    for name in ("cr", "scr"):
        prop = make_property(name, 0.1, **VALUES[name])
        assert prop.needs_label
        for verdict in (decide_local(wrong, prop, QUICK), attack_local(wrong, prop, QUICK)):
            assert verdict.status == "misclassified"
            assert verdict.witness is None
            assert "class 0" in str(verdict.reason)
    for name in ("sr", "lr", "confidence"):
        prop = make_property(name, 0.1, **VALUES[name])
        assert not prop.needs_label
        assert decide_local(wrong, prop, QUICK).status == "proved"


def test_an_anchor_that_violates_it_is_its_own_witness() -> None:
    verdict = decide_local(ask(THREE), make_property("scr", 0.1, eta=0.99), QUICK)
    assert (verdict.status, verdict.distance) == ("violated", 0.0)
    assert verdict.witness is not None
    assert (verdict.witness == X0).all()


def test_the_verdict_carries_what_it_rests_on() -> None:
    query = ask(THREE)
    violated = decide_local(query, make_property("sr", 0.1, delta=0.1), QUICK)
    assert violated.witness is not None
    assert violated.witness.dtype == np.float32
    assert violated.value is not None
    assert violated.value > 0.1
    assert (violated.lower, violated.upper) == (violated.value, None)
    proved = decide_local(query, make_property("scr", 0.1, eta=0.4), QUICK)
    assert (proved.lower, proved.upper, proved.witness) == (0.4, None, None)
    document = json.loads(json.dumps(violated.to_json()))
    assert document["schema"] == "onnxsub.local/1"
    assert {"property": "sr", "eps": 0.1, "delta": 0.1, "norm": "inf", "status": "violated"}.items() <= document.items()
    with pytest.raises(ValueError, match="witness"):
        LocalVerdict.of(query, make_property("sr", 0.1, delta=9), "violated", "", verifier="bab", time_s={}, witness=X0)


def test_samples_are_uniform_and_counted() -> None:
    query = ask(THREE)
    # the first logit moves by 2 d1: half of the ball has |d1| <= 0.05, the third has |d1 + d2| <= 0.1
    good, count = sample_local(query, make_property("sr", 0.1, delta=0.1), 20_000, seed=3)
    # |d1| <= 0.05 and |d1 + d2| <= 0.1: (0.1 * 0.2 - 0.05 * 0.05) / 0.04
    assert count == 20_000
    assert good / count == pytest.approx(0.4375, abs=0.015)
    assert sample_local(query, make_property("sr", 0.1, delta=0.1), 20_000, seed=3) == (good, count)
    with pytest.raises(InputError, match="at least 1"):
        sample_local(query, make_property("cr", 0.1), 0, seed=0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tr", {}, "cr, sr, scr, lr, confidence"),
        ("sr", {}, "needs --delta"),
        ("scr", {"delta": 1.0}, "--delta belongs to property sr"),
        ("cr", {"gamma": 0.1}, "--gamma belongs to property confidence"),
        ("sr", {"delta": -1.0}, "--delta -1.0"),
        ("sr", {"delta": math.nan}, "--delta nan"),
        ("sr", {"delta": 1e200, "norm": "2"}, "no square in float64"),
        ("sr", {"delta": 1.0, "norm": "3"}, "inf, 1, 2"),
        ("cr", {"norm": "2"}, "--norm belongs"),
        ("scr", {"eta": 1.0}, "--eta 1.0"),
        ("scr", {"eta": 0.0}, "--eta 0.0"),
        ("lr", {"lipschitz": math.inf}, "--lipschitz inf"),
        ("confidence", {"gamma": 1.5}, "--gamma 1.5"),
    ],
)
def test_impossible_parameters_are_refused_in_one_line(name: str, values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        make_property(name, 0.1, **values)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_a_radius_must_be_one(eps: float) -> None:
    with pytest.raises(InputError, match="--eps"):
        make_property("cr", eps)


def test_norms_may_be_numbers() -> None:
    assert make_property("sr", 0.1, delta=1.0, norm=1) == make_property("sr", 0.1, delta=1.0, norm="1")
    assert make_property("sr", 0.1, delta=1.0, norm=math.inf) == make_property("sr", 0.1, delta=1.0)


@pytest.mark.parametrize(("norm", "delta"), [("inf", 0.15), ("inf", 0.25), ("1", 0.45), ("1", 0.55)])
def test_the_vnnlib_form_says_the_same(norm: str, delta: float) -> None:
    query, prop = ask(THREE, space=InputSpace(mean=(0.5,), std=(0.5,))), make_property("sr", 0.05, delta=delta, norm=norm)
    text = prop.to_property(query)
    assert "assert" in write_property(text)
    assert decide_property(query.model, text).status == decide_local(query, prop, QUICK).status


def test_what_vnnlib_cannot_say_is_refused() -> None:
    query = ask(THREE)
    for name, values in (("scr", {"eta": 0.5}), ("confidence", {"gamma": 0.1}), ("lr", {"lipschitz": 1.0})):
        with pytest.raises(InputError, match="VNN-LIB"):
            make_property(name, 0.1, **values).to_property(query)
    with pytest.raises(InputError, match="norm 2"):
        make_property("sr", 0.1, delta=1.0, norm="2").to_property(query)
    with pytest.raises(InputError, match="head"):
        make_property("sr", 0.1, delta=1.0).to_property(ask(linear([[1, 0], [0, 1]], head="Softmax")))
    assert make_property("cr", 0.1).to_property(ask(linear([[1, 0], [0, 1]], head="Softmax"))).clauses == 1


def test_a_softmax_at_the_end_changes_nothing() -> None:
    bare, headed = ask(THREE), ask(linear([[2, 0], [0, 1], [-1, -1]], head="Softmax"))
    for name, values in VALUES.items():
        prop = make_property(name, 0.1, **values)
        assert decide_local(bare, prop, QUICK).status == decide_local(headed, prop, QUICK).status


@pytest.mark.parametrize("name", ["sr", "lr", "confidence", "scr"])
def test_a_time_limit_leaves_it_undecided(name: str) -> None:
    verdict = decide_local(ask(THREE), make_property(name, 0.1, **VALUES[name]), LocalOptions(timeout=1e-9))
    assert verdict.status == "undecided"
    assert "time limit" in str(verdict.reason)


@pytest.mark.parametrize("name", [*VALUES, "cr"])
def test_the_budget_of_a_sample_bounds_every_decision(name: str) -> None:
    query, prop = ask(THREE), make_property(name, 0.1, **VALUES.get(name, {}))
    budget = Budget()
    budget.deadline = budget.began  # over before it began, whatever the options allow
    assert attack_local(query, prop, QUICK, budget=budget).status == "undecided"
    if name != "cr":  # of which plain bounds prove it at once
        assert decide_local(query, prop, QUICK, budget=budget).status == "undecided"
    assert decide_local(query, prop, QUICK, budget=Budget(20)).status == decide_local(query, prop, QUICK).status


def test_samples_end_with_the_time_and_are_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    query = ask(THREE)
    prop = make_property("cr", 0.4)
    whole = sample_local(query, prop, 60, seed=3)
    monkeypatch.setattr("onnxsub.metrics.local.sample._BLOCK", 2 * 10)  # ten points of two inputs
    assert sample_local(query, prop, 60, seed=3) == whole
    counts = []
    for looks in (0.5, 2.5, 100.0):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        counts.append(sample_local(query, prop, 60, seed=3, budget=Budget(looks)))
    assert [drawn for _, drawn in counts] == [10, 30, 60]
    assert counts[-1] == whole
    assert counts[0][0] <= counts[1][0] <= counts[2][0]


def test_the_ratio_and_the_jacobian_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    query = ask(THREE)
    prop = make_property("lr", 0.1, lipschitz=0.5)
    assert attack_ratio(query, prop) is not None
    low, high = query.space.ball(query.x0, 0.1)
    x0 = query.x0.astype(np.float64)
    for looks, ends in ((0.5, True), (1e6, False)):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        assert (attack_ratio(query, prop, budget=Budget(looks)) is None) == ends
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        if ends:
            with pytest.raises(OutOfTime):
                lipschitz_bound(query.network, x0, low, high, budget=Budget(looks))
        else:
            assert lipschitz_bound(query.network, x0, low, high, budget=Budget(looks)) > 0


def test_a_change_of_scores_beyond_0_and_1_cannot_be() -> None:
    query = ask(linear([[0.1, 0], [0, 0.1], [0, 0]]))  # scores near 1/3
    assert decide_local(query, make_property("confidence", 0.4, gamma=0.7), QUICK).status == "proved"
    assert attack_local(query, make_property("confidence", 0.4, gamma=0.7), QUICK).status == "undecided"


def test_the_attack_finds_what_is_there_and_proves_nothing() -> None:
    query = ask(THREE)
    tight = {"cr": {}, "sr": {"delta": 0.3}, "scr": {"eta": 0.5}, "lr": {"lipschitz": 1.5}, "confidence": {"gamma": 0.1}}
    for name, values in tight.items():
        found = attack_local(query, make_property(name, 0.4, **values), QUICK)
        assert found.status == "violated", name
        assert found.witness is not None
        assert found.verifier == "attack"
    assert attack_local(query, make_property("sr", 0.1, delta=9.0), QUICK).status == "undecided"


def mixture() -> ModelProto:
    """The mean of the softmaxes of two linear networks, as the posterior of a Bayesian network is exported."""
    weights = {"v": [[2, 0], [0, 1], [-1, -1]], "w": [[0, 1], [1, 0], [0, 0]]}
    nodes = []
    for name in weights:
        nodes.append(helper.make_node("Gemm", ["x", name], [f"{name}.z"], transB=1))
        nodes.append(helper.make_node("Softmax", [f"{name}.z"], [f"{name}.p"], axis=1))
    nodes += [helper.make_node("Sum", ["v.p", "w.p"], ["sum"]), helper.make_node("Mul", ["sum", "half"], ["y"])]
    graph = helper.make_graph(
        nodes, "mixture", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(w, dtype=np.float32), name) for name, w in weights.items()]
        + [numpy_helper.from_array(np.array(0.5, dtype=np.float32), "half")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("parameters", [{"name": "confidence", "gamma": 0.3}, {"name": "scr", "eta": 0.4}])
def test_no_softmax_of_probabilities_is_taken(parameters: dict[str, Any]) -> None:
    query = ask(mixture())
    prop = make_property(eps=0.05, **parameters)
    for answer in (decide_local, attack_local, lambda q, p: extreme_local(q, p, 1e-3)):
        with pytest.raises(InputError, match=r"ends in probabilities .* ask --property sr"):
            answer(query, prop)
    assert decide_local(query, make_property("sr", 0.05, delta=0.3), QUICK).status == "proved"
    assert decide_local(query, make_property("cr", 0.05), QUICK).status == "proved"


def test_a_softmax_at_the_end_of_a_file_is_left_out() -> None:
    query = ask(linear([[2, 0], [0, 1], [-1, -1]], head="Softmax"))
    assert decide_local(query, make_property("confidence", 0.01, gamma=0.3), QUICK).status == "proved"
