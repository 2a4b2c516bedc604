from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxsub.errors import ModelError, OutputError, UnsupportedOperatorError
from onnxsub.files import atomic, write_atomic
from onnxsub.model import Model, load_model, save_model

F = TensorProto.FLOAT
Dims = list[int | str | None]


def classifier(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, Any] | None = None,
    x: Dims | None = None,
    y: Dims | None = None,
    opset: int = 13,
    ir: int = 8,
    kind: int = F,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model from input `x` (default (N, 6)) to output `y` (default (N, 3))."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 6] if x is None else x)],
        [helper.make_tensor_value_info("y", kind, ["N", 3] if y is None else y)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


W = rng().normal(size=(6, 3)).astype(np.float32)
B = rng().normal(size=3).astype(np.float32)


def linear(**changes: Any) -> ModelProto:
    return classifier([helper.make_node("Gemm", ["x", "W", "b"], ["y"])], {"W": W, "b": B}, **changes)


def evaluate(model: Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The prepared nodes, rebuilt as a graph and run by ONNX's reference implementation on one sample."""
    nodes = []
    constants: dict[str, Any] = {}
    for n in model.nodes:
        nodes.append(helper.make_node(n.op_type, list(n.inputs), list(n.outputs), **n.attributes))
        constants |= n.constants
    graph = helper.make_graph(
        nodes,
        "rebuilt",
        [helper.make_tensor_value_info(model.input, F, [1, *model.input_shape])],
        [helper.make_tensor_value_info(model.output, F, [1, *model.output_shape])],
        [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)], ir_version=8)
    (y,) = ReferenceEvaluator(proto).run(None, {model.input: x[None].astype(model.input_dtype)})
    return np.asarray(y)


def refused(source: Any, *words: str, error: type[Exception] = ModelError) -> str:
    """The message of the refusal, after a check that it is one line that holds `words` and says what to do."""
    with pytest.raises(error) as caught:
        load_model(source)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message, f"says what is wrong but not what to do: {message}"
    for word in words:
        assert word in message, message
    return message


# --- what is read


def test_a_plain_classifier() -> None:
    proto = linear()
    model = load_model(proto)
    assert (model.input, model.input_shape, model.input_dtype) == ("x", (6,), np.float32)
    assert (model.output, model.output_shape, model.outputs, model.raw_output) == ("y", (3,), 3, "y")
    assert not model.batch_fixed
    assert not model.stripped
    assert (model.opset, model.notes, model.path) == (13, (), None)
    (node,) = model.nodes
    assert (node.op_type, node.name, node.variables) == ("Gemm", "y", ("x",))
    assert node.shapes == {"x": (1, 6), "W": (6, 3), "b": (3,), "y": (1, 3)}
    np.testing.assert_array_equal(node.constants["W"], W)
    assert not node.constants["W"].flags.writeable


def test_path_bytes_and_message_give_the_same(tmp_path: Path) -> None:
    proto = linear()
    helper.set_model_props(proto, {"origin": "here"})
    path = tmp_path / "m.onnx"
    save_model(proto, path)
    by_path, by_text, by_bytes, by_message = (
        load_model(path),
        load_model(str(path)),
        load_model(path.read_bytes()),
        load_model(proto),
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for model in (by_path, by_text, by_bytes, by_message):
        assert model.sha256 == digest
        assert model.source == proto
        assert model.metadata == {"origin": "here"}
    assert by_path.path == path
    assert by_bytes.path is None


def test_the_message_given_is_copied() -> None:
    proto = linear()
    model = load_model(proto)
    proto.graph.name = "changed"
    assert model.source.graph.name == "g"


@pytest.mark.parametrize(
    ("batch", "fixed"), [("N", False), ("", False), (None, False), (0, False), (-1, False), (1, True)], ids=str
)
def test_batch_axis(batch: int | str | None, fixed: bool) -> None:
    model = load_model(linear(x=[batch, 6], y=[batch, 3]))
    assert model.batch_fixed is fixed
    assert model.input_shape == (6,)


def test_initializers_listed_as_inputs_are_none() -> None:
    proto = linear(ir=3, opset=9)
    for t in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    assert load_model(proto).input == "x"


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_float_types(kind: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    node = helper.make_node("Gemm", ["x", "W", "b"], ["y"])
    model = load_model(classifier([node], {"W": W.astype(dtype), "b": B.astype(dtype)}, kind=kind))
    assert model.input_dtype == dtype
    assert model.nodes[0].constants["W"].dtype == dtype


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_opset(opset: int) -> None:
    nodes = [helper.make_node("Gemm", ["x", "W", "b"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    model = load_model(classifier(nodes, {"W": W, "b": B}, opset=opset))
    assert model.opset == opset
    assert [n.opset for n in model.nodes] == [opset, opset]


def test_attributes_are_decoded() -> None:
    weight = rng().normal(size=(2, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", group=1),
        helper.make_node("LeakyRelu", ["c"], ["l"], alpha=0.25),
        helper.make_node("GlobalAveragePool", ["l"], ["y"]),
    ]
    model = load_model(classifier(nodes, {"w": weight}, x=["N", 1, 5, 5], y=["N", 2, 1, 1]))
    assert model.nodes[0].attributes == {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "group": 1}
    assert model.nodes[1].attributes == {"alpha": 0.25}
    assert (model.output_shape, model.outputs) == ((2, 1, 1), 2)


def test_import_is_light() -> None:
    code = (
        "import sys, onnxsub.model; print([m for m in ('torch', 'onnxruntime', 'onnx_graphsurgeon', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- constants


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
    nodes = [helper.make_node("Softmax", ["b"], ["p"], axis=0), helper.make_node("Gemm", ["x", "W", "p"], ["y"])]
    assert [n.op_type for n in load_model(classifier(nodes, {"W": W, "b": B}, opset=11)).nodes] == ["Softmax", "Gemm"]


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


# --- the head


def head(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (3,), opset: int = 13) -> Model:
    first = [helper.make_node("Gemm", ["x", "W", "b"], ["z"]), helper.make_node("Reshape", ["z", "shape"], ["logits"])]
    classes = int(np.prod(shape))
    weights = {"W": W[:, :classes], "b": B[:classes], "shape": np.array([1, *shape]), "axis1": np.array([1])}
    return load_model(classifier([*first, *nodes], weights, y=[None] * (len(shape) + 1), opset=opset))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [7, 12, 13, 26])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_softmax_is_left_out(op: str, opset: int, axis: int | None) -> None:
    model = head(helper.make_node(op, ["logits"], ["y"], **({} if axis is None else {"axis": axis})), opset=opset)
    assert (model.output, model.raw_output, model.stripped) == ("logits", "y", True)
    assert [n.op_type for n in model.nodes] == ["Gemm", "Reshape"]
    (note,) = model.notes
    assert op in note


@pytest.mark.parametrize(
    ("shape", "axis", "opset", "whole"),
    [
        ((3, 1, 1), 1, 13, True),
        ((3, 1, 1), 1, 9, True),
        ((3, 1, 1), -1, 13, False),
        ((3, 1, 1), 2, 9, False),
        ((1, 3), 0, 9, True),
        ((1, 3), 1, 9, True),
        ((1, 3), 2, 9, True),
        ((1, 3), 1, 13, False),
        ((3,), 0, 13, False),
    ],
)
def test_softmax_is_left_out_only_over_all_classes(shape: tuple[int, ...], axis: int, opset: int, whole: bool) -> None:
    model = head(helper.make_node("Softmax", ["logits"], ["y"], axis=axis), shape=shape, opset=opset)
    assert model.stripped is whole
    assert (model.nodes[-1].op_type == "Softmax") is not whole


def test_what_keeps_the_values_behind_a_softmax_goes_too() -> None:
    model = head(
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        helper.make_node("Identity", ["p"], ["i"]),
        helper.make_node("Flatten", ["i"], ["f"]),
        helper.make_node("Unsqueeze", ["f", "axis1"], ["u"]),
        helper.make_node("Squeeze", ["u", "axis1"], ["y"]),
        shape=(3, 1, 1),
    )
    assert (model.output, model.output_shape) == ("logits", (3, 1, 1))
    (note,) = model.notes
    assert "Identity, Flatten, Unsqueeze, Squeeze" in note


def test_two_heads_are_both_left_out() -> None:
    model = head(helper.make_node("Softmax", ["logits"], ["p"]), helper.make_node("LogSoftmax", ["p"], ["y"]))
    assert model.output == "logits"
    assert len(model.notes) == 2


def test_an_inner_softmax_stays() -> None:
    nodes = [helper.make_node("Softmax", ["logits"], ["p"]), helper.make_node("Neg", ["p"], ["y"])]
    assert [n.op_type for n in head(*nodes).nodes] == ["Gemm", "Reshape", "Softmax", "Neg"]


def test_a_single_logit() -> None:
    plain = head(helper.make_node("Identity", ["logits"], ["y"]), shape=(1,))
    assert plain.output == "y"
    assert "two classes" in plain.notes[0]
    sigmoid = head(helper.make_node("Sigmoid", ["logits"], ["y"]), shape=(1,))
    assert (sigmoid.output, sigmoid.outputs) == ("logits", 1)
    assert "0.5" in sigmoid.notes[0]
    assert "two classes" in sigmoid.notes[1]
    several = head(helper.make_node("Sigmoid", ["logits"], ["y"]))
    assert several.output == "logits"
    assert "the largest one is the class" in several.notes[0]
    with pytest.raises(ModelError, match="one class is constant"):
        head(helper.make_node("Softmax", ["logits"], ["y"]), shape=(1,))


# --- bad files


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.onnx", "none.onnx", "does not exist")
    refused(tmp_path / "x" / "none.onnx", "does not exist")


def test_folder(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "folder")


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.onnx")
    refused(tmp_path / "p.onnx", "not a regular file")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    save_model(linear(), path)

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)  # a superuser may read everything, so a file mode would not do
    refused(path, "m.onnx", "may not be read", "chmod")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x00\xff" * 100, "cut off or corrupt"),
        (b"hello, this is a text file, not a model\n", "export it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "export it again"),
        (b"PK\x03\x04" + bytes(50), "export it again"),
    ],
    ids=["empty", "noise", "text", "lfs", "png", "zip"],
)
def test_not_a_model(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    refused(path, "bad.onnx", words)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = linear().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "cut.onnx")


def test_damage_never_raises_anything_but_a_model_error() -> None:
    data = linear().SerializeToString()
    generator = rng()
    messages = []
    for _ in range(2000):
        damaged = bytearray(data)
        for place in generator.integers(0, len(data), 3):
            damaged[place] = generator.integers(0, 256)
        try:
            load_model(bytes(damaged))
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) > 1000
    assert not any("\n" in m for m in messages)


def test_invalid_graph() -> None:
    proto = linear()
    proto.graph.node[0].input[1] = "nowhere"
    refused(proto, "not valid ONNX", "nowhere")
    proto = linear()
    proto.graph.node[0].op_type = "Frobnicate"
    refused(proto, "not valid ONNX", "Frobnicate")


@pytest.mark.parametrize("opset", [1, 6, 27, 28])
def test_other_opsets(opset: int) -> None:
    refused(linear(opset=opset), f"opset {opset}", "7 to 26", "version_converter")


def test_no_opset() -> None:
    proto = linear()
    del proto.opset_import[:]
    refused(proto, "no default operator set")


def test_a_function_must_not_redefine_a_standard_operator() -> None:
    proto = linear()
    body = [helper.make_node("Neg", ["a"], ["c"])]
    proto.functions.append(helper.make_function("", "Gemm", ["a"], ["c"], body, [helper.make_opsetid("", 13)]))
    refused(proto, "redefines", "Gemm")


def test_more_than_protobuf_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: takes no room on the disk
    refused(path, "big.onnx", "2 GB")
    path = external(tmp_path)
    with (tmp_path / "weights.bin").open("ab") as file:
        file.truncate(2**31)
    refused(path, "weights.bin", "2 GB")
    monkeypatch.setattr("onnxsub.model_file.MAX_BYTES", 100)
    refused(linear(), "2 GB")
    with pytest.raises(OutputError, match=r"new\.onnx.*2 GB"):
        save_model(linear(), tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


# --- not a classifier with one float input


def test_more_than_one_input_or_output() -> None:
    proto = linear()
    proto.graph.input.append(helper.make_tensor_value_info("mask", F, [1]))
    refused(proto, "2 inputs", "'x', 'mask'")
    proto = linear()
    proto.graph.node.append(helper.make_node("Gemm", ["x", "W", "b"], ["y2"]))
    proto.graph.output.append(helper.make_tensor_value_info("y2", F, ["N", 3]))
    refused(proto, "2 outputs", "'y', 'y2'", "--output NAME")


def test_no_input() -> None:
    proto = linear()
    del proto.graph.input[:]
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 6), np.float32), "x"))
    refused(proto, "0 inputs")


@pytest.mark.parametrize("kind", [TensorProto.BOOL, TensorProto.STRING, TensorProto.BFLOAT16])
def test_input_that_is_no_number(kind: int) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=F), helper.make_node("Gemm", ["f", "W", "b"], ["y"])]
    proto = classifier(nodes, {"W": W, "b": B})
    proto.graph.input[0].type.tensor_type.elem_type = kind
    refused(proto, "input 'x'", "floats and whole numbers")


def test_output_that_is_not_float() -> None:
    proto = classifier([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)], y=["N", 6])
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    refused(proto, "output 'y'", "int64", "ArgMax")


def test_batch_written_into_the_graph() -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("Gemm", ["f", "W", "b"], ["y"])]
    refused(classifier(nodes, {"W": W, "b": B, "s": np.array([64, 6])}, x=["N", 2, 3]), "[1, 2, 3] into [64, 6]", "batch 1")


def test_open_axes() -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    message = refused(
        classifier(nodes, x=["N", 3, "height", None], y=["N", 3, 1, 1]), "'height', axis 3", "--input-shape"
    )
    assert "'N', 3, 'height'" in message
    refused(classifier(nodes, x=["N", 3, 0, 4], y=["N", 3, 1, 1]), "empty")


def test_no_batch_axis_before_an_operator_that_counts_axes() -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=1), helper.make_node("Mul", ["s", "W"], ["y"])]
    refused(classifier(nodes, {"W": W[0]}, x=[6], y=[3]), "no batch axis", "ReduceSum", "(1, ...)")


def test_no_shape() -> None:
    proto = linear()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ModelError, match="shape"):
        load_model(proto)


@pytest.mark.parametrize(("y", "nodes"), [
    (["N", 2, 3], [helper.make_node("Identity", ["x"], ["y"])]),
    ([3], [helper.make_node("ReduceSum", ["x", "a"], ["y"], keepdims=0)]),
], ids=["segmentation", "no-batch"])  # fmt: skip
def test_output_that_is_no_list_of_classes(y: Dims, nodes: list[onnx.NodeProto]) -> None:
    refused(classifier(nodes, {"a": np.array([0, 1])}, x=["N", 2, 3], y=y), "output 'y'")


def test_output_that_does_not_depend_on_the_input() -> None:
    refused(classifier([helper.make_node("Identity", ["c"], ["y"])], {"c": np.zeros((1, 3), np.float32)}), "no operator leads")


def test_shapes_that_do_not_fit() -> None:
    refused(classifier([helper.make_node("Gemm", ["x", "W"], ["y"], name="dense")], {"W": W[:4]}), "Gemm (node 'dense')", "[1, 6]")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    bad = W.copy()
    bad[2, 1] = value
    refused(classifier([helper.make_node("Gemm", ["x", "W"], ["y"], name="dense")], {"W": bad}), "'W'", "dense", "1 values")
    refused(classifier([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=value)], y=["N", 6]), "'alpha'")


def test_an_infinite_end_of_a_clip_is_fine_and_nan_is_not() -> None:
    node = helper.make_node("Clip", ["x", "lo", "hi"], ["y"])
    lo = np.array(0, np.float32)
    assert load_model(classifier([node], {"lo": lo, "hi": np.array(np.inf, np.float32)}, y=["N", 6])).outputs == 6
    refused(classifier([node], {"lo": lo, "hi": np.array(np.nan, np.float32)}, y=["N", 6]), "'hi'", "NaN")


def test_overflow_in_a_folded_constant() -> None:
    nodes = [helper.make_node("Div", ["W", "zero"], ["W0"]), helper.make_node("MatMul", ["x", "W0"], ["y"])]
    refused(classifier(nodes, {"W": W, "zero": np.array(0, np.float32)}), "'W0'", "infinite")


def test_a_constant_that_asks_for_all_memory() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Gemm", ["x", "W", "sum"], ["y"]),
    ]
    refused(classifier(nodes, {"W": W, "dims": np.array([2**20, 2**20])}), "ConstantOfShape", "too large")


def test_sparse_initializers() -> None:
    proto = classifier([helper.make_node("Gemm", ["x", "W"], ["y"])])
    values = numpy_helper.from_array(np.ones(2, np.float32), "W")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 5])), [6, 3]))
    refused(proto, "sparse")


def test_initializer_of_the_wrong_length() -> None:
    proto = linear()
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-4]
    refused(proto, "not valid ONNX", "W", "68 bytes")


# --- external data


def external(folder: Path, **changes: str) -> Path:
    """A model whose weights lie in weights.bin, with `changes` in the first tensor's entries."""
    path = folder / "m.onnx"
    proto = linear()
    onnx.save(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    if changes:
        proto = onnx.load(str(path), load_external_data=False)
        tensor = proto.graph.initializer[0]
        entries = {e.key: e.value for e in tensor.external_data} | changes
        del tensor.external_data[:]
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = load_model(path)
    np.testing.assert_array_equal(model.nodes[0].constants["W"], W)
    np.testing.assert_array_equal(model.nodes[0].constants["b"], B)
    assert not any(t.external_data or t.data_location for t in model.source.graph.initializer)
    blob = tmp_path / "weights.bin"
    expected = hashlib.sha256(path.read_bytes() + hashlib.sha256(blob.read_bytes()).digest()).hexdigest()
    assert model.sha256 == expected
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    assert load_model(path).sha256 != expected
    with pytest.raises(ModelError, match="give the path"):
        load_model(path.read_bytes())


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "sub/weights.bin", "..", ".", "", "a\\b", "C:w.bin", "w\0"])
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "inner").mkdir()
    path = external(tmp_path / "inner", location=location)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inner" / "weights.bin").read_bytes())
    refused(path, "m.onnx", "'W'", "save the model again")


def test_external_data_by_links(tmp_path: Path) -> None:
    path = external(tmp_path)
    blob, other = tmp_path / "weights.bin", tmp_path / "other.bin"
    blob.rename(other)
    blob.symlink_to(other)
    refused(path, "symbolic link", "weights.bin")
    blob.unlink()
    os.link(other, blob)
    refused(path, "hard link", "weights.bin")
    blob.unlink()
    blob.mkdir()
    refused(path, "weights.bin", "regular file")


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    blob = tmp_path / "weights.bin"
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    refused(path, "weights.bin", "cut off")
    blob.unlink()
    refused(path, "weights.bin", "missing", "beside the model")


@pytest.mark.parametrize(
    "changes", [{"offset": "-4"}, {"length": "4"}, {"offset": "x"}, {"length": "-1"}, {"offset": "99999999"}], ids=str
)
def test_external_data_with_bad_places(tmp_path: Path, changes: dict[str, str]) -> None:
    refused(external(tmp_path, **changes), "'W'", "weights.bin")


# --- real networks


def test_all_real_networks_load(data_dir: Path) -> None:
    paths = sorted((data_dir / "nets").glob("*.onnx"))
    assert len(paths) >= 33
    dynamic = set()
    for path in paths:
        model = load_model(path)
        assert model.outputs == 10
        assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert all({n for n in (*node.inputs, *node.outputs) if n} == set(node.shapes) for node in model.nodes)
        assert "Constant" not in {n.op_type for n in model.nodes}
        if not model.batch_fixed:
            dynamic.add(path.stem)
    assert dynamic == {"cifar10_small", "cnn_max_mninst2", "mnist2x10"}


@pytest.mark.parametrize("name", ["mnist2x10", "mnist_relu_3_50", "mnist_convtiny_norm", "mnist-net_256x2"])
def test_prepared_nodes_compute_the_same(net_path: Callable[[str], Path], name: str) -> None:
    model = load_model(net_path(name))
    x = rng().random(model.input_shape).astype(np.float32)
    (expected,) = ReferenceEvaluator(model.source).run(None, {model.input: x[None]})
    np.testing.assert_array_equal(evaluate(model, x), expected)


# --- writing


def test_save_model_round_trip(tmp_path: Path) -> None:
    proto = linear()
    save_model(proto, tmp_path / "m.onnx")
    assert onnx.load(str(tmp_path / "m.onnx")) == proto
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def test_save_model_refuses_what_is_not_valid(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.node[0].input[0] = "nowhere"
    with pytest.raises(ModelError, match="nowhere"):
        save_model(proto, tmp_path / "m.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == []


def test_write_to_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no folder .*; create it"):
        write_atomic(tmp_path / "none" / "m.onnx", b"x")
    with pytest.raises(OutputError, match="it is a folder"):
        write_atomic(tmp_path, b"x")


def test_write_to_a_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(OutputError, match=r"m\.onnx.*Permission denied; choose a folder that is writable"):
        write_atomic(tmp_path / "m.onnx", b"x")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("bug")], ids=str)
def test_nothing_is_left_half_written(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "m.bin"
    write_atomic(path, b"old")
    path.chmod(0o640)

    def interrupted() -> None:
        with atomic(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises((OutputError, KeyboardInterrupt, ValueError)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin"]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
