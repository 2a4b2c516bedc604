"""Attention masks of minus infinity: read as weights of exactly 0."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from onnxsub.errors import ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net

T, D = 4, 3
CAUSAL = np.where(np.tril(np.ones((T, T), dtype=bool)), 0.0, -np.inf)
SLOPED = CAUSAL + 0.1 * np.arange(T)


def attention(kind: str, mask: np.ndarray, opset: int = 13, reader: str = "Softmax") -> onnx.ModelProto:
    """One head over T tokens of D numbers; the mask added, or chosen by a Where."""
    n = Net(T, D, seed=1)
    q, k, v = (n.node("MatMul", ["x", n.weight(2 * n.gauss(D, D, fan=D))]) for _ in range(3))
    z = n.node("MatMul", [q, n.node("Transpose", [k], perm=[0, 2, 1])])
    if kind == "Add":
        z = n.node("Add", [z, n.weight(mask)])
    elif kind == "flat":  # with fewer axes than the scores, as broadcasting allows
        z = n.node("Add", [n.weight(mask[-1]), z])
    else:
        condition = n.weight(np.isinf(mask), np.bool_)
        z = n.node("Where", [condition, n.weight(np.asarray(-np.inf)), z])
    p = n.node(reader, [z], axis=-1 if opset >= 13 else 2)
    h = n.node("Relu", [n.node("MatMul", [p, v])])
    y = n.gemm(n.node("Flatten", [h]), T * D, 3)
    return n.model(y, 3, opset=opset)


LAST = np.array([[0.0, -np.inf, 0.0, -np.inf]])
CASES = {
    "Add": attention("Add", CAUSAL), "sloped": attention("Add", SLOPED), "Where": attention("Where", CAUSAL),
    "flat": attention("flat", LAST), "opset 12": attention("Add", CAUSAL, 12),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_values_and_bounds(case: str) -> None:
    model = load_model(CASES[case])
    network, rng = lower(model), np.random.default_rng(0)
    x0 = rng.random(model.input_shape).astype(np.float32).astype(np.float64)
    for eps in (0.01, 0.2, 5.0):
        low, high = x0 - eps, x0 + eps
        x = rng.uniform(low, high, (200, *x0.shape)).astype(np.float32)
        want = Runtime(model).logits(x)
        with torch.no_grad():
            found = network.forward(torch.as_tensor(x.astype(np.float64))).numpy()
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
        for method in ("ibp", "crown", "alpha-crown"):
            bounds = compute_bounds(network, low - 1e-6, high + 1e-6, method)
            l, u = (t[0].detach().numpy() for t in bounds.output)
            assert np.isfinite(u - l).all()
            assert (l - 1e-4 <= want).all()
            assert (want <= u + 1e-4).all()


def test_a_masked_token_has_no_influence() -> None:
    """A bound that does not see it is as narrow as without it."""
    network = lower(load_model(CASES["flat"]))
    x0 = np.random.default_rng(0).random((T, D))
    low, high = x0.copy(), x0.copy()
    low[1], high[1] = -100.0, 100.0  # masked for all; its own query reads the others' values, with any weights
    bounds = compute_bounds(network, low, high, "crown")
    ((l, u),) = [bounds.pre[op.output] for op in network.activations if op.op_type == "Relu"]
    assert float((u - l)[0, [0, 2, 3]].max()) < 1e-6


@pytest.mark.parametrize("case", ["Add", "Where"])
def test_the_main_jobs(case: str) -> None:
    model = load_model(CASES[case])
    query = make_query(model, np.random.default_rng(3).random(model.input_shape), threads=1)
    options = PruneOptions("con", SelectOptions(gamma=0.5, bounds="ibp"), None, 0.05, AttackOptions(steps=5, restarts=2))
    result = prune(query, options)
    assert result.preserves["x0"] <= 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))
    assert verify(query, 1e-4, VerifyOptions(limits=Limits(timeout=20))).status == "proved"


def test_other_infinities_are_refused() -> None:
    whole = CAUSAL.copy()
    whole[2] = -np.inf  # a row without a Softmax
    other = CAUSAL.copy()
    other[0, 1] = np.inf
    for proto in (attention("Add", whole), attention("Add", other), attention("Add", CAUSAL, reader="Hardmax"),
                  attention("Where", whole)):  # fmt: skip
        with pytest.raises(ModelError, match="NaN or infinite"):
            load_model(proto)
