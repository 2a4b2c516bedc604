"""Branches whose condition is known when the file is read, as PyTorch's exporter writes them for a Squeeze."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from tests.reading.files import body, file, mlp, points, run, tensor

node = helper.make_node


def branch(nodes: list[NodeProto], output: str, weights: dict[str, Any] | None = None) -> GraphProto:
    constants = [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()]
    return helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info(output)], constants)


def squeezed(source: str, into: str, axis: int, at: str) -> list[NodeProto]:
    """`source.squeeze(axis)` where that axis is not known to be 1."""
    then = branch([node("Squeeze", [source, f"{at}_axes"], [f"{at}_a"])], f"{at}_a", {f"{at}_axes": np.array([axis])})
    other = branch([node("Identity", [source], [f"{at}_a"])], f"{at}_a")
    return [
        node("Shape", [source], [f"{at}_shape"]), node("Gather", [f"{at}_shape", f"{at}_at"], [f"{at}_length"]),
        node("Equal", [f"{at}_length", f"{at}_one"], [f"{at}_test"]),
        node("If", [f"{at}_test"], [into], then_branch=then, else_branch=other),
    ]  # fmt: skip


def numbers(at: str, axis: int) -> dict[str, Any]:
    return {f"{at}_at": np.array(axis), f"{at}_one": np.array(1)}


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("end", [False, True])
def test_squeezes_of_unknown_axes(batch: int | str, end: bool) -> None:
    """One of an axis of length 1, one of a longer one; at the front and at the end of the graph."""
    weights = mlp(0) | numbers("p", 1) | numbers("q", 1)
    # onnxruntime refuses a branch that does not fit lengths which it knows, taken or not
    nodes = [*squeezed("x", "s", 1, "p"), *(squeezed("s", "t", 1, "q") if batch == "N" else [node("Relu", ["s"], ["t"])])]
    nodes += body("t", "z")
    if end:
        weights |= numbers("r", 1) | {"u": np.random.default_rng(1).normal(size=(4, 1)).astype(np.float32)}
        nodes += [node("MatMul", ["z", "u"], ["v"]), *squeezed("v", "w", 1, "r"), node("Sigmoid", ["w"], ["y"])]
    proto = file(nodes, tensor("x", [batch, 1, 6]), [tensor("y" if end else "z", [batch] if end else [batch, 4])], weights)
    model = load_model(proto)
    assert any("If left out" in note for note in model.notes)
    network = lower(model)
    x = points(3, 5, (1, 6))
    with torch.no_grad():
        z = network.values(torch.from_numpy(x.astype(np.float64)))[network.output].numpy().reshape(5, -1)
    want = np.concatenate([run(proto, row[None])[0].reshape(1, -1) for row in x])
    np.testing.assert_allclose(1 / (1 + np.exp(-z)) if end else z, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Runtime(model).logits(x), z, rtol=1e-4, atol=1e-5)
    query = make_query(model, x[0])
    for layout in ("inplace", "compact", "chain"):
        options = PruneOptions(method="con", eps=0.1, select=SelectOptions(gamma=0.5), layout=layout, attack=AttackOptions(steps=3))
        made = prune(query, options)
        found = Runtime(load_model(made.proto)).logits(x[:1])
        np.testing.assert_allclose(found, z[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_branches_within_branches(outer: bool, inner: bool) -> None:
    """One within another reads the tensors of the outer one; constants stand in the branches, all called alike."""

    def one(source: str, factor: float, name: str) -> GraphProto:
        return branch([node("Mul", [source, "c"], [name])], name, {"c": np.float32(factor)})

    within = [
        node("Mul", ["x", "d"], ["p"]),
        node("If", ["second"], ["q"], then_branch=one("p", 3.0, "j"), else_branch=one("p", 5.0, "k")),
    ]
    choice = node("If", ["first"], ["t"], then_branch=branch(within, "q", {"d": np.float32(2)}), else_branch=one("x", 7.0, "g"))
    again = node("If", ["second"], ["w"], then_branch=one("t", 0.5, "e"), else_branch=one("t", 0.25, "f"))
    weights = mlp(1) | {"first": np.array(outer), "second": np.array([inner])}
    proto = file([choice, again, *body("w", "z")], tensor("x", ["N", 6]), [tensor("z", ["N", 4])], weights)
    x = points(4, 3, (6,))
    with torch.no_grad():
        z = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(run(proto, x)[0], z, rtol=1e-4, atol=1e-4)


def test_a_condition_of_the_input_is_refused() -> None:
    weights = mlp(2) | {"zero": np.float32(0.5)}
    nodes = [
        node("ReduceMax", ["x"], ["m"], axes=[1]), node("Greater", ["m", "zero"], ["test"]),
        node("If", ["test"], ["t"], then_branch=branch([node("Identity", ["x"], ["j"])], "j"),
             else_branch=branch([node("Neg", ["x"], ["k"])], "k")),
        *body("t", "z"),
    ]  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match="operator If"):
        lower(load_model(file(nodes, tensor("x", ["N", 6]), [tensor("z", ["N", 4], TensorProto.FLOAT)], weights)))
