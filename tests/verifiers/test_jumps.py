"""Witnesses that float32 has on the other side of a jump: they contradict nothing, for bounds speak of both sides."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from onnxsub.instance import Instance
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.query import Query, make_query
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.jumps import at_a_jump
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.verify import VerifyOptions, decide_ball
from tests.ops.test_spelled import Graph
from tests.ops.tools import run

F32 = np.float32
W = np.random.default_rng(3).normal(size=(6, 1)).astype(F32)


def shrinking(*, jumps: bool = True) -> ModelProto:
    """Logits 0.25 and `hardshrink(w . x)`: class 1 is reached where `w . x` passes 0.5; without a jump where it passes 0.25."""
    g = Graph()
    g.tensor("w", W)
    z = g("MatMul", "x", "w")
    tests = [g("Cast", g(kind, z, at), to=TensorProto.BOOL) for kind, at in (("Greater", 0.5), ("Less", -0.5))]
    h = g("Where", g("Or", *tests), z, 0.0) if jumps else g("Relu", z)
    g.tensor("other", np.array([[0.0, 1.0]], F32))
    g.tensor("rest", np.array([0.25, 0.0], F32))
    out = g("Gemm", h, "other", "rest")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 6), (out, 2))]
    graph = helper.make_graph(g.nodes, "g", ends[:1], ends[1:], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def asked(*, jumps: bool = True) -> Query:
    x0 = np.full(6, 0.5) + (0.2 - 0.5 * W.sum()) * W[:, 0] / float(W[:, 0] @ W[:, 0])
    return make_query(load_model(shrinking(jumps=jumps)), x0.astype(F32), threads=1)


def on_the_other_side(query: Query) -> Array:
    """A float32 point that onnxruntime sends across the jump, and the real numbers do not."""
    rng, w = np.random.default_rng(0), W[:, 0].astype(np.float64)
    x = query.x0 + rng.uniform(-0.1, 0.1, (4000, 6))
    x = (x + np.outer(0.5 - x @ w, w) / (w @ w)).astype(F32)
    crossed = run(query.model.source, {"x": x})[0].argmax(1) == 1
    return x[crossed & (x.astype(np.float64) @ w <= 0.5)][0]


def test_a_point_at_a_jump_contradicts_nothing() -> None:
    query = asked()
    assert query.label == 0
    x = on_the_other_side(query)
    referee = Referee(Instance.of(query))
    (witness,) = referee.judge(x[None])
    assert witness.kind == "strict"
    assert referee.over_reals(witness) < -0.5
    assert at_a_jump(query.network, x)
    assert not referee.float32_only(witness)
    bracket = Bracket(Instance.of(query), Session(ExactOptions(Limits(threads=1))))
    bracket.accept(x)
    bracket.claims.prove(1, 0.5 * witness.radius)
    found = bracket.result()
    assert (found.status, found.lower) == ("bracket", 0.5 * witness.radius)
    assert found.upper <= witness.radius
    assert found.reason is not None
    assert "float32 execution" not in found.reason


def test_a_decision_says_no_more_than_that_it_was_replayed() -> None:
    query = asked()
    x = on_the_other_side(query)
    eps = float(np.abs(x.astype(np.float64) - query.x0).max()) * (1 + 1e-7)
    found = decide_ball(Instance.of(query), eps, VerifyOptions(limits=Limits(threads=1, timeout=20)))
    assert found.status == "violated"
    assert "over the real numbers" not in found.reason


def test_elsewhere_float32_alone_is_said_as_before() -> None:
    query = asked()
    far = query.x0 + (0.1 * W[:, 0] / float(W[:, 0] @ W[:, 0])).astype(F32)
    assert not at_a_jump(query.network, far)
    claimed, real = (Referee(Instance.of(q)) for q in (asked(), asked(jumps=False)))
    (witness,) = claimed.judge(far[None])
    assert witness.kind == "rejected"
    assert claimed.float32_only(witness)
    assert not at_a_jump(asked(jumps=False).network, on_the_other_side(query))
    assert not real.float32_only(real.judge(on_the_other_side(query)[None])[0])
