"""Tensors of one number per sample inside a network: every step on them, as exporters write a gate or a normalising constant."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.reading.files import body, file, mlp, points, run, tensor

N = helper.make_node
KINDS: dict[str, list[Any]] = {
    "sigmoid": [N("Squeeze", ["g", "last"], ["s"]), N("Sigmoid", ["s"], ["t"])],
    "relu": [N("Squeeze", ["g", "last"], ["s"]), N("Relu", ["s"], ["t"])],
    "product": [
        N("Squeeze", ["g", "last"], ["s"]), N("ReduceMean", ["x"], ["u"], axes=[1], keepdims=0), N("Mul", ["s", "u"], ["t"]),
    ],
    "log sum exp": [N("ReduceLogSumExp", ["h0"], ["t"], axes=[1], keepdims=0)],
    "largest": [N("ReduceMax", ["h0"], ["t"], axes=[1], keepdims=0)],
}  # fmt: skip


def question(kind: str) -> Query:
    weights = mlp(4) | {"G": points(1, 6, (1,)) - np.float32(0.5), "last": np.array([1]), "column": np.array([-1, 1])}
    nodes = [
        N("MatMul", ["x", "G"], ["g"]), N("Softplus", ["x"], ["h0"]), *KINDS[kind], N("Reshape", ["t", "column"], ["c"]),
        N("Mul", ["x", "c"], ["q"]), *body("q", "z"),
    ]  # fmt: skip
    return make_query(load_model(file(nodes, tensor("x", ["N", 6]), [tensor("z", ["N", 4])], weights)), points(2, 1, (6,))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_distances_and_substitutes(kind: str) -> None:
    query = question(kind)
    assert () in {op.out_shape for op in query.network.ops}
    x0, rng = query.x0.astype(np.float64), np.random.default_rng(0)
    for method in ("ibp", "fastlin-ibp", "crown", "alpha-crown"):
        low, high = compute_bounds(query.network, x0 - 0.05, x0 + 0.05, method).output
        inside = torch.from_numpy(x0 + rng.uniform(-0.05, 0.05, (50, 6)))
        y = query.network.forward(inside)
        assert ((y >= low) & (y <= high)).all()
    found = attack(query, AttackOptions(steps=20, restarts=4))
    ends = distance(query, DistanceOptions(limits=Limits(timeout=3)))
    assert ends.lower <= found.d_adv
    if found.x_adv is not None:
        assert run(query.model.source, found.x_adv[None])[0].argmax() != query.label
    for bounds in ("fastlin-ibp", "estimate"):
        options = PruneOptions("con", SelectOptions(gamma=0.5, bounds=bounds), eps=0.05, attack=AttackOptions(steps=3, restarts=1))
        assert prune(query, options).preserves["x0"] <= 1e-4
