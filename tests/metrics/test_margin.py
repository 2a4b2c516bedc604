"""The smallest margin: both methods agree, no sample is below the proved end, limits and Ctrl-C leave a bracket that holds."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.metrics.margin import MarginOptions, MarginResult, smallest_margin
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.ascend import Climb, climb
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.order import ByValue
from onnxsub.verifiers.box.clause import ROOM
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows
from onnxsub.verifiers.extremum import Extremum
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits
from onnxsub.verifiers.session import Session
from tests.random_models import PIECEWISE, random_model

QUICK = Limits(threads=1, timeout=20)
LAZY = Climb(restarts=1, steps=1)  # finds next to nothing: the exact engines have to


def query(seed: int, **options: Any) -> Query:
    space = options.pop("space", InputSpace())
    model = random_model(seed, classes=options.pop("classes", 3), **options)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x0 = np.random.default_rng(seed).uniform(space.lower, space.upper, shape).astype(np.float32)
    return make_query(onnx_model(model), x0, space=space, threads=1)


def onnx_model(proto: onnx.ModelProto) -> Any:
    from onnxsub.model import load_model

    return load_model(proto)


def sampled(q: Query, target: int, eps: float, count: int = 4000) -> float:
    """The smallest `f_y - f_t` of the network over the real numbers (float64) at points of the ball, corners among them."""
    rng = np.random.default_rng(1)
    lower, upper = q.space.ball(q.x0, eps)
    x = rng.uniform(lower, upper, (count, *q.x0.shape))
    corners = x[::2].shape
    x[::2] = np.where(rng.random(corners) < 0.5, lower, upper)
    with torch.no_grad():
        f = q.network.forward(torch.as_tensor(x)).numpy()
    return float((f[:, q.label] - f[:, target]).min())


def holds(q: Query, r: MarginResult, tol: float = 0.0) -> None:
    """What every answer must satisfy, however it ended."""
    lower, upper = q.space.ball(q.x0, r.eps)
    x = r.witness.x.astype(np.float64)
    assert ((lower <= x) & (x <= upper)).all()
    f = q.runtime.logits(q.space.normalise(r.witness.x[None]), one_by_one=True).astype(np.float64)
    f = np.concatenate([np.zeros((1, 1)), f], 1) if f.shape[1] == 1 else f
    assert r.upper == f[0, r.label] - f[0, r.target]
    assert r.lower <= r.upper
    assert r.lower <= sampled(q, r.target, r.eps) + 1e-9
    assert r.witness.kind == ("strict" if r.upper < 0 else "tie" if r.upper == 0 else "none")


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
@pytest.mark.parametrize("seed", range(3))
def test_both_methods_agree_and_no_sample_is_lower(seed: int, kind: str) -> None:
    q = query(seed, kind=kind, activations=PIECEWISE if seed % 2 else ("Relu",))
    for target in q.targets[:1]:
        eps = {"dense": (0.05, 0.3)[seed % 2], "conv": 0.03, "residual": 0.004}[kind]
        found = {
            (v, climb_): smallest_margin(q, target, eps, MarginOptions(QUICK, verifier=v, climb=climb_))
            for v in ("bab", "milp") for climb_ in (Climb(), LAZY)
        }  # fmt: skip
        for r in found.values():
            holds(q, r)
            assert r.status == "exact", r
            assert r.upper - r.lower <= r.tol
        ends = [r.upper for r in found.values()] + [r.lower for r in found.values()]
        assert max(ends) - min(ends) <= 2 * max(r.tol for r in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_tree_needs_no_solver(seed: int) -> None:
    q = query(seed + 20, kind="dense", activations=("Relu",))
    alone = smallest_margin(q, q.targets[0], 0.2, MarginOptions(QUICK, bab=BabOptions(leaf=0), climb=LAZY))
    holds(q, alone)
    with_programs = smallest_margin(q, q.targets[0], 0.2, MarginOptions(QUICK, verifier="milp"))
    assert alone.lower <= with_programs.upper + 1e-9
    assert abs(alone.upper - with_programs.upper) <= 2 * alone.tol
    assert alone.status == "exact"


def affine(weight: np.ndarray, bias: np.ndarray) -> Any:
    """`W x + b` as a model."""
    m, n = weight.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, n])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, m])],
        [numpy_helper.from_array(a.astype(np.float32), k) for a, k in ((weight, "w"), (bias, "b"))],
    )  # fmt: skip
    return onnx_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_an_affine_network_has_its_minimum_in_a_corner(verifier: str) -> None:
    w, b = np.array([[1.0, -2.0, 0.5], [0.25, 1.0, 0.0]]), np.array([2.0, 0.5])
    q = make_query(affine(w, b), np.array([0.5, 0.05, 0.9], dtype=np.float32), threads=1)
    r = smallest_margin(q, 1, 0.125, MarginOptions(QUICK, verifier=verifier))
    c = w[0] - w[1]
    low, high = q.space.ball(q.x0, 0.125)
    expected = float(np.where(c > 0, c * low, c * high).sum() + b[0] - b[1])
    assert r.status == "exact"
    assert r.upper == pytest.approx(expected, abs=1e-5)
    assert r.lower <= expected + 1e-9
    assert r.lower >= expected - 2 * r.tol


def test_a_network_of_one_logit_and_normalised_inputs() -> None:
    w, b = np.array([[1.0, -2.0]]), np.array([0.25])
    space = InputSpace(0.0, 1.0, (0.5,), (0.25,))
    q = make_query(affine(w, b), np.array([0.5, 0.25], dtype=np.float32), space=space, threads=1)
    assert q.label == 1
    r = smallest_margin(q, 0, 0.1, MarginOptions(QUICK))
    # z = (x - 0.5) / 0.25: the smallest logit has x_0 = 0.4, x_1 = 0.35
    assert r.upper == pytest.approx((0.4 - 0.5) / 0.25 - 2 * (0.35 - 0.5) / 0.25 + 0.25, abs=1e-5)
    holds(q, r)


def test_a_ball_of_one_point() -> None:
    q = query(3, kind="dense")
    r = smallest_margin(q, q.targets[0], 0.0, MarginOptions(QUICK))
    assert r.status == "exact"
    assert np.array_equal(r.witness.x, q.x0)
    assert r.upper - r.lower <= 1e-5 * (1 + abs(r.upper))
    holds(q, r)


@pytest.mark.parametrize("seed", range(2))
def test_smooth_units_are_bracketed_and_have_no_program(seed: int) -> None:
    q = query(seed, kind="dense", activations=("Sigmoid", "Tanh"))
    r = smallest_margin(q, q.targets[0], 0.1, MarginOptions(replace(QUICK, timeout=2)))
    holds(q, r)
    assert r.upper - r.lower <= 0.2 * (abs(r.upper) + 1)
    if r.status != "exact":
        with pytest.raises(UnsupportedOperatorError):
            smallest_margin(q, q.targets[0], 0.1, MarginOptions(QUICK, verifier="milp"))


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("seconds", [1e-3, 0.1])
def test_a_time_limit_leaves_a_bracket_that_holds(seconds: float, verifier: str) -> None:
    q = query(2, kind="residual")
    r = smallest_margin(q, q.targets[0], 0.2, MarginOptions(replace(QUICK, timeout=seconds), verifier=verifier, climb=LAZY))
    holds(q, r)
    assert r.status in ("exact", "timeout")
    whole = smallest_margin(q, q.targets[0], 0.2, MarginOptions(replace(QUICK, timeout=1)))
    assert r.lower <= whole.upper + 1e-9
    assert r.upper >= whole.lower - 1e-9


def test_an_interruption_leaves_a_bracket_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    q = query(2, kind="residual")
    steps = 0
    step = Frontier.step

    def interrupted(self: Frontier, look: Any, budget: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            self.pop(1)  # in the middle of a step: the node is out of the heap
            raise KeyboardInterrupt
        step(self, look, budget)

    monkeypatch.setattr(Frontier, "step", interrupted)
    r = smallest_margin(q, q.targets[0], 0.3, MarginOptions(QUICK, bab=BabOptions(leaf=0), climb=LAZY))
    assert steps == 3
    assert r.interrupted
    assert r.status == "bracket"
    holds(q, r)


def tree_of(q: Query, target: int, eps: float) -> tuple[Extremum, Frontier]:
    search = Extremum(q, target, eps, MarginOptions().tol, Session(ExactOptions(QUICK)), None)
    x0 = q.x0.astype(np.float64)
    box = Box(x0, *q.space.ball(x0, eps * (1 + ROOM)), eps)
    local = BoxModel.over(Rows(search.network(), 1), box, Building.of(search.options, search.budget))
    model = local.clause(0)
    assert model is not None
    return search, Frontier(Frame.of([model], whole=True), BabOptions(batch=4), 0.0, ByValue())


def top_of(tree: Frontier) -> float:
    """No point of the frame has a larger value."""
    (key,) = tree.lowers().values()
    return -key


@pytest.mark.parametrize("full", [False, True], ids=["heap", "memory used up"])
def test_the_top_of_a_tree_falls_and_stays_above_every_point(full: bool) -> None:
    q = query(2, kind="conv")
    target, eps = q.targets[0], 0.2
    search, tree = tree_of(q, target, eps)
    best = (-sampled(q, target, eps) - search.base) / search.scale
    assert math.isinf(top_of(tree))
    seen: list[int] = []
    tree.start()
    tops = [top_of(tree)]
    if full:
        tree.bytes = tree.options.memory
    for _ in range(8):
        if not tree.open:
            break
        tree.step(lambda points: seen.append(len(points)))
        tops.append(top_of(tree))
        assert top_of(tree) >= best
    assert all(b <= a for a, b in pairwise(tops))
    assert tops[-1] < tops[0]
    assert sum(seen) <= tree.visited
    if best > 0:
        tree.shrink(-best / 2)
        assert top_of(tree) >= best
    tree.raise_target(0, -max(best, 0.0))
    assert top_of(tree) == max(best, -tree.close)


def test_a_climb_stays_in_the_box_and_repeats() -> None:
    q = query(1, kind="conv")
    low, high = (e.astype(np.float32) for e in q.space.ball(q.x0, 0.1))
    plan = Climb(restarts=6, steps=5)
    first, second = (climb(q.network, (low, high), plan, 7) for _ in range(2))
    assert first.shape == (4, *q.x0.shape)
    assert np.array_equal(first, second)
    assert ((low <= first) & (first <= high)).all()
    with torch.no_grad():
        values = q.network.forward(torch.as_tensor(first))[:, 0].numpy()
    assert (np.diff(values) <= 1e-6).all()
    near = climb(q.network, (low, high), replace(plan, steps=1), 7, start=first[0])
    assert ((low <= near) & (near <= high)).all()


def test_bad_input() -> None:
    q = query(0, kind="dense")
    for target, what in ((q.label, "the class of the anchor"), (7, "out of range"), (-1, "out of range")):
        with pytest.raises(InputError, match=what):
            smallest_margin(q, target, 0.1)
    for eps in (-0.1, math.inf, math.nan):
        with pytest.raises(InputError, match="not a radius"):
            smallest_margin(q, q.targets[0], eps)
    with pytest.raises(InputError, match="bab or milp"):
        MarginOptions(verifier="marabou")
    with pytest.raises(InputError, match="--tol"):
        MarginOptions(tol=1e-9)


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("power", [-80, -40, 60])
def test_logits_of_any_size_have_the_tolerance_of_their_size(power: int, verifier: str) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "V", "c"], ["y"], transB=1),
    ]
    s = 2.0**power
    numbers = {
        "W": [[1, -2], [-1, 1], [0.5, 1]], "b": [0.1, -0.2, 0.3], "c": [0.2 * s, 0],
        "V": s * np.array([[1, -0.5, 0.2], [0.3, 1, -1]]),
    }  # fmt: skip
    weights = [numpy_helper.from_array(np.asarray(v, dtype=np.float32), k) for k, v in numbers.items()]
    shown = [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["N", 2]) for k in ("x", "y")]
    graph = helper.make_graph(nodes, "tiny", shown[:1], shown[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    q = make_query(onnx_model(proto), np.array([0.6, 0.3], dtype=np.float32), threads=1)
    r = smallest_margin(q, 1 - q.label, 0.2, MarginOptions(QUICK, verifier=verifier))
    assert r.status == "exact"
    at_most = sampled(q, 1 - q.label, 0.2)
    assert r.upper <= at_most + 1e-3 * s
    assert at_most - r.lower <= 0.02 * s
