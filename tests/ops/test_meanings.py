"""Every operator class has every meaning, or says why not; what is not supported is refused by name, in one line."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import onnxsub
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.layouts.emit import Writer
from onnxsub.lower import lower_nodes, unsupported
from onnxsub.ops.base import MEANINGS, Activation, Affine, Nonlinear, Operator
from onnxsub.ops.encoding import LinExpr
from tests.ops.cases import CASES
from tests.ops.made import MADE
from tests.ops.test_encode import Recorder
from tests.ops.tools import Case, boxes, ints, nodes_of, normal, random, run

F32 = np.float32


def _classes(root: type[Operator]) -> set[type[Operator]]:
    return {root} | {c for s in root.__subclasses__() for c in _classes(s)}


def _final_classes() -> dict[str, type[Operator]]:
    """Every operator class of the package that has no class below it, or is made although it has."""
    for module in pkgutil.walk_packages(onnxsub.__path__, "onnxsub."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # of an extra
                importlib.import_module(module.name)
    found = _classes(Operator)  # type: ignore[type-abstract]
    ours = {c.__name__: c for c in found if c.__module__.startswith("onnxsub.")}
    return {name: c for name, c in ours.items() if not c.__subclasses__() or name in EXAMPLES}


EXAMPLES = {type(op).__name__: op for case in CASES for op in case.ops(case.opsets[-1])} | MADE


def test_the_table_reaches_every_final_class() -> None:
    final = _final_classes()
    assert set(final) == set(EXAMPLES)
    assert {name: c for name, c in final.items() if type(EXAMPLES[name]) is not c} == {}
    outside = [c for c in final.values() if not c.__module__.startswith("onnxsub.ops.")]
    assert not outside, "an operator has its meanings together, in onnxsub/ops/"


def _use(op: Operator, meaning: str) -> Any:
    box = boxes(op, batch=1)
    match meaning:
        case "interval":
            return op.interval(*box)
        case "linear" if isinstance(op, Affine):
            return op.transpose(normal((1, *op.out_shape)))
        case "linear":
            assert isinstance(op, Nonlinear)
            return op.relax(*box[0], "crown").lower(normal((1, 1, *op.out_shape)))
        case "milp":
            flat = tuple(t.reshape(-1).numpy() for t in box[0])
            inputs = [LinExpr.constants(np.zeros(int(np.prod(s)))) for s in op.in_shapes]
            return op.encode(Recorder((flat[0], flat[1])), *inputs)
        case "slopes":
            rows = normal((2, *op.out_shape)), torch.zeros((2, *op.out_shape), dtype=torch.float64)
            found = op.transpose_slopes(rows, *box)
            assert [t.shape for t, _ in found] == [(2, *s) for s in op.in_shapes]
            return (found, op.slopes(*box[0])) if isinstance(op, Activation) else found
        case "onnx":
            writer = Writer(np.dtype(F32), op.inputs)
            op.to_onnx(writer, op.inputs, "y")
            assert writer.nodes[-1].output[0] == "y"
            return writer.nodes
        case _:
            raise ValueError(f"no test uses the meaning {meaning!r}")


@pytest.mark.parametrize("meaning", MEANINGS)
@pytest.mark.parametrize("op", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_every_meaning_is_there_or_declared(op: Operator, meaning: str) -> None:
    assert set(op.unsupported) <= set(MEANINGS)
    if meaning in op.unsupported:
        assert len(op.unsupported[meaning]) > 20
        with pytest.raises(UnsupportedOperatorError, match=meaning):
            _use(op, meaning)
    else:
        assert _use(op, meaning) is not None


def test_only_activations_have_units() -> None:
    units = {n for n, op in EXAMPLES.items() if isinstance(op, Activation)}
    smooth = {"Sigmoid", "Tanh", "Softsign", "Erf", "Elu", "Softplus", "Gelu", "Swish", "Mish", "HardSwish"}
    arithmetic = {"Exp", "Log", "Power", "Reciprocal", "Square", "InversePower", "InverseNorm", "Probability", "Root"}
    assert units == {"Relu", "Leaky", "Clip", "Substituted", "Odds", "Quantise", "Stairs", "Jump"} | smooth | arithmetic
    read = [op for case in CASES for op in case.ops(case.opsets[-1]) if isinstance(op, Activation)]
    # a magnitude within a norm; truths, and what And, Or and Xor are made of; Floor, and what Mod is made of
    assert {type(op).__name__ for op in read if op.inner} == arithmetic | {"Leaky", "Jump", "Relu", "Clip", "Stairs"}
    counted = {type(op).__name__ for op in read if not op.inner}
    assert not counted & arithmetic, "arithmetic of a file has no units that are counted or pruned"


@pytest.mark.parametrize("op", [op for op in EXAMPLES.values() if isinstance(op, Nonlinear)], ids=lambda op: type(op).__name__)
def test_an_unknown_mode_of_lines_is_refused(op: Nonlinear) -> None:
    for mode in ("Crown", "fast-lin", "alpha-crown", ""):
        with pytest.raises(ValueError, match="choose one of fastlin, crown"):
            op.relax(*boxes(op, batch=1)[0], mode)


IMAGE = (2, 3, 4)
REFUSED = [
    (Case("Gemm", ((5,), random((1, 4))), {"transA": 1}), "batch axis"),
    (Case("MatMul", ((1,), (1,))), "batch axis"),
    (Case("Einsum", ((3, 3),), {"equation": "bii->b"}, (12,)), "twice"),
    (Case("Pow", ((4,), random((3, 4)))), "batch axis"),
    (Case("Pow", (np.array(-2, F32), (4,))), "positive"),
    (Case("ReduceProd", ((9, 9), ints(1, 2)), {}, (18,)), "81 numbers"),
    (Case("LpPool", (IMAGE,), {"kernel_shape": [2, 2], "p": 3}), "p is 3"),
    (Case("LayerNormalization", ((3, 4), np.ones(4, F32)), {"axis": 0}, (17,)), "batch axis"),
    (Case("Softmax", ((3, 4),), {"axis": 0}), "batch axis"),
    (Case("LayerNormalization", ((3, 4), np.ones(4, F32)), {"epsilon": -1.0}, (17,)), "epsilon"),
    (Case("ReduceL2", ((3, 4),)), "batch axis"),
    (Case("MatMul", (random((4, 1)), (3,))), "batch axis"),
    (Case("MatMul", ((3, 4), random((2, 4, 5)))), "batch axis"),
    (Case("Div", (IMAGE, np.zeros((4,), F32))), "zero"),
    (Case("Add", (IMAGE, random((2, 2, 3, 4)))), "batch axis"),
    (Case("Slice", (IMAGE, ints(1), ints(2), ints(0))), "batch axis"),
    (Case("Resize", (IMAGE, None, np.array([2, 1, 1, 1], F32))), "batch axis"),
    (Case("Resize", (IMAGE, None, np.array([1, 1, 2, 2], F32)), {"antialias": 1, "mode": "nearest"}, (18,)), "antialias"),
    (Case("Where", (np.zeros((4,), bool), IMAGE, np.full((4,), -np.inf, F32))), "not finite"),
    (Case("Resize", (IMAGE, None, None, ints(7, 9)), {"axes": [-2, -1], "keep_aspect_ratio_policy": "not_larger"}, (18,)), "axes"),
    (Case("GatherND", (IMAGE, ints(0, 1).reshape(1, 2))), "batch axis"),
    (Case("GatherElements", (IMAGE, np.zeros((1, 2, 3, 4), np.int64))), "batch axis"),
    (Case("Trilu", ((4,),), {}, (14,)), "batch axis"),
    (Case("Gather", (IMAGE, ints(0)), {"axis": 0}), "batch axis"),
    (Case("Split", (IMAGE,), {"axis": 0}, (11,)), "batch axis"),
    (Case("Pad", (IMAGE, ints(1, 0, 0, 0, 0, 0, 0, 0))), "batch axis"),
    (Case("ReduceSum", (IMAGE,)), "batch axis"),
    (Case("ReduceMean", (IMAGE,), {"axes": [0]}), "batch axis"),
    (Case("Cast", (IMAGE,), {"to": int(TensorProto.INT64)}), "INT64"),
    (Case("Dropout", (IMAGE, np.array(0.4, F32), np.array(True))), "training"),
    (Case("PRelu", ((1, 4), random((3, 1)))), "wider"),
    (Case("Clip", (IMAGE, np.array(np.nan, F32))), "not a number"),
    (Case("Conv", (IMAGE, (2, 3, 3))), "input 0"),
    (Case("MaxPool", (IMAGE,), {"kernel_shape": [2, 2]}, outputs=2), "Indices"),
    (Case("Det", ((3, 3),)), "operator table"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=[str(c) for c, _ in REFUSED])
def test_refusals_name_operator_node_and_opset(case: Case, reason: str) -> None:
    model = case.model(case.opsets[-1])
    if reason in ("input 0",) and case.op == "Conv":
        (node,) = nodes_of(_constant_kernel_free(model))
    else:
        node = nodes_of(model)[0]
    with pytest.raises(UnsupportedOperatorError, match=reason) as raised:
        lower_nodes((node,), node.variables[0], case.variables[node.variables[0]], node.outputs[-1])
    message = str(raised.value)
    assert case.op in message
    assert "'node'" in message
    assert f"opset {case.opsets[-1]}" in message
    assert "\n" not in message


def _constant_kernel_free(model: Any) -> Any:
    """A kernel that depends on the input has no batch axis: set the shape that a kernel has."""
    shape = model.graph.input[1].type.tensor_type.shape
    shape.dim[0].dim_value = 4
    return model


def test_unused_outputs_are_left_out() -> None:
    # MaxPool's indices and Dropout's mask do not matter while nobody reads them
    for case in (Case("MaxPool", (IMAGE,), {"kernel_shape": [2, 2]}, outputs=2), Case("Dropout", (IMAGE,), outputs=2)):
        network = lower_nodes((case.node(13),), "x0", IMAGE, "y0")
        assert [op.output for op in network.ops] == ["y0"]


def _residual() -> Any:
    """Conv, Relu, a branch with two tensors added, Split, Concat, MaxPool, dense layers."""
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], name="conv"),
        make("Relu", ["a"], ["b"], name="relu"),
        make("Add", ["b", "a"], ["c"], name="add"),
        make("Split", ["c", "sizes"], ["d", "e", "dead"], axis=1, name="split"),
        make("LeakyRelu", ["d"], ["f"], alpha=0.2, name="leaky"),
        make("Concat", ["f", "e"], ["g"], axis=1, name="concat"),
        make("MaxPool", ["g"], ["h"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        make("Flatten", ["h"], ["i"], name="flatten"),
        make("Gemm", ["i", "m", "v"], ["y"], name="gemm"),
        make("Neg", ["dead"], ["unread"], name="dead"),
    ]
    constants = {"w": random((5, 2, 3, 3)), "sizes": ints(2, 2, 1), "m": random((16, 3)), "v": random((3,))}
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_lowering_a_graph_with_branches() -> None:
    model = _residual()
    network = lower_nodes(nodes_of(model), "x", (2, 4, 4), "y")
    x = random((1, 2, 4, 4), 3)
    np.testing.assert_allclose(network.forward(torch.from_numpy(x)).numpy(), run(model, {"x": x})[0], rtol=1e-5, atol=1e-5)
    assert [op.node for op in network.activations] == ["relu", "leaky"]
    assert [op.node for op in network.nonlinear] == ["relu", "leaky", "pool"]
    assert {"unread", "dead"}.isdisjoint(network.producers)


def test_unsupported_lists_every_node() -> None:
    model = _residual()
    model.graph.node[1].op_type = "Cosh"
    model.graph.node[4].op_type = "Sinh"
    reasons = unsupported(nodes_of(model), "y")
    assert len(reasons) == 2
    assert "Cosh" in reasons[0]
    assert "Sinh" in reasons[1]


def test_a_node_without_variable_inputs_is_refused() -> None:
    node = Case("Add", ((3,), random((3,)))).node(13)
    folded = type(node)(**{**node.__dict__, "constants": {**node.constants, "x0": random((1, 3))}})
    with pytest.raises(UnsupportedOperatorError, match="does not depend on the network's input"):
        lower_nodes((folded,), "x", (3,), "y0")
