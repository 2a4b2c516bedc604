"""How far two networks differ: the three figures are in order, and right where the difference is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxsub.budget import Budget
from onnxsub.errors import InputError, ModelError
from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import load_model, save_model
from onnxsub.passes.compare import CompareOptions, compare
from onnxsub.passes.substitute import lines, substitute
from onnxsub.query import Query, make_query
from onnxsub.reading.canonical import Reading
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.clock import Clock
from tests.handmade import Net, run
from tests.random_models import random_model


def affine(weight: list[list[float]], bias: list[float]) -> ModelProto:
    n = Net(len(weight))
    return n.model(n.node("Gemm", ["x", n.weight(weight), n.weight(bias)]), len(bias))


def query_of(proto: ModelProto, **kwargs: object) -> Query:
    model = load_model(proto)
    return make_query(model, np.random.default_rng(0).random(model.input_shape), **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.0, 0.05, 5.0])
def test_the_figures_are_in_order_and_the_witness_shows_the_largest(seed: int, eps: float) -> None:
    f, g = random_model(seed, kind="conv", classes=3), random_model(seed, kind="conv", classes=3)
    for weight in g.graph.initializer[:1]:  # another first kernel
        values = np.frombuffer(weight.raw_data, np.float32) * 1.1
        weight.raw_data = values.astype(np.float32).tobytes()
    query = query_of(f)
    result = compare(query, load_model(g), CompareOptions(eps, samples=100, steps=10, restarts=4))
    assert 0 <= result.at_x0 <= result.sampled <= result.attacked
    assert result.attacked <= result.certified + 1e-4 * (1 + result.attacked)
    w = result.witness[None]
    assert w.dtype == np.float32
    low, high = query.space.ball(query.x0, eps)
    assert (low <= w).all()
    assert (w <= high).all()
    np.testing.assert_allclose(np.abs(run(f, w) - run(g, w)).max(), result.attacked, rtol=1e-5, atol=1e-6)
    if eps == 0:
        assert result.certified <= result.at_x0 + 1e-4


def test_a_known_difference() -> None:
    query = query_of(affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
    other = load_model(affine([[1.0, 0.0], [0.5, 1.0]], [0.0, 0.0]))  # f_0 - g_0 = -0.5 x_1
    result = compare(query, other, CompareOptions(0.1))
    most = 0.5 * (float(query.x0[1]) + 0.1)
    assert result.at_x0 == pytest.approx(0.5 * query.x0[1], rel=1e-5)
    assert result.attacked == pytest.approx(most, rel=1e-5)
    assert result.certified == pytest.approx(most, rel=1e-5)
    assert result.certified >= most


def test_the_same_network_and_disagreements() -> None:
    f = affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    same = compare(query_of(f), load_model(f), CompareOptions(0.3))
    assert same.sampled == same.attacked == same.disagreements == 0
    turned = compare(query_of(f), load_model(affine([[0.0, 1.0], [1.0, 0.0]], [0.0, 0.0])), CompareOptions(1e-3))
    assert turned.disagreements == turned.points


def test_one_file_read_by_two_outputs_is_two_networks() -> None:
    net = Net(3)
    first, second = (net.node("Gemm", ["x", net.weight(sign * np.eye(3)[:2])], transB=1) for sign in (1, -1))
    proto = net.model(first, 2)
    proto.graph.output.append(helper.make_tensor_value_info(second, TensorProto.FLOAT, ["N", 2]))
    one, other = (load_model(proto, Reading(output=name)) for name in (first, second))
    query = make_query(one, np.array([0.3, 0.6, 0.1], dtype=np.float32))
    found = compare(query, other, CompareOptions(eps=0.1))
    assert found.certified >= found.attacked > 1.3  # x + x
    assert compare(query, load_model(proto, Reading(output=first)), CompareOptions(eps=0.1)).certified == 0


def test_a_substitute_is_compared_through_the_normalisation(tmp_path: Path) -> None:
    query = query_of(random_model(8, kind="conv"), space=InputSpace(0, 1, (0.3,), (0.4,)))
    network = lower(query.model)
    kept = {a.output: np.zeros(a.out_shape, dtype=bool) for a in network.activations}
    chosen = lines(query.network, "con", query.x0)
    save_model(compact(query.model, substitute(network, chosen, kept)), tmp_path / "g.onnx")
    result = compare(query, str(tmp_path / "g.onnx"), CompareOptions(0.05, samples=50, steps=5, restarts=3))
    assert result.at_x0 <= 1e-4 * (1 + np.abs(query.logits(query.x0[None])).max())
    assert result.at_x0 < result.attacked <= result.certified
    document = json.loads(dumps(result))
    assert document["schema"] == "onnxsub.compare/1"
    assert document["other"]["path"] == str(tmp_path / "g.onnx")
    assert document["other"]["sha256"] == load_model(tmp_path / "g.onnx").sha256


def test_single_logits_are_compared_as_two_classes() -> None:
    query = query_of(affine([[1.0], [0.0]], [0.0]))
    result = compare(query, load_model(affine([[1.0], [0.0]], [0.25])), CompareOptions(0.1))
    assert result.at_x0 == pytest.approx(0.25, rel=1e-5)
    assert result.certified == pytest.approx(0.25, rel=1e-5)


def test_runs_repeat() -> None:
    query, other = query_of(random_model(1, classes=3, kind="dense")), load_model(random_model(1, classes=3, kind="dense"))
    a, b = (compare(query, other, CompareOptions(0.1, samples=50, steps=5)) for _ in range(2))
    assert (a.sampled, a.attacked, a.certified) == (b.sampled, b.attacked, b.certified)
    np.testing.assert_array_equal(a.witness, b.witness)


def test_networks_that_do_not_fit() -> None:
    query = query_of(affine([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
    for other in (affine([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.0] * 3), affine([[1.0, 0.0]] * 3, [0.0, 0.0])):
        with pytest.raises(InputError, match=r"the two networks do not fit: .*; compare networks of the same input and output"):
            compare(query, load_model(other), CompareOptions(0.1))
    with pytest.raises(ModelError, match="does not exist"):
        compare(query, "none.onnx", CompareOptions(0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "--eps -1.0 is not a radius"),
        ({"eps": 0.1, "method": "x"}, "--bounds 'x' is unknown; choose one of"),
        ({"eps": 0.1, "samples": 0}, "must be at least 1"),
        ({"eps": 0.1, "restarts": 0}, "must be at least 1"),
        ({"eps": 0.1, "steps": -1}, "steps at least 0"),
    ],
)
def test_bad_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompareOptions(**options)  # type: ignore[arg-type]


def test_a_time_limit_leaves_the_figures_of_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    f, g = random_model(1, kind="conv", classes=3), random_model(1, kind="conv", classes=3)
    values = np.frombuffer(g.graph.initializer[0].raw_data, np.float32) * 1.1
    g.graph.initializer[0].raw_data = values.astype(np.float32).tobytes()
    query, options = query_of(f), CompareOptions(0.05, samples=20, steps=5, restarts=2)
    whole = compare(query, load_model(g), options)
    assert whole.stage is None
    monkeypatch.setattr("onnxsub.passes.compare._WORK", 1.0)  # one point per block
    seen = []
    for looks in (1, 5, 30, 31, 32, 33, 34, 35, 36, 40, 1000):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        result = compare(query, load_model(g), options, budget=Budget(float(looks)))
        seen.append(result.stage)
        assert result.at_x0 == pytest.approx(whole.at_x0, rel=1e-4, abs=1e-7)  # the anchor is always replayed
        assert 1 <= result.points <= whole.points
        assert result.at_x0 <= result.sampled <= result.attacked <= whole.certified + 1e-6
        assert math.isinf(result.certified) == (result.stage in ("sampled", "attacked", "certified"))
        assert result.to_json()["stage"] == result.stage
        assert result.classes_differ in ("yes", "unknown") or result.stage is None
        w = result.witness[None]
        np.testing.assert_allclose(np.abs(run(f, w) - run(g, w)).max(), result.attacked, rtol=1e-5, atol=1e-6)
    assert seen[0] == "sampled"
    assert "certified" in seen
    assert seen[-1] is None
