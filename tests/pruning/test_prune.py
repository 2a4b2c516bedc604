"""The pass `prune` from a query to a file: what it keeps, what it preserves, and what it says of itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError, ModelError, UnsupportedOperatorError
from onnxsub.layouts import LAYOUTS
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning import prune as prune_module
from onnxsub.pruning.prune import Adversarial, PruneOptions, PruneResult, build_substitute, prune
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.clock import Clock
from tests.handmade import Net, run
from tests.random_models import random_model

FAST = AttackOptions(steps=20, restarts=4, rounds=1, threads=1)


def options(method: str = "lin", layout: str = "compact", **select: Any) -> PruneOptions:
    eps = select.pop("eps", None)
    return PruneOptions(method, SelectOptions(**{"bounds": "ibp", **select}), layout, eps, FAST)


def query_of(proto: ModelProto, seed: int = 0, **kwargs: Any) -> Query:
    model = load_model(proto)
    return make_query(model, np.random.default_rng(seed).random(model.input_shape), **kwargs)


def attackable(**kwargs: Any) -> Query:
    """A classifier whose classes meet inside the domain."""
    n = Net(6, seed=3, **kwargs)
    h = n.node("Relu", [n.gemm(n.node("Relu", [n.gemm("x", 6, 12)]), 12, 8)])
    w = n.gauss(3, 8, fan=8)
    w -= w.mean(axis=0)
    y = n.node("Gemm", [h, n.weight(w), n.weight(np.zeros(3))], transB=1)
    return query_of(n.model(y, 3), 1)


def limit(query: Query) -> float:
    return 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))


@pytest.mark.parametrize("layout", ["inplace", "compact"])
@pytest.mark.parametrize("method", ["con", "lin", "act"])
@pytest.mark.parametrize("gamma", [0.0, 0.33, 0.9, 1.0])
def test_what_a_substitute_preserves(method: str, gamma: float, layout: str) -> None:
    query = attackable()
    result = prune(query, options(method, layout, gamma=gamma))
    onnx.checker.check_model(result.proto, full_check=True)
    total = query.network.units
    assert result.units_total == total == 20
    assert total - sum(result.substitute.selection.kept_per_layer) == round(gamma * total)
    assert result.preserves["x0"] <= limit(query)
    if method == "lin" or gamma == 0:
        assert result.preserves["x_adv"] <= limit(query)
    # said of the file, and true of the file
    x_adv = result.substitute.x_adv
    assert x_adv is not None
    points = np.stack([query.x0, x_adv])
    f, g = run(query.model.source, points), run(result.proto, points)
    np.testing.assert_allclose(np.abs(f - g).max(axis=1), list(result.preserves.values()), atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(g, result.substitute.network.forward(torch.tensor(points).double()).numpy(), atol=limit(query))


@pytest.mark.parametrize("layout", ["inplace", "compact"])
def test_nothing_pruned_is_the_original_and_everything_pruned_is_affine(layout: str) -> None:
    query = attackable()
    x = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    whole = prune(query, options("act", layout, gamma=0.0))
    np.testing.assert_allclose(run(whole.proto, x), run(query.model.source, x), atol=limit(query))
    kinds = {"Relu", "LeakyRelu", "PRelu", "Clip", "Abs"}
    for method in ("con", "lin", "act"):
        affine = prune(query, options(method, layout, gamma=1.0))
        assert not kinds & {node.op_type for node in affine.proto.graph.node}
        middle = run(affine.proto, (x[:10] + x[10:]) / 2)
        np.testing.assert_allclose(middle, (run(affine.proto, x[:10]) + run(affine.proto, x[10:])) / 2, atol=limit(query))
        if method == "con":
            assert np.ptp(run(affine.proto, x), axis=0).max() <= 1e-6


@pytest.mark.parametrize(("gamma", "units"), [(0.5, 5), (0.29, 100), (0.99, 49), (0.999, 1000), (1 / 3, 9)])
def test_gamma_is_rounded_once(gamma: float, units: int) -> None:
    assert SelectOptions(gamma=gamma).pruned_of(units) == round(gamma * units)
    assert SelectOptions(gamma=0.0).pruned_of(units) == 0
    assert SelectOptions(gamma=1.0).pruned_of(units) == units
    assert SelectOptions(gamma=None, keep=0).pruned_of(units) == units
    assert SelectOptions(gamma=None, keep=units).pruned_of(units) == 0


@pytest.mark.parametrize("rank", ["width", "influence"])
@pytest.mark.parametrize("keep", [0, 3, 20])
def test_keep_states_the_number(keep: int, rank: str) -> None:
    result = prune(attackable(), options(gamma=None, keep=keep, rank=rank))
    assert sum(result.substitute.selection.kept_per_layer) == keep
    document = json.loads(dumps(result))
    assert document["gamma"] == pytest.approx(1 - keep / 20)
    assert document["units_pruned"] == 20 - keep


def test_json_follows_the_contract() -> None:
    query = attackable()
    result = prune(query, options(gamma=0.8))
    document = json.loads(dumps(result))
    assert document["schema"] == "onnxsub.prune/1"
    assert document["method"] == "lin"
    assert document["gamma"] == 0.8
    assert document["d_adv"] == result.substitute.d_adv == result.substitute.eps
    assert sum(document["kept_per_layer"]) == 4
    assert len(document["kept_per_layer"]) == 2
    assert document["output"] is None
    assert set(document["preserves"]) == {"x0", "x_adv"}
    assert {"attack", "select", "layout", "total"} <= set(document["time_s"])
    assert document["settings"]["bounds"] == "ibp"


def test_runs_repeat_and_change_nothing_that_was_given() -> None:
    query = attackable()
    before = query.model.source.SerializeToString()
    one, two = (prune(query, options(gamma=0.8)) for _ in range(2))
    assert one.proto.SerializeToString() == two.proto.SerializeToString()
    assert query.model.source.SerializeToString() == before


def test_the_radius_ranks_and_the_ball_is_in_input_units() -> None:
    n = Net(4)
    h = n.node("Relu", [n.gemm("x", 4, 10)])
    proto = n.model(n.node("Gemm", [h, n.weight(n.gauss(2, 10, fan=10)), n.weight(np.zeros(2))], transB=1), 2)
    space = InputSpace(0, 1, (0.5,), (0.25,))
    query = query_of(proto, 2, space=space)
    result = prune(query, options("act", gamma=0.5, eps=0.01))
    assert result.substitute.eps == 0.01
    assert result.preserves["x0"] <= limit(query)
    # the substitute in memory takes un-normalised inputs, its file what the model is fed
    x = np.random.default_rng(0).random((5, 4)).astype(np.float32)
    with torch.no_grad():
        g = result.substitute.network.forward(torch.tensor(x).double()).numpy()
    np.testing.assert_allclose(run(result.proto, space.normalise(x)), g, atol=1e-4)


def test_an_activation_less_network() -> None:
    n = Net(4)
    query = query_of(n.model(n.gemm("x", 4, 2), 2))
    for rank in ("width", "influence"):
        result = prune(query, options("act", gamma=0.5, rank=rank, eps=0.1))
        assert result.units_total == 0
        assert result.preserves["x0"] <= limit(query)
        assert json.loads(dumps(result))["gamma"] == 0.5


@pytest.mark.parametrize("layout", ["inplace", "compact"])
@pytest.mark.parametrize("tail", ["Softmax", "Sigmoid", "single", "Relu"])
def test_heads_and_single_logits(tail: str, layout: str) -> None:
    n = Net(5, seed=2)
    h = n.node("Relu", [n.gemm("x", 5, 8)])
    classes = 1 if tail in ("Sigmoid", "single") else 3
    w = n.gauss(classes, 8, fan=8)
    y = n.node("Gemm", [h, n.weight(w - w.mean()), n.weight(np.full(classes, 0.05))], transB=1)
    y = y if tail == "single" else n.node(tail, [y], **({"axis": 1} if tail == "Softmax" else {}))
    query = query_of(n.model(y, classes), 1)
    for method, eps in (("con", 0.1), ("lin", None), ("act", 0.1)):
        result = prune(query, options(method, layout, gamma=0.75, eps=eps))
        assert result.preserves["x0"] <= limit(query)
        if method == "lin":
            assert result.preserves["x_adv"] <= limit(query)
        assert result.proto.graph.output[0].name == query.model.raw_output
        kinds = [node.op_type for node in result.proto.graph.node]
        if tail in ("Softmax", "Sigmoid"):
            assert (tail in kinds) == (layout == "inplace")


def test_without_an_adversarial_point() -> None:
    n = Net(3)
    h = n.node("Relu", [n.gemm("x", 3, 5)])
    y = n.node("Gemm", [h, n.weight(np.zeros((2, 5))), n.weight([1.0, 0.0])], transB=1)
    query = query_of(n.model(y, 2))
    with pytest.raises(InputError, match=r"the attack found no adversarial point in the domain, .*; state one with --eps"):
        prune(query, options("act", gamma=0.5))
    with pytest.raises(InputError, match="--method lin needs an adversarial point and none was found"):
        prune(query, options("lin", gamma=0.5, eps=0.1))
    result = prune(query, options("con", gamma=0.5, eps=0.1, rank="influence"))
    assert set(result.preserves) == {"x0"}
    assert math.isinf(result.substitute.d_adv)
    assert json.loads(dumps(result))["d_adv"] is None


def test_the_rival_of_a_tie_is_another_class() -> None:
    n = Net(3)
    h = n.node("Relu", [n.node("Sub", ["x", n.weight([0.45, 0.45, 0.2])])])
    y = n.node("MatMul", [h, n.weight(np.diag([1.0, 1.0, 0.1]))])
    query = make_query(load_model(n.model(y, 3)), np.array([0.5, 0.5, 0.2]), 0)
    assert query.logits(query.x0[None])[0, 0] == query.logits(query.x0[None])[0, 1]
    g = build_substitute(query, options("act", gamma=None, keep=1, eps=0.1), Adversarial(None, math.inf, None))
    (kept,) = g.selection.kept.values()
    assert kept.sum() == 1
    assert not kept[2]  # it moves neither of the two


def test_a_wrong_prediction_is_refused() -> None:
    query = attackable()
    wrong = make_query(query.model, query.x0, (query.label + 1) % 3)
    with pytest.raises(InputError, match=r"predicted as class \d, not \d: its distance is 0, .*; choose another anchor"):
        prune(wrong, options())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PruneOptions("mean"), "--method 'mean' is unknown; choose one of con, lin, act"),
        (lambda: PruneOptions(layout="flat"), "--layout 'flat' is unknown; choose one of inplace, compact"),
        (lambda: PruneOptions(eps=-1.0), "--eps -1.0 is not a radius"),
        (lambda: prune(attackable(), options(gamma=None, keep=21)), "--keep 21 is more than the model's 20 units"),
        (
            lambda: prune(query_of(random_model(1, activations=("Tanh",), kind="dense")), options("act", gamma=0.5)),
            "--method act needs piecewise-linear units; Tanh",
        ),
    ],
)
def test_bad_options(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as info:
        make()
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("layout", ["inplace", "compact"])
@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist_relu_3_50", None, None),
        ("convSmallRELU__Point", (0.1307,), (0.3081,)),
        ("cifar_base_kw", (0.485, 0.456, 0.406), (0.225,)),
        ("cnn_max_mninst2", None, None),
    ],
)
def test_real_networks(
    net_path: Callable[[str], Path],
    data_dir: Path,
    name: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    layout: str,
) -> None:
    model = load_model(net_path(name))
    with np.load(data_dir / "data" / ("mnist.npz" if np.prod(model.input_shape) == 784 else "cifar10.npz")) as images:
        x0 = images["x_test"][3] / 255
    x0 = x0.reshape(model.input_shape) if x0.ndim == 2 else np.moveaxis(x0, -1, 0)
    query = make_query(model, x0, space=InputSpace(0, 1, mean, std))
    for method in ("con", "lin", "act"):
        result: PruneResult = prune(query, options(method, layout, gamma=0.99))
        assert result.preserves["x0"] <= limit(query)
        if method == "lin":
            assert result.preserves["x_adv"] <= limit(query)
@pytest.mark.parametrize("layout", ["inplace", "compact", "chain"])
def test_a_time_limit_bounds_all_of_it(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    query = attackable()
    chosen = options("lin", layout, gamma=0.8)
    whole = prune(query, chosen)
    cuts: list[str | None] = []
    with monkeypatch.context() as patch:
        for looks in [*range(1, 200, 2), 100_000]:
            patch.setattr("onnxsub.budget.time", Clock())
            budget = Budget(float(looks))
            try:
                result = prune(query, chosen, budget=budget)
            except OutOfTime:
                cuts.append(budget.cut)
                assert budget.cut is not None
                assert repr(budget.cut) in budget.why
            else:
                cuts.append(None)
                assert result.complete
                assert result.stage is None
                assert result.substitute.selection.rounds == whole.substitute.selection.rounds
    assert set(cuts) == {"attack", "select", "layout", "replay", None}
    assert (cuts[0], cuts[-1]) == ("attack", None)


def test_best_effort_writes_fewer_rounds_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    query = attackable()
    chosen = PruneOptions("lin", SelectOptions(gamma=0.8, gamma0=0.1, bounds="ibp"), None, None, FAST, best_effort=True)
    whole = prune(query, chosen)
    assert whole.complete
    assert whole.layout == "chain"
    seen = []
    with monkeypatch.context() as patch:
        for looks in range(1, 400, 3):
            patch.setattr("onnxsub.budget.time", Clock())
            try:
                seen.append(prune(query, chosen, budget=Budget(float(looks))))
            except OutOfTime:
                continue
    partial = [r for r in seen if not r.complete]
    assert partial
    assert any(r.complete for r in seen)
    for r in partial:
        keys = r.to_json()
        assert (keys["complete"], keys["stage"], keys["layout"]) == (False, "select", "inplace")
        assert 0 < keys["units_pruned"] < whole.to_json()["units_pruned"]
        assert keys["rounds"] < whole.to_json()["rounds"]
        # the file and the document say what was reached, not what was asked for
        assert keys["gamma"] == pytest.approx(keys["units_pruned"] / keys["units_total"])
        assert float(properties(r.proto)["onnxsub.gamma"]) == keys["gamma"]
        x = query.x0[None]
        np.testing.assert_allclose(run(r.proto, x), run(query.model.source, x), atol=1e-5)
    for r in seen:
        assert r.complete or r.layout == "inplace"
        assert (r.stage == "layout") == (r.complete and r.layout == "inplace")


def properties(proto: ModelProto) -> dict[str, str]:
    return {p.key: p.value for p in proto.metadata_props}


@pytest.mark.parametrize("error", [ModelError, UnsupportedOperatorError])
def test_where_the_graph_is_no_place_for_it_there_is_another_file(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def none(*_: object, **__: object) -> NoReturn:
        raise error("no node of the main graph; use --layout compact")

    model = load_model(random_model(2, kind="dense"))
    query = make_query(model, np.full(lower(model).input_shape, 0.5, dtype=np.float32))
    options = PruneOptions(method="act", eps=0.01, attack=AttackOptions(restarts=2, steps=5))
    monkeypatch.setattr(prune_module, "LAYOUTS", {**LAYOUTS, "inplace": none})
    monkeypatch.setattr(prune_module, "_layout_for", lambda *_: "inplace")
    found = prune(query, options)
    assert found.layout == "compact"
    assert "no node of the main graph: layout compact was written" in found.notes
    assert max(found.preserves.values()) < 1e-4
    with pytest.raises(error, match="use --layout compact"):
        prune(query, replace(options, layout="inplace"))


def quantised_norm(seed: int) -> Query:
    """A perceptron whose layer norm divides between quantisers: float32 may in theory round there by any number of steps."""
    n = Net(6, seed=seed)

    def steps(x: str, step: float) -> str:
        scale, zero = n.weight(np.asarray(step)), n.weight(np.asarray(0), np.int8)
        return n.node("DequantizeLinear", [n.node("QuantizeLinear", [x, scale, zero]), scale, zero])

    h = steps(n.gemm(steps("x", 0.008), 6, 12), 0.03)
    centred = n.node("Sub", [h, n.node("ReduceMean", [h], axes=[-1])])
    variance = n.node("ReduceMean", [n.node("Pow", [centred, n.weight(np.asarray(2.0))])], axes=[-1])
    deviation = n.node("Sqrt", [n.node("Add", [steps(variance, 0.01), n.weight(np.asarray(1e-5))])])
    h = steps(n.node("Mul", [steps(n.node("Div", [centred, deviation]), 0.02), n.weight(n.rng.normal(size=12))]), 0.03)
    h = steps(n.node("Erf", [h]), 0.008)
    return query_of(n.model(steps(n.gemm(h, 12, 3), 0.02), 3), 1)


@pytest.mark.parametrize("layout", ["compact", "inplace"])
@pytest.mark.parametrize("seed", [0, 5])
def test_room_for_all_that_may_round_is_not_what_does(seed: int, layout: str) -> None:
    query = quantised_norm(seed)
    result = prune(query, options("lin", layout, gamma=0.9))
    assert set(result.preserves) == {"x0", "x_adv"}
    assert max(result.preserves.values()) <= limit(query)


@pytest.mark.parametrize("where", ["domain", "ball", "auto"])
def test_a_layout_that_nobody_named_is_exact_wherever_it_is_asked_to_be(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = Net(6, seed=2)
    smooth = query_of(n.model(n.gemm(n.node("Tanh", [n.gemm("x", 6, 10)]), 10, 3), 3))
    asked = PruneOptions("con", SelectOptions(gamma=None, keep=4), None, 0.1, FAST, exact_on=where)
    found = prune(smooth, asked)
    assert (found.layout, found.exact_on) == ("compact", "everywhere")
    with pytest.raises(UnsupportedOperatorError, match="no Relu can stand for"):  # no other layout is written in silence
        prune(smooth, replace(asked, flat_input=True))

    def late(*_: object, **__: object) -> NoReturn:
        raise OutOfTime

    monkeypatch.setattr(prune_module, "LAYOUTS", {**LAYOUTS, "chain": late})
    hurried = prune(attackable(), replace(asked, best_effort=True))
    assert (hurried.layout, hurried.stage, hurried.exact_on) == ("inplace", "layout", "everywhere")
    with pytest.raises(OutOfTime):  # no other layout takes flat rows
        prune(attackable(), replace(asked, best_effort=True, flat_input=True))
