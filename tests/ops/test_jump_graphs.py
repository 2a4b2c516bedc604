"""Whole graphs with jumps: values, bounds, room, distances, and substitutes in files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.jump import Jump
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.quantised import with_room
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.ops.test_jumps_spelled import SPELLED
from tests.ops.test_spelled import Graph
from tests.ops.tools import random, run

F32 = np.float32


def jumps_elsewhere(g: Graph) -> str:
    return g("Where", g("Greater", "x", 0.5), "x", 0.1)


def jumps_behind_a_sum(g: Graph) -> str:
    """Float32 rounds the sum that is asked about: the jump is not where x passes 0.4."""
    return g("Where", g("Greater", g("Add", "x", 0.1), 0.5), "x", 0.0)


def has_its_threshold(g: Graph) -> str:
    return g("Where", g("GreaterOrEqual", "x", 0.4), "x", 0.0)


def of_two_tensors(g: Graph) -> str:
    return g("Where", g("Greater", "x", g("Sigmoid", "x")), g("Tanh", "x"), g("Mul", "x", "x"))


def both_tests(g: Graph) -> str:
    inside = g("And", g("Greater", "x", -0.4), g("Not", g("Greater", "x", 0.6)))
    return g("Where", inside, g("Mul", "x", 3.0), g("Sub", "x", 1.0))


def either_test(g: Graph) -> str:
    outside = g("Or", g("Less", "x", -0.4), g("Xor", g("LessOrEqual", "x", 0.6), g("Equal", "x", 0.5)))
    return g("Add", g("Cast", outside, to=TensorProto.FLOAT), g("Sign", "x"))


def counted(g: Graph) -> str:
    """How many elements of a row are above a number, as a feature."""
    return g("Mul", "x", g("ReduceMean", g("Cast", g("Greater", "x", 0.3), to=TensorProto.FLOAT), g.integers(2)))


def relus_and_a_choice(g: Graph) -> str:
    return g("Relu", g("Where", g("Greater", "x", 0.1), g("Relu", "x"), g("Mul", "x", -0.5)))


GENERAL = [
    jumps_elsewhere, jumps_behind_a_sum, has_its_threshold, of_two_tensors, both_tests, either_test, counted, relus_and_a_choice,
]  # fmt: skip


def classifier(spell: Callable[[Graph], str]) -> ModelProto:
    """The spelling behind a dense layer, and another one behind it."""
    g = Graph()
    g.tensor("w", random((5, 5), 1, 0.6))
    g.tensor("v", random((15, 3), 2))
    before = g("MatMul", "x", "w")
    rename = {"x": before}
    first = len(g.nodes)
    out = spell(g)
    for node in g.nodes[first:]:
        node.input[:] = [rename.get(n, n) for n in node.input]
    out = g("MatMul", g("Flatten", rename.get(out, out)), "v")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("x", (3, 5)), (out, (3,)))]
    graph = helper.make_graph(g.nodes, "g", ends[:1], ends[1:], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("spell", [*GENERAL, *SPELLED], ids=lambda f: f.__name__)
@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
def test_graphs_with_jumps(spell: Callable[[Graph], str], eps: float) -> None:
    """Values are onnxruntime's, also with numbers on both sides; every bound holds at every execution."""
    model = classifier(spell)
    network = with_room(lower(load_model(model)), -1.0, 1.0)
    rng = np.random.default_rng(3)
    x0 = rng.uniform(-1, 1, (3, 5)).astype(F32)
    low, high = np.clip(x0 - eps, -1, 1), np.clip(x0 + eps, -1, 1)
    x = np.clip((low + (high - low) * rng.uniform(-0.5, 1.5, (200, 3, 5))).astype(F32), low, high)
    (want,) = run(model, {"x": x})
    values = network.values(torch.from_numpy(x.astype(np.float64)))
    got = values[network.output].numpy()
    near = np.isclose(got, want, rtol=1e-4, atol=1e-4).all(1)
    assert near.mean() > 0.95  # float32 may take the other side of a jump now and then
    for method in ("ibp", "fastlin", "crown"):
        bounds = compute_bounds(network, low.astype(np.float64), high.astype(np.float64), method)
        for op in network.nonlinear:
            least, most = bounds.pre[op.output]
            z = values[op.inputs[0]]
            assert ((z >= least - 1e-12) & (z <= most + 1e-12)).all(), (method, op.op_type)
        least, most = (t.numpy() for t in bounds.output)
        for f in (got, want):
            assert ((f >= least - 1e-5) & (f <= most + 1e-5)).all(), method


def shrunk(g: Graph) -> str:
    """Hardshrink, as PyTorch's tracing exporter writes it: truths are cast to BOOL again."""
    tests = [g("Cast", g(kind, "x", at), to=TensorProto.BOOL) for kind, at in (("Greater", 0.5), ("Less", -0.5))]
    return g("Where", g("Or", *tests), "x", 0.0)


def test_a_truth_that_is_cast_to_a_truth_stays_one() -> None:
    model = load_model(classifier(shrunk))
    assert [n.op_type for n in model.nodes].count("Cast") == 0
    network = with_room(lower(model), -1.0, 1.0)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 5)).astype(F32)
    (want,) = run(model.source, {"x": x[None]})
    low, high = (t.numpy() for t in compute_bounds(network, x - 1e-6, x + 1e-6, "crown").output)
    assert ((want >= low - 1e-5) & (want <= high + 1e-5)).all()
    assert (high - low <= 1e-3).all()  # no element is beside a jump


def test_the_room_of_a_jump_is_what_float32_rounds() -> None:
    network = with_room(lower(load_model(classifier(has_its_threshold))), -1.0, 1.0)
    (jump,) = [op for op in network.ops if isinstance(op, Jump)]
    assert jump.room.shape == (3, 5)
    assert (jump.room > 0).all()
    assert (jump.room < 1e-5).all()


def two_queried(kind: str, seed: int) -> Query:
    """Two features, six units that jump, five Relus, two classes, and an anchor."""
    rng = np.random.default_rng(seed)
    g = Graph()
    for name, shape in (("A", (2, 6)), ("a", (6,)), ("B", (6, 5)), ("b", (5,)), ("C", (5, 2)), ("c", (2,))):
        g.tensor(name, rng.normal(size=shape).astype(F32))
    h = g("Gemm", "x", "A", "a")
    jumps = g(kind, h, alpha=0.3) if kind == "ThresholdedRelu" else g(kind, h)
    out = g("Gemm", g("Relu", g("Gemm", jumps, "B", "b")), "C", "c")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("x", out)]
    graph = helper.make_graph(g.nodes, "g", ends[:1], ends[1:], g.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return make_query(load_model(model), rng.random(2).astype(F32))


@pytest.mark.parametrize(("kind", "seed"), [("ThresholdedRelu", 8), ("Sign", 9)])
@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_brackets_hold_the_distance(kind: str, seed: int, verifier: str) -> None:
    """Against a grid of onnxruntime's own answers, 1/500 apart."""
    query = two_queried(kind, seed)
    found = distance(query, DistanceOptions(verifier=verifier, limits=Limits(timeout=2)))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 501)] * 2), -1).reshape(-1, 2).astype(F32)
    other = run(query.model.source, {"x": grid})[0].argmax(1) != query.label
    nearest = float(np.abs(grid - query.x0).max(1)[other].min())
    assert 0 < found.lower <= nearest + 1e-6
    assert found.upper >= nearest - 1 / 500 - 1e-6
    assert kind == "Sign" or found.status == "exact"


@pytest.mark.parametrize("layout", ["inplace", "compact"])
@pytest.mark.parametrize("method", ["lin", "con"])
@pytest.mark.parametrize("kind", ["ThresholdedRelu", "Sign"])
def test_layouts_of_units_that_jump(kind: str, method: str, layout: str) -> None:
    query = two_queried(kind, 8 if kind == "ThresholdedRelu" else 9)
    attack = AttackOptions(steps=20, restarts=4, rounds=1, threads=1)
    found = prune(query, PruneOptions(method, SelectOptions(gamma=0.6), layout, attack=attack))
    assert found.preserves["x0"] <= 1e-4
    pruned = found.substitute.network
    points = np.random.default_rng(0).random((20, 2)).astype(F32)
    with torch.no_grad():
        want = pruned.forward(torch.from_numpy(points.astype(np.float64))).numpy()
    np.testing.assert_allclose(run(found.proto, {found.proto.graph.input[0].name: points})[0], want, rtol=1e-4, atol=1e-4)


def test_the_tangent_of_a_jump_is_not_offered() -> None:
    with pytest.raises(InputError, match=r"Sign .* is not: use lin or con"):
        prune(two_queried("Sign", 9), PruneOptions("act", SelectOptions(gamma=0.6), "compact"))


@pytest.mark.parametrize("layout", ["inplace", "compact"])
def test_tangents_of_units_beside_a_jump(layout: str) -> None:
    """A test is no unit: the Relus around it have tangents."""
    query = make_query(load_model(classifier(relus_and_a_choice)), np.full((3, 5), 0.4, F32))
    found = prune(query, PruneOptions("act", SelectOptions(gamma=0.9), layout, eps=0.01))
    assert found.preserves["x0"] <= 1e-4
    slopes = [slope for slope in found.substitute.lines.slope.values() if slope.shape == (3, 5)]
    assert len(slopes) == 2
    assert all(np.isin(slope, (0.0, 1.0)).all() for slope in slopes)
