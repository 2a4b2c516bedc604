"""What is read of a model, the head that is taken off, real networks, and writing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxsub.errors import ModelError, OutputError
from onnxsub.files import atomic, write_atomic
from onnxsub.model import Model, load_model, save_model
from tests.model_tools import B, W, classifier, evaluate, linear, rng

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
