"""Every operator that constants are folded with, at every opset, against onnxruntime without its own optimisations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.computed import COMPUTED, RESHAPING
from onnxsub.fold_constants import prepare

Array = np.ndarray[Any, np.dtype[Any]]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
S = ints(1, 28, 28)
A = np.abs(X)
TWO = np.array(2, np.float32)

REDUCED = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
CASES: list[tuple[str, list[Array], dict[str, Any]]] = [
    *((op, [X], {}) for op in ("Abs", "Ceil", "Exp", "Floor", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Tanh")),
    *((op, [A], {}) for op in ("Log", "Sqrt", "Flatten", "Identity", "Transpose")),
    *((op, [S, ints(3)], {}) for op in ("Add", "Sub", "Mul", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mod")),
    *((op, [X, A], {}) for op in ("Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Greater", "Less")),
    *((op, [X, A], {}) for op in ("GreaterOrEqual", "LessOrEqual")),
    *((op, [S, ints(28)], {}) for op in ("GreaterOrEqual", "LessOrEqual")),
    *((op, [X], {}) for op in ("Cos", "Sin")),
    ("Div", [-S, ints(3)], {}),
    ("Abs", [-S], {}),
    ("Neg", [S], {}),
    *((op, [S > 2, S > 3], {}) for op in ("And", "Or", "Xor")),
    ("Not", [S > 2], {}),
    *(("Cast", [v], {"to": to}) for v in (S, X, S > 1) for to in (1, 6, 7, 9, 10, 11)),
    ("Clip", [X, np.array(-0.5, np.float32)], {}),
    ("Clip", [X, np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}),
    ("Concat", [S, ints(5)], {"axis": 0}),
    ("Concat", [X, X], {"axis": -1}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("ConstantOfShape", [ints(2)], {"value": numpy_helper.from_array(ints(7))}),
    ("CumSum", [S, np.array(0)], {}),
    ("CumSum", [X, np.array(1)], {"reverse": 1, "exclusive": 1}),
    ("DequantizeLinear", [np.array([[1, -2], [3, 4]], np.int8), np.array(0.5, np.float32), np.array(1, np.int8)], {}),
    (
        "DequantizeLinear",
        [np.array([[1, -2], [3, 4]], np.int8), np.array([0.5, 2], np.float32), np.array([1, 0], np.int8)],
        {"axis": 1},
    ),
    (
        "DequantizeLinear",
        [np.array([[1, -2], [3, 4]], np.int8), np.array([0.5, 2], np.float32), np.array([1, 0], np.int8)],
        {"axis": 0},
    ),
    ("QuantizeLinear", [X, np.array(0.5, np.float32), np.array(1, np.int8)], {}),
    ("QuantizeLinear", [X[:, :2], np.array([0.25, 2], np.float32), np.array([1, 200], np.uint8)], {"axis": 1}),
    ("Expand", [X[:, :1], ints(3, 5)], {}),
    ("Expand", [X[:, :1], ints(2, 1, 1)], {}),
    ("Flatten", [X[None]], {"axis": 2}),
    ("Flatten", [X[None]], {"axis": 0}),
    ("Gather", [S, np.array(1)], {"axis": 0}),
    ("Gather", [S, np.array(-1)], {}),
    ("Gather", [X, ints(2, -1)], {"axis": 1}),
    ("GatherElements", [X, ints(0, 1, 1, 0)[None]], {}),
    ("GatherElements", [X, ints(0, -1, 1)[:, None]], {"axis": 1}),
    ("GatherND", [X, ints(1, 2)], {}),
    ("GatherND", [X, ints(1, -1)[:, None]], {}),
    ("GatherND", [X, ints(1, 0, 3)[:, None]], {"batch_dims": 1}),
    ("Gemm", [X, X], {"transB": 1}),
    ("Gemm", [X, X, X[0, :3].copy()], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [X, X, X[0].copy()], {"transA": 1}),
    ("MatMul", [X, X.T.copy()], {}),
    ("MatMul", [X, X[0].copy()], {}),
    ("Mod", [-S, ints(3)], {}),
    ("NonZero", [S], {}),
    ("NonZero", [X * (X > 0)], {}),
    ("Pow", [A, TWO], {}),
    ("Range", [np.array(0), np.array(5), np.array(2)], {}),
    ("Range", [np.array(3.0, np.float32), np.array(0, np.float32), np.array(-1, np.float32)], {}),
    *((f"Reduce{op}", [X], kw) for op in REDUCED for kw in ({}, {"keepdims": 0})),
    *((f"Reduce{op}", [X], {"axes": [1], "keepdims": k}) for op in REDUCED for k in (0, 1)),
    *((f"Reduce{op}", [X, ints(-1)], {}) for op in REDUCED),
    ("ReduceProd", [S], {"axes": [0], "keepdims": 0}),
    *((f"Reduce{op}", [X, ints()], {"noop_with_empty_axes": 1}) for op in ("Sum", "L1", "SumSquare")),
    ("Reshape", [X, ints(0, -1)], {}),
    ("Reshape", [X, ints(2, 6)], {}),
    ("Reshape", [X, ints(-1, 1, 2)], {"allowzero": 1}),
    ("ScatterND", [S, ints(1)[None], ints(9)], {}),
    ("Slice", [X], {"starts": [0], "ends": [2], "axes": [1]}),
    ("Slice", [X], {"starts": [-2, 1], "ends": [2**31, -1]}),
    ("Slice", [X, ints(0), ints(2), ints(1)], {}),
    ("Slice", [X, ints(-1), ints(-5), ints(1), ints(-1)], {}),
    ("Slice", [S, ints(1), ints(2**62)], {}),
    ("Split", [X], {"axis": 1, "split": [1, 3]}),
    ("Split", [X], {"axis": 1}),
    ("Split", [X], {"axis": 1, "num_outputs": 2}),
    ("Split", [X, ints(1, 3)], {"axis": 1}),
    ("Squeeze", [X[:1, None]], {"axes": [1]}),
    ("Squeeze", [X[:1, None]], {}),
    ("Squeeze", [X[:1, None], ints(-2)], {}),
    ("Tile", [X, ints(2, 1)], {}),
    ("Transpose", [X[None]], {"perm": [2, 0, 1]}),
    ("Trilu", [X], {}),
    ("Trilu", [X, np.array(1)], {"upper": 0}),
    ("Unsqueeze", [np.array(3)], {"axes": [0]}),
    ("Unsqueeze", [X], {"axes": [0, 3]}),
    ("Unsqueeze", [X, ints(-1, 0)], {}),
    ("Where", [S > 2, S, S + 1], {}),
]


def by_onnxruntime(proto: onnx.ModelProto) -> list[Array] | None:
    """All outputs; None where this form of the operator does not exist at this opset."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(y) for y in session.run(None, {"x": np.zeros((1, 2), np.float32)})]
    except Exception:  # which class depends on what is wrong with the form
        return None


def test_every_folded_operator_is_tested() -> None:
    assert {op for op, _, _ in CASES} == COMPUTED | RESHAPING


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_folded_values_are_those_of_onnxruntime(op: str, inputs: list[Array], attributes: dict[str, Any]) -> None:
    names = [f"c{i}" for i in range(len(inputs))]
    outputs = [f"o{i}" for i in range(2 if op == "Split" else 1)]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [numpy_helper.from_array(v, n) for n, v in zip(names, inputs, strict=True)],
    )
    compared = 0
    for opset in range(7, 27):
        imports = [helper.make_opsetid("", opset)]
        expected = by_onnxruntime(helper.make_model(graph, opset_imports=imports, ir_version=8))
        if expected is None:
            continue
        prepared = prepare(graph, opset, imports, 8, (2,), "x", "the model")
        assert prepared.nodes == ()
        for name, value in zip(outputs, expected, strict=True):
            found = prepared.constants[name]
            assert found.dtype == value.dtype
            assert found.shape == value.shape == prepared.shapes[name]
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-7, err_msg=f"opset {opset}")
        compared += 1
    assert compared > 0
