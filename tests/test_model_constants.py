"""What a file computes from constants and shapes is known before anything else is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from tests.model_tools import B, F, W, classifier, evaluate, linear, refused, rng


def test_shape_chain_is_folded() -> None:
    """x.view(x.size(0), -1), as old exporters write it, and a Reshape by its result."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n"], ["n1"], axes=[0]),
        helper.make_node("Constant", [], ["minus"], value=numpy_helper.from_array(np.array([-1]))),
        helper.make_node("Concat", ["n1", "minus"], ["t"], axis=0),
        helper.make_node("Cast", ["t"], ["t64"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "t64"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W", "b"], ["y"]),
    ]
    model = load_model(classifier(nodes, {"W": W, "b": B}, x=["N", 2, 3], opset=11))
    assert [n.op_type for n in model.nodes] == ["Reshape", "Gemm"]
    np.testing.assert_array_equal(model.nodes[0].constants["t64"], [1, -1])
    assert model.nodes[0].shapes["flat"] == (1, 6)
    x = rng().normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(evaluate(model, x), x.reshape(1, 6) @ W + B, rtol=1e-6)


def test_constant_of_shape_and_weights_are_folded() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["ones"], value=numpy_helper.from_array(np.array([1], np.float32))),
        helper.make_node("Transpose", ["Wt"], ["W"], perm=[1, 0]),
        helper.make_node("Mul", ["W", "ones"], ["W1"]),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("MatMul", ["x", "W1"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["y"]),
    ]
    model = load_model(classifier(nodes, {"Wt": np.ascontiguousarray(W.T), "dims": np.array([6, 3])}))
    assert [n.op_type for n in model.nodes] == ["MatMul", "Add"]
    np.testing.assert_array_equal(model.nodes[0].constants["W1"], W)
    np.testing.assert_array_equal(model.nodes[1].constants["b"], np.array([1, 2, 3], np.float32))


@pytest.mark.parametrize(("attributes", "expected"), [({}, [1, 6]), ({"start": 1}, [6]), ({"start": -1}, [6]), ({"end": -1}, [1])])
def test_shape_with_ends(attributes: dict[str, int], expected: list[int]) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], **attributes),
        helper.make_node("Cast", ["s"], ["f"], to=F),
        helper.make_node("ReduceSum", ["f"], ["sum"], keepdims=0),
        helper.make_node("Gemm", ["x", "W", "b"], ["z"]),
        helper.make_node("Mul", ["z", "sum"], ["y"]),
    ]
    model = load_model(classifier(nodes, {"W": W, "b": B}, opset=15))
    assert model.nodes[-1].constants["sum"] == sum(expected)


def test_size_is_folded() -> None:
    nodes = [
        helper.make_node("Size", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=F),
        helper.make_node("Gemm", ["x", "W"], ["z"]),
        helper.make_node("Div", ["z", "f"], ["y"]),
    ]
    assert load_model(classifier(nodes, {"W": W})).nodes[-1].constants["f"] == 6


def test_dead_nodes_and_their_weights_are_left_out() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["y"]),
        helper.make_node("Gemm", ["x", "W", "bad"], ["unused"]),
        helper.make_node("Dropout", ["unused"], ["d", "mask"]),
    ]
    bad = np.full(3, np.nan, np.float32)
    assert [n.op_type for n in load_model(classifier(nodes, {"W": W, "b": B, "bad": bad})).nodes] == ["Gemm"]


def test_random_constants_are_left_for_the_operator_table() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[3]),
        helper.make_node("Gemm", ["x", "W", "r"], ["y"]),
    ]
    assert [n.op_type for n in load_model(classifier(nodes, {"W": W})).nodes] == ["RandomNormal", "Gemm"]


def test_a_constant_by_an_operator_that_is_not_trusted_is_left() -> None:
    nodes = [helper.make_node("Hardmax", ["b"], ["p"], axis=0), helper.make_node("Gemm", ["x", "W", "p"], ["y"])]
    assert [n.op_type for n in load_model(classifier(nodes, {"W": W, "b": B}, opset=11)).nodes] == ["Hardmax", "Gemm"]


@pytest.mark.parametrize(
    ("kind", "opset", "attributes"),
    [
        ("Softmax", 9, {"axis": 1}), ("Softmax", 11, {"axis": 0}), ("Softmax", 13, {"axis": 0}), ("LogSoftmax", 11, {"axis": 0}),
        ("Softplus", 9, {}), ("Clip", 9, {"min": -0.5, "max": 0.5}), ("Elu", 9, {"alpha": 0.5}), ("Erf", 13, {}), ("Mean", 13, {}),
        ("Einsum", 13, {"equation": "ij->ij"}), ("LpNormalization", 9, {"axis": 0}), ("Softsign", 13, {}),
    ],
)  # fmt: skip
def test_weights_that_other_operators_make(kind: str, opset: int, attributes: dict[str, Any]) -> None:
    """Learned mixtures, positive and normalised weights, as exporters leave them that fold no constants."""
    nodes = [helper.make_node(kind, ["W"], ["V"], **attributes), helper.make_node("Gemm", ["x", "V", "b"], ["y"])]
    proto = classifier(nodes, {"W": W, "b": B}, opset=opset)
    model = load_model(proto)
    assert [n.op_type for n in model.nodes] == ["Gemm"]
    x = rng().normal(size=(1, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(x @ model.nodes[0].constants["V"] + B, session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_positions_that_are_resized() -> None:
    """Learned positions of another image size, interpolated in the file."""
    nodes = [
        helper.make_node("Resize", ["positions", "", "", "sizes"], ["p"], mode="cubic"),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Add", ["x", "f"], ["s"]),
        helper.make_node("Gemm", ["s", "W", "b"], ["y"]),
    ]
    positions = rng().normal(size=(1, 1, 4, 4)).astype(np.float32)
    proto = classifier(nodes, {"W": W, "b": B, "positions": positions, "sizes": np.array([1, 1, 2, 3])}, opset=13)
    model = load_model(proto)
    assert [n.op_type for n in model.nodes] == ["Add", "Gemm"]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = rng().normal(size=(1, 6)).astype(np.float32)
    found = (x + model.nodes[0].constants["f"]) @ W + B
    np.testing.assert_allclose(found, session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_no_number_is_infinite_or_none() -> None:
    """nan_to_num in front of a network, and casts to the type of another tensor."""
    nodes = [
        helper.make_node("IsNaN", ["x"], ["nan"]),
        helper.make_node("Where", ["nan", "zero", "x"], ["clean"]),
        helper.make_node("CastLike", ["clean", "W"], ["same"]),
        helper.make_node("Gemm", ["same", "W", "b"], ["y"]),
    ]
    model = load_model(classifier(nodes, {"W": W, "b": B, "zero": np.float32(0)}, opset=17))
    assert [n.op_type for n in model.nodes] == ["Where", "Identity", "Gemm"]
    assert not model.nodes[0].constants["nan"].any()
    x = rng().normal(size=(1, 6)).astype(np.float32)
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, x @ W + B, rtol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_axes_from_behind_before_opset_11(opset: int) -> None:
    """onnxruntime takes them; ONNX infers no shape."""
    cut = helper.make_node("Slice", ["twice"], ["s"], axes=[-1], starts=[3], ends=[9])
    if opset == 10:
        cut = helper.make_node("Slice", ["twice", "from", "to", "last"], ["s"])
    nodes = [helper.make_node("Concat", ["x", "x"], ["twice"], axis=-1), cut, helper.make_node("Gemm", ["s", "W", "b"], ["y"])]
    constants = {"W": W, "b": B, "from": np.array([3]), "to": np.array([9]), "last": np.array([-1])}
    model = load_model(classifier(nodes, constants if opset == 10 else {"W": W, "b": B}, opset=opset))
    x = rng().normal(size=(1, 6)).astype(np.float32)
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, np.concatenate([x, x], axis=1)[:, 3:9] @ W + B, rtol=1e-5)


def test_a_loop_is_left_for_the_operator_table_with_what_it_reads() -> None:
    body = helper.make_graph(
        [helper.make_node("Relu", ["outer"], ["r"])], "then", [], [helper.make_tensor_value_info("r", F, None)]
    )
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["outer"]),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body),
    ]
    model = load_model(classifier(nodes, {"W": W, "b": B}))
    assert [n.op_type for n in model.nodes] == ["Gemm", "ReduceSum", "Cast", "If"]


def test_other_domains_are_named_and_left_for_the_operator_table() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["z"], domain="com.example"), helper.make_node("Gemm", ["z", "W", "b"], ["y"])]
    model = load_model(classifier(nodes, {"W": W, "b": B}, domains={"com.example": 1}))
    assert [n.op_type for n in model.nodes] == ["com.example.Relu", "Gemm"]
    assert "z" not in model.nodes[0].shapes
    assert model.output_shape == (3,)
    proto = classifier(nodes, {"W": W, "b": B}, y=["N", "K"], domains={"com.example": 1})
    refused(proto, "com.example.Relu", "shape", error=UnsupportedOperatorError)


def test_long_name_of_the_default_domain() -> None:
    proto = linear()
    proto.opset_import[0].domain = "ai.onnx"
    model = load_model(proto)
    assert (model.opset, model.nodes[0].op_type) == (13, "Gemm")
