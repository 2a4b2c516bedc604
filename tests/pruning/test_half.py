"""Substitutes of networks in half precision: no farther from the file than that rounds, and what it rounds is told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from tests.handmade import Net


def perceptron(seed: int, kind: str = "Relu", scale: float = 1.0, dtype: type = np.float16) -> onnx.ModelProto:
    n = Net(8, dtype=dtype, seed=seed)
    y = n.node(kind, [n.gemm(n.node(kind, [n.gemm("x", 8, 24)]), 24, 24)])
    last = n.gauss(4, 24, fan=24)
    y = n.node("Gemm", [y, n.weight(last - last.mean(axis=0)), n.weight(np.zeros(4))], transB=1)  # classes that meet
    return n.model(n.node("Mul", [y, n.weight(np.array(scale))]), 4)


@pytest.mark.parametrize("kind", ["Relu", "Tanh"])
@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("layout", ["compact", "inplace"])
def test_the_files_differ_by_no_more_than_half_precision_rounds(kind: str, scale: float, layout: str) -> None:
    differing = 0
    for seed in range(4):
        query = make_query(load_model(perceptron(seed, kind, scale)), np.random.default_rng(seed).random(8), threads=1)
        options = PruneOptions("lin", SelectOptions(gamma=0.9, bounds="ibp"), layout, attack=AttackOptions(steps=10, restarts=2))
        result = prune(query, options)
        largest = float(np.abs(query.logits(query.x0[None])).max())
        worst = max(result.preserves.values())
        told = [n for n in result.notes if "half precision" in n]
        assert bool(told) <= (worst > 1e-4)
        if worst > 1e-4 * (1 + 1.5 * largest):
            assert len(told) == 1
            assert "\n" not in told[0]
        # two steps of float16 numbers of that size where the file folds, and what its rounded lines add where it does not
        assert worst <= (1 if layout == "compact" else 4) * 2 * float(np.spacing(np.float16(largest)))
        differing += worst > 0
    assert differing < 4 or layout == "inplace"


def test_nothing_is_told_of_float32() -> None:
    query = make_query(load_model(perceptron(0, dtype=np.float32)), np.random.default_rng(0).random(8), threads=1)
    result = prune(query, PruneOptions("lin", SelectOptions(gamma=0.9, bounds="ibp"), "compact"))
    assert not [n for n in result.notes if "half precision" in n]
    assert max(result.preserves.values()) <= 1e-6
