"""`onnxsub info`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxsub

Run = Callable[..., Any]


def save(path: Path, nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray[Any, Any]], domains: tuple[str, ...] = ()) -> None:
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 13), *[helper.make_opsetid(d, 1) for d in domains]]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())


def test_json_has_the_keys_of_the_contract(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("info", "digits.onnx", "--json")
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert document["schema"] == "onnxsub.info/1"
    assert document["model"] == {"path": "digits.onnx", "sha256": hashlib.sha256((digits / "digits.onnx").read_bytes()).hexdigest()}
    assert document["input"] == {"name": "image", "shape": [1, 8, 8], "dtype": "float32", "batch": "dynamic"}
    assert document["output"] == {"name": "logits", "logits": "logits", "classes": 10}
    assert document["operators"] == {"Conv": 2, "Flatten": 1, "Gemm": 2, "Relu": 3}
    assert [(a["name"], a["operator"], a["units"]) for a in document["activations"]] == [
        ("relu1", "Relu", 512), ("relu2", "Relu", 256), ("relu3", "Relu", 64),
    ]  # fmt: skip
    assert (document["units"], document["parameters"], document["opset"]) == (832, 18346, 13)
    assert document["unsupported"] == document["limits"] == document["notes"] == []
    assert document["time_s"]["total"] >= 0


def test_table(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("info", "digits.onnx")
    assert ran.code == 0
    assert ran.err == ""
    assert "operators   Conv 2, Flatten 1, Gemm 2, Relu 3" in ran.out
    assert "relu2           Relu  16x4x4    256" in ran.out


def test_an_unsupported_operator_is_listed_not_raised(tmp_path: Path, onnxsub: Run) -> None:
    w = np.ones((4, 3), np.float32)
    nodes = [
        helper.make_node("Cos", ["x"], ["e"], "cos"),
        helper.make_node("Relu", ["e"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "out"),
    ]
    save(tmp_path / "cos.onnx", nodes, {"w": w})
    ran = onnxsub("info", tmp_path / "cos.onnx", "--json")
    assert ran.code == 0
    (line,) = ran.json["unsupported"]
    assert "Cos" in line
    assert "'cos'" in line
    assert "opset 13" in line
    assert ran.json["units"] == 4
    assert "unsupported" in onnxsub("info", tmp_path / "cos.onnx").out


def test_what_stands_behind_an_unknown_operator_is_counted(tmp_path: Path, onnxsub: Run) -> None:
    w = np.ones((4, 3), np.float32)
    nodes = [
        helper.make_node("Mystery", ["x"], ["m"], "mystery", domain="com.example"),
        helper.make_node("Relu", ["m"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "out"),
    ]
    save(tmp_path / "mystery.onnx", nodes, {"w": w}, ("com.example",))
    ran = onnxsub("info", tmp_path / "mystery.onnx", "--json")
    assert ran.code == 0, ran.err
    assert any("Mystery" in line for line in ran.json["unsupported"])
    assert any("2 nodes behind" in line for line in ran.json["unsupported"]), ran.json["unsupported"]


def test_a_missing_meaning_is_a_limit(tmp_path: Path, onnxsub: Run) -> None:
    w = np.ones((4, 3), np.float32)
    nodes = [helper.make_node("Sigmoid", ["x"], ["h"], "smooth"), helper.make_node("MatMul", ["h", "w"], ["y"], "out")]
    save(tmp_path / "smooth.onnx", nodes, {"w": w})
    ran = onnxsub("info", tmp_path / "smooth.onnx", "--json")
    assert ran.json["unsupported"] == []
    (limit,) = ran.json["limits"]
    assert (limit["operator"], limit["node"], limit["meaning"]) == ("Sigmoid", "smooth", "milp")


def test_notes_of_the_reader_are_shown(tmp_path: Path, onnxsub: Run) -> None:
    w = np.ones((4, 3), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"], "out"), helper.make_node("Softmax", ["z"], ["y"], "head", axis=1)]
    save(tmp_path / "softmax.onnx", nodes, {"w": w})
    ran = onnxsub("info", tmp_path / "softmax.onnx", "--json")
    assert len(ran.json["notes"]) == 1
    assert "Softmax" in ran.json["notes"][0]
    assert ran.json["output"] == {"name": "y", "logits": "z", "classes": 3}


def test_python_api(digits: Path) -> None:
    result = onnxsub.info("digits.onnx")
    assert result.units == 832
    assert result.classes == 10
    assert onnxsub.info(onnxsub.load("digits.onnx")).to_json()["units"] == 832
