"""Attention of ONNX (opset 23), as torch's exporter keeps it from there on: values of onnxruntime, bounds, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, helper

from onnxsub.errors import ModelError, OnnxsubError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.bounds import BoundsOptions, bounds
from onnxsub.query import make_query
from onnxsub.verifiers.verify import verify
from tests.reading.files import Array, file, points, run, tensor

N = helper.make_node
TOKENS, WIDTH = 5, 8
MASK = np.tri(TOKENS, dtype=bool)


def model(apart: bool, kv: int = 2, mask: Array | None = None, fixed: str = "", **attributes: Any) -> ModelProto:
    """Attention of two heads over five tokens and a list of scores; `apart`: with an axis of heads, else three axes.

    `fixed` says which of q, k and v are learned numbers, of one sample.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {}
    nodes: list[NodeProto] = []
    names = []
    for name, heads in (("q", 2), ("k", kv), ("v", kv)):
        wide = heads * WIDTH // 2
        if name in fixed:
            value = rng.normal(size=(1, heads, TOKENS, WIDTH // 2) if apart else (1, TOKENS, wide)).astype(np.float32)
            weights[name] = value
            names.append(name)
            continue
        weights[f"w{name}"] = (rng.normal(size=(WIDTH, wide)) / 2).astype(np.float32)
        nodes.append(N("MatMul", ["x", f"w{name}"], [f"{name}3"]))
        if apart:
            weights[f"s{name}"] = np.array([0, 0, heads, WIDTH // 2], np.int64)
            nodes.append(N("Reshape", [f"{name}3", f"s{name}"], [f"{name}s"]))
            nodes.append(N("Transpose", [f"{name}s"], [f"{name}4"], perm=[0, 2, 1, 3]))
        names.append(f"{name}{4 if apart else 3}")
    if mask is not None:
        weights["mask"] = mask
        names.append("mask")
    if not apart:
        attributes |= {"q_num_heads": 2, "kv_num_heads": kv}
    nodes += [N("Attention", names, ["y"], **attributes), N("Flatten", ["y"], ["f"]), N("MatMul", ["f", "W"], ["z"])]
    weights["W"] = rng.normal(size=(TOKENS * WIDTH, 4)).astype(np.float32)
    proto = file(nodes, tensor("x", ("N", TOKENS, WIDTH)), [tensor("z", ("N", 4))], weights, opset=23)
    proto.ir_version = 11
    return proto


CASES: dict[str, ModelProto] = {
    "heads apart": model(True),
    "three axes": model(False),
    "scale": model(True, scale=0.9),
    "causal": model(True, is_causal=1),
    "causal, three axes": model(False, is_causal=1),
    "mask of truths": model(True, mask=MASK),
    "mask of numbers": model(False, mask=points(0, 2, (TOKENS, TOKENS))[None]),
    "mask per head, causal": model(True, mask=points(0, 2, (TOKENS, TOKENS)), is_causal=1),
    "learned queries": model(True, fixed="q"),
    "learned queries, three axes": model(False, fixed="q", is_causal=1),
    "a memory": model(False, fixed="kv", kv=1),
    "a memory, heads apart": model(True, fixed="k"),
    "one head of keys for two": model(True, kv=1),
    "one head of keys for two, three axes": model(False, kv=1),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_onnxruntime(name: str) -> None:
    proto = CASES[name]
    x = points(1, 3, (TOKENS, WIDTH)) - np.float32(0.5)
    with torch.no_grad():
        found = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    want = np.concatenate([run(proto, x[i : i + 1])[0] for i in range(len(x))])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["heads apart", "causal, three axes"])
def test_bounds_and_decisions(name: str) -> None:
    proto = CASES[name]
    x0 = points(1, 1, (TOKENS, WIDTH))[0]
    query = make_query(load_model(proto), x0)
    found = attack(query, AttackOptions(steps=30, restarts=4))
    assert found.d_adv is not None
    eps = found.d_adv / 20
    assert verify(query, eps).status == "proved"
    limits = bounds(query, BoundsOptions(eps=eps)).layers
    net = lower(query.model)
    near = np.clip(x0 + eps * np.random.default_rng(0).choice([-1.0, 1.0], (50, *x0.shape)), 0, 1)
    for layer, z in zip(limits, net.preactivations(torch.from_numpy(near)), strict=False):
        values = z.flatten(1).numpy()
        assert (values >= layer.lower.reshape(-1) - 1e-6).all()
        assert (values <= layer.upper.reshape(-1) + 1e-6).all()


@pytest.mark.parametrize("proto", [model(True, softcap=2.0), model(True, mask=np.zeros((TOKENS, TOKENS), bool))])
def test_others_are_refused(proto: ModelProto) -> None:
    """A cap of the scores; queries that may read no key, which have no weights."""
    with pytest.raises(OnnxsubError, match=r"operator Attention|infinite"):
        lower(load_model(proto))


def test_softmax_that_is_made_safe_against_nothing_to_read() -> None:
    """What torch's older exporter writes for a mask of truths: Where(IsNaN(p), 0, p)."""
    rng = np.random.default_rng(0)
    hidden = np.where(MASK, np.float32(0), np.float32(-np.inf))
    nodes = [
        N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("MatMul", ["x", "t"], ["s"]), N("Add", ["s", "mask"], ["m"]),
        N("Softmax", ["m"], ["p"], axis=-1), N("IsNaN", ["p"], ["nan"]), N("Where", ["nan", "zero", "p"], ["safe"]),
        N("MatMul", ["safe", "x"], ["y"]), N("Flatten", ["y"], ["f"]), N("MatMul", ["f", "W"], ["z"]),
    ]  # fmt: skip
    weights = {"mask": hidden, "zero": np.float32(0), "W": rng.normal(size=(TOKENS * WIDTH, 4)).astype(np.float32)}
    proto = file(nodes, tensor("x", ("N", TOKENS, WIDTH)), [tensor("z", ("N", 4))], weights)
    x = points(1, 3, (TOKENS, WIDTH))
    with torch.no_grad():
        found = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, run(proto, x)[0], rtol=1e-4, atol=1e-5)
    closed = weights | {"mask": np.full_like(hidden, -np.inf)}  # nothing to read: the file gives zeros, no weights are numbers
    with pytest.raises(ModelError, match="infinite"):
        lower(load_model(file(nodes, tensor("x", ("N", TOKENS, WIDTH)), [tensor("z", ("N", 4))], closed)))
