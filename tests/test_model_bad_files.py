"""Files that are no model, damaged ones, and models that are no classifier with one float input: one line each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import ModelError, OutputError
from onnxsub.lower import lower
from onnxsub.model import load_model, save_model
from onnxsub.runtime import Runtime
from tests.model_tools import B, Dims, F, W, classifier, external, linear, refused, rng


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


def test_constants_that_are_no_inputs_before_ir_version_4() -> None:
    """Quantisers and simplifiers add them to old files; onnxruntime runs these."""
    proto = linear()
    proto.ir_version = 3
    assert load_model(proto).outputs == 3
    assert Runtime(load_model(proto)).logits(np.zeros((1, 6), np.float32)).shape == (1, 3)
    proto.graph.node[0].input[1] = "nowhere"
    refused(proto, "not valid ONNX", "nowhere")


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
    """One number of all, which a list multiplies: it was refused for a batch axis that the file does not have."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=1), helper.make_node("Mul", ["s", "W"], ["y"])]
    x = np.arange(6.0) / 7
    with torch.no_grad():
        found = lower(load_model(classifier(nodes, {"W": W[0]}, x=[6], y=[3]))).forward(torch.as_tensor(x)[None]).numpy()
    np.testing.assert_allclose(found, [x.sum() * W[0].astype(np.float64)])


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
