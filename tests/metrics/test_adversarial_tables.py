"""Tables over pairs whose figures are known, and examples of one model tried on another."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import InputError
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor, Pair
from onnxsub.metrics.adversarial_pairs import Found, Pairs
from onnxsub.metrics.adversarial_result import AdversarialResult, examples_npz, side_by_side
from onnxsub.metrics.tables import confusion, count_by, spread, success_by, try_examples
from onnxsub.region import InputSpace
from onnxsub.report.pairs_tables import spread_table
from onnxsub.results import dumps


def pair(sample: int, label: int, target: int, verdict: str, predicted: int = 0, upper: float = -1.0) -> Pair:
    return Pair("net", sample, label, target, "exact", verdict, upper - 0.25, upper, predicted, 0.1, 3, 1, 0.5)


def bundle(found: list[tuple[Pair, list[float]]], path: str = "net.onnx", name: str = "net") -> Pairs:
    made = tuple(Found(p, np.array(x, dtype=np.float32)) for p, x in found)
    return Pairs(name, path, "0" * 64, 3, made, len(made), (), {p.sample: p.label for p, _ in found}, False)


PAIRS = [
    pair(0, 0, 1, "example", 1, -2.0), pair(0, 0, 2, "none", 0, 1.0), pair(1, 0, 1, "example", 2, -1.0),
    pair(1, 0, 2, "tie", 0, 0.0), pair(2, 2, 1, "undecided", 2, 0.5), pair(2, 2, 0, "example", 0, -0.5),
]  # fmt: skip


def test_counts_by_source_and_target() -> None:
    assert count_by(PAIRS, "label") == {
        0: {"example": 2, "tie": 1, "none": 1, "undecided": 0}, 2: {"example": 1, "tie": 0, "none": 0, "undecided": 1},
    }  # fmt: skip
    by_target = count_by(PAIRS, "target")
    assert by_target[1] == {"example": 2, "tie": 0, "none": 0, "undecided": 1}
    assert sum(sum(row.values()) for row in by_target.values()) == len(PAIRS)


def test_confusion_counts_examples_only() -> None:
    c = confusion(PAIRS, 3)
    assert c.targeted == ((0, 2, 0), (0, 0, 0), (1, 0, 0))
    # the second example aims at class 1, but the model sees class 2
    assert c.predicted == ((0, 1, 1), (0, 0, 0), (1, 0, 0))
    assert c.triples == {(0, 1, 1): 1, (0, 1, 2): 1, (2, 0, 0): 1}
    assert sum(map(sum, c.predicted)) == sum(map(sum, c.targeted)) == 3


def test_spread() -> None:
    s = spread([3.0, 1.0, 2.0, 6.0])
    assert (s.count, s.least, s.median, s.mean, s.most) == (4, 1.0, 2.5, 3.0, 6.0)
    assert s.deviation == pytest.approx(np.std([3, 1, 2, 6], ddof=1))
    assert (s.lower, s.upper) == tuple(np.quantile([3, 1, 2, 6], (0.25, 0.75)))
    assert spread([2.0]).deviation == 0.0
    assert (spread([2.0]).lower, spread([2.0]).upper) == (2.0, 2.0)
    assert spread([]).count == 0
    assert math.isnan(spread([]).mean)


def test_successful_and_unsuccessful_side_by_side() -> None:
    pairs = bundle([(p, [0.0, 0.0]) for p in PAIRS])
    sides = {k: [p.upper for p in v] for k, v in side_by_side(pairs).items()}
    assert sides == {"successful": [-2.0, -1.0, -0.5], "unsuccessful": [1.0, 0.0, 0.5]}
    success = success_by(PAIRS, "target")[1]
    assert success.to_json() == {"examples": 2, "pairs": 3, "rate": pytest.approx(2 / 3), "possible": 1.0}
    result = AdversarialResult(pairs, None, (), AdversarialOptions(0.1), {}, {"total": 0.0})
    d = json.loads(dumps(result))
    assert d["statistics"]["successful"]["objective"]["median"] == -1.0
    assert d["statistics"]["unsuccessful"]["objective"]["q3"] == 0.75
    assert d["statistics"]["unsuccessful"]["seconds"]["count"] == 3
    assert d["success"]["by_source"]["0"] == {"examples": 2, "pairs": 4, "rate": 0.5, "possible": 0.5}
    table = spread_table("net", d)
    figures = [f"{what}, {side}" for what in ("f_y - f_t", "time, s") for side in ("successful", "unsuccessful")]
    assert [line[:2] for line in table.cells] == [(figure, "3") for figure in figures]
    old = {k: v for k, v in d.items() if k not in ("statistics", "success")}
    old["objective"] = {name: {k: v for k, v in part.items() if k[0] != "q"} for name, part in d["objective"].items()}
    assert [line[0] for line in spread_table("net", old).cells] == ["f_y - f_t, all pairs", "f_y - f_t, examples", "time, s"]


def chooser(folder: Path, name: str, weight: list[list[float]]) -> str:
    """A model of two inputs whose logits are `W x`."""
    w = np.array(weight, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", len(w)])], [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def test_examples_are_tried_on_another_model(tmp_path: Path) -> None:
    # logits (x0, x1, 0): class 0 where x0 > x1
    path = chooser(tmp_path, "other", [[1, 0], [0, 1], [0, 0]])
    source = bundle([
        (pair(0, 0, 1, "example", 1), [0.25, 0.75]),  # fools it, with its target
        (pair(1, 0, 2, "example", 2), [0.25, 0.5]),  # fools it, with another class
        (pair(2, 0, 1, "example", 1), [0.75, 0.5]),  # does not
        (pair(3, 0, 1, "example", 1), [0.5, 0.75]),  # its anchor is wrong to begin with
        (pair(4, 0, 1, "tie", 0), [0.0, 1.0]),  # no example
    ])  # fmt: skip
    right, wrong = np.array([0.9, 0.1], dtype=np.float32), np.array([0.1, 0.9], dtype=np.float32)
    anchors = [Anchor(i, wrong if i == 3 else right, 0) for i in range(5)]
    t = try_examples(source, path, anchors, InputSpace(), "other")
    assert (t.examples, t.fooled, t.to_target, t.beyond, t.right, t.fooled_right) == (4, 3, 2, 2, 3, 2)
    assert t.rate == pytest.approx(2 / 3)
    nothing = try_examples(bundle([(PAIRS[1], [0.0, 0.0])]), path, anchors, InputSpace(), "other")
    assert nothing.examples == 0
    assert math.isnan(nothing.rate)
    with pytest.raises(InputError, match=r"--transfer other: .*same images"):
        try_examples(bundle([(PAIRS[0], [0.0, 0.0, 0.0])]), path, anchors, InputSpace(), "other")
    two = chooser(tmp_path, "two", [[1, 0], [0, 1]])
    with pytest.raises(InputError, match="two has 2; give two models of the same classes"):
        try_examples(source, two, anchors, InputSpace(), "two")


def test_the_document_and_the_file_of_examples() -> None:
    found = bundle([(p, [float(p.sample), float(p.target)]) for p in PAIRS])
    result = AdversarialResult(found, None, (), AdversarialOptions(0.1), {"source": "data"}, {"total": 1.0})
    document = json.loads(dumps(result))
    assert document["schema"] == "onnxsub.adversarial/1"
    assert document["pairs"] == {"planned": 6, "done": 6, "example": 3, "tie": 1, "none": 1, "undecided": 1}
    assert document["objective"]["examples"]["min"] == -2.0
    assert document["objective"]["all"]["count"] == 6
    assert document["transfer"] is None
    assert {"label": 0, "target": 1, "predicted": 2, "examples": 1} in document["confusion"]["examples"]
    assert len(document["results"]) == 6
    with np.load(io.BytesIO(examples_npz((found, found)))) as arrays:
        assert arrays["x"].tolist() == [[0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]
        assert arrays["target"].tolist() == [1, 1, 0]
        assert arrays["objective"].tolist() == [-2.0, -1.0, -0.5]
        assert arrays["tie_sample"].tolist() == [1]
        assert np.array_equal(arrays["other_x"], arrays["x"])
    with np.load(io.BytesIO(examples_npz((bundle([(PAIRS[1], [0.0, 0.0])]),)))) as arrays:
        assert len(arrays["x"]) == len(arrays["label"]) == 0
