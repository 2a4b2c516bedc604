"""One question: what is checked about model, anchor and label, and what the network behind it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

import onnxsub
from onnxsub.anchors import fit_shape
from onnxsub.errors import InputError, ModelError
from onnxsub.model import load_model
from onnxsub.query import Query, make_query, two_classes, worst_margin
from onnxsub.region import InputSpace
from onnxsub.results import dumps, jsonable
from tests.handmade import Net, run


def small(dtype: Any = np.float32, classes: int = 3, source: str = "x", hidden: str = "r") -> ModelProto:
    n = Net(4, dtype=dtype, source=source)
    return n.model(n.gemm(n.named("Relu", [n.gemm(source, 4, 6)], hidden), 6, classes, "y"), classes)


def network_of(query: Query, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return query.network.forward(torch.tensor(x, dtype=torch.float64)).numpy()


# --- the anchor


@pytest.mark.parametrize(
    ("x0", "message"),
    [
        (np.zeros(5), r"the anchor has shape \[5\], the model wants \[4\]; reshape it"),
        (np.zeros((2, 4)), r"has shape \[2, 4\]"),
        (np.zeros((0, 4)), r"has shape \[0, 4\]"),
        (np.array([{}] * 4, dtype=object), "the anchor holds object values; give floats"),
        (np.zeros(4, complex), "the anchor holds complex128 values; give floats"),
        (["a", "b", "c", "d"], "the anchor holds <U1 values; give floats"),
        (np.zeros(4, bool), "the anchor holds bool values; give floats"),
        ([[1.0, 2.0], [3.0]], "the anchor is no array .*; give a NumPy array of floats"),
        (torch.zeros(4, requires_grad=True), "the anchor is no array .*; give a NumPy array of floats"),
        (None, "the anchor holds object values"),
        ([0.1, np.nan, 0.1, 0.1], r"contains NaN or infinite values \(1 of 4\)"),
        ([0.1, np.inf, 0.1, -np.inf], r"contains NaN or infinite values \(2 of 4\)"),
        (np.full(4, 200), r"values in \[200, 200\], outside the domain \[0, 1\]; scale it, or say"),
        (np.full(4, 1e300), "outside the domain"),
        (np.full(4, -0.01), "outside the domain"),
    ],
)
def test_anchors_that_are_refused(x0: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as info:
        make_query(load_model(small()), x0)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, np.longdouble])
def test_every_real_type_serves(dtype: Any) -> None:
    query = make_query(load_model(small()), np.array([[0, 1, 1, 0]], dtype=dtype))
    assert query.x0.dtype == np.float32
    np.testing.assert_array_equal(query.x0, [0, 1, 1, 0])


def test_the_anchor_cannot_be_written_and_is_a_copy() -> None:
    x0 = np.full(4, 0.5, np.float32)
    query = make_query(load_model(small()), x0)
    with pytest.raises(ValueError, match="read-only"):
        query.x0[0] = 1
    x0[0] = 0.1
    assert query.x0[0] == 0.5
    assert query.anchor_sha256 == hashlib.sha256(np.full(4, 0.5, "<f4").tobytes()).hexdigest()


def test_the_anchor_lies_in_the_domain_in_float64_too() -> None:
    space = InputSpace(0.7, 1.3)
    query = make_query(load_model(small()), np.full(4, 0.7), space=space)
    assert (query.x0.astype(np.float64) >= 0.7).all()
    for eps in (0.0, 1e-12, 5.0):
        low, high = space.ball(query.x0, eps)
        assert (low <= query.x0).all()
        assert (query.x0 <= high).all()


# --- the label


@pytest.mark.parametrize("label", [-1, 3, 10**20])
def test_labels_out_of_range(label: int) -> None:
    with pytest.raises(InputError, match=rf"--label {label} is out of range: the model has 3 classes \(0 to 2\)"):
        make_query(load_model(small()), np.full(4, 0.5), label)


@pytest.mark.parametrize("label", [1.5, "1", True])
def test_labels_that_are_no_number_of_a_class(label: Any) -> None:
    with pytest.raises(InputError, match=r"--label .* is not a class; give its number \(0 to 2\)"):
        make_query(load_model(small()), np.full(4, 0.5), label)


def test_label_and_prediction() -> None:
    model = load_model(small())
    query = make_query(model, np.full(4, 0.5))
    assert query.label == query.predicted == int(query.logits(query.x0[None]).argmax())
    assert not query.misclassified
    assert sorted((*query.targets, query.label)) == [0, 1, 2]
    other = make_query(model, np.full(4, 0.5), np.int64((query.label + 1) % 3))
    assert other.misclassified
    assert type(other.label) is int
    head = json.loads(json.dumps(other.json_head()))
    assert head["anchor"] == {"sha256": query.anchor_sha256, "label": other.label, "predicted": query.label, "target": None}
    assert head["model"]["path"] is None


def test_worst_margin_and_ties() -> None:
    margin, target = worst_margin(np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0]], np.float32), 1)
    np.testing.assert_array_equal(margin, [-1.0, 0.0])
    np.testing.assert_array_equal(target, [2, 0])
    np.testing.assert_array_equal(two_classes(np.array([[3.0], [-1.0]])), [[0, 3], [0, -1]])


# --- the network


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_network_is_the_file(dtype: Any) -> None:
    proto = small(dtype)
    query = make_query(load_model(proto), np.full(4, 0.5))
    x = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    np.testing.assert_allclose(network_of(query, x), run(proto, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(query.logits(x), run(proto, x), rtol=1e-6)


def test_a_single_logit_is_two_classes() -> None:
    proto = small(classes=1)
    query = make_query(load_model(proto), np.full(4, 0.5))
    assert query.classes == 2
    z = float(run(proto, query.x0[None])[0, 0])
    assert query.predicted == int(z > 0)
    np.testing.assert_allclose(network_of(query, query.x0[None]), [[0, z]], rtol=1e-5, atol=1e-6)
    margin, _ = query.margins(query.x0[None])
    np.testing.assert_allclose(margin, [-abs(z)], rtol=1e-5)


@pytest.mark.parametrize("tail", ["Relu", "Add", "Sigmoid"])
def test_a_single_logit_without_a_class_axis(tail: str) -> None:
    n = Net(4)
    y = n.node("Squeeze", [n.gemm("x", 4, 1), n.weight([1], np.int64)])
    proto = n.model(n.node(tail, [y, n.weight(0.2)] if tail == "Add" else [y]))
    query = make_query(load_model(proto), np.full(4, 0.5))
    x = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    expected = run(proto, x)[:, 0]
    if tail == "Sigmoid":  # left out: the boundary 0.5 is logit 0
        expected = np.log(expected / (1 - expected))
    np.testing.assert_allclose(network_of(query, x)[:, 1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(query.logits(x)[:, 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_normalisation_stands_in_front(last: bool) -> None:
    n = Net(2, 3, 5)
    if last:
        n.shape = (3, 5, 2)
    proto = n.model(n.gemm(n.node("Flatten", [n.node("Relu", ["x"])]), 30, 3), 3)
    mean, std = (0.2, 0.7), (0.5, 0.25)
    query = make_query(load_model(proto), np.full(n.shape, 0.5), space=InputSpace(0, 1, mean, std))
    x = np.random.default_rng(0).random((6, *n.shape)).astype(np.float32)
    where = (2,) if last else (2, 1, 1)
    fed = (x - np.reshape(mean, where)) / np.reshape(std, where)
    np.testing.assert_allclose(query.logits(x), run(proto, fed), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(network_of(query, x), run(proto, fed), rtol=1e-5, atol=1e-5)


def test_names_of_the_parts_added_never_collide() -> None:
    n = Net(4, source="onnxsub:input")
    r = n.named("Relu", [n.gemm("onnxsub:input", 4, 4)], "onnxsub:flat")
    proto = n.model(n.gemm(r, 4, 1, "onnxsub:logits"), 1)
    query = make_query(load_model(proto), np.full(4, 0.5), space=InputSpace(0, 1, (0.1,), (0.5,)))
    x = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    np.testing.assert_allclose(network_of(query, x)[:, 1], run(proto, (x - 0.1) / 0.5)[:, 0], rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_means() -> None:
    with pytest.raises(InputError, match=r"--mean has 3 values, the model's input \[4\] has 4 channels"):
        make_query(load_model(small()), np.full(4, 0.5), space=InputSpace(0, 1, (0.1, 0.2, 0.3), (1.0,)))


def test_logits_that_are_not_finite() -> None:
    n = Net(4)
    y = n.gemm(n.node("Mul", ["x", n.weight(np.full(4, 3e38))]), 4, 3)
    with pytest.raises((InputError, ModelError), match="not finite"):
        make_query(load_model(n.model(y, 3)), np.full(4, 1.0), space=InputSpace(0, 10, (0.0,), (1e-3,)))


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("convSmallRELU__Point", (0.1307,), (0.3081,)),
        ("cifar_base_kw", (0.485, 0.456, 0.406), (0.225,)),
        ("mnist_conv_maxpool", (0.5,), (1.0,)),
        ("mnist_relu_3_50", None, None),
        ("mnist-net_256x2", None, None),
        ("cnn_max_mninst2", None, None),
    ],
)
def test_real_networks(
    net_path: Callable[[str], Path], data_dir: Path, name: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> None:
    model = load_model(net_path(name))
    file = "mnist.npz" if np.prod(model.input_shape) == 784 else "cifar10.npz"
    with np.load(data_dir / "data" / file) as images:
        pixels, labels = images["x_test"][:8], images["y_test"][:8]
    rows = np.stack([fit_shape(p / 255, model.input_shape, "image") for p in pixels]).astype(np.float32)
    query = make_query(model, rows[0], space=InputSpace(0, 1, mean, std))
    logits = query.logits(rows)
    np.testing.assert_allclose(network_of(query, rows), logits, atol=1e-4 * (1 + np.abs(logits).max()))
    assert (logits.argmax(1) == labels).sum() >= (7 if file == "mnist.npz" else 4)  # accuracy 98 and 61 %: the right normalisation


# --- JSON


def test_json_is_plain() -> None:
    class Result:
        def to_json(self) -> dict[str, Any]:
            numbers = (np.inf, float("nan"), np.float32(0.5), np.int64(3), np.bool_(True))
            return {"a": np.arange(3), 4: numbers, "n": {"x": None, "y": np.array([np.inf])}}

    text = dumps(Result())
    assert json.loads(text) == {"a": [0, 1, 2], "4": [None, None, 0.5, 3, True], "n": {"x": None, "y": [None]}}
    assert jsonable("s") == "s"


@pytest.mark.parametrize("scale", [1.0, 1e8])
def test_a_file_that_onnxruntime_runs_otherwise_is_refused(scale: float, tmp_path: Path) -> None:
    """Its optimiser leaves a Transpose out before a product with a vector; what cancels in float32 is no such difference."""
    rng, make, number = np.random.default_rng(0), helper.make_node, numpy_helper.from_array
    w, v = rng.normal(size=4).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    turned = scale == 1.0
    nodes = [make("Reshape", ["x", "square"], ["q"]), make("Transpose", ["q"], ["t"], perm=[1, 0] if turned else [0, 1])]
    nodes += [make("MatMul", ["t", "w"], ["a"]), make("Add", ["a", "c"], ["b"]), make("Sub", ["b", "c"], ["d"])]
    nodes += [make("Relu", ["d"], ["r"]), make("Reshape", ["r", "row"], ["f"]), make("MatMul", ["f", "v"], ["y"])]
    weights = [number(w, "w"), number(v, "v"), number(np.array(0.0 if turned else scale, dtype=np.float32), "c")]
    weights += [number(np.array(s), name) for name, s in (("square", [4, 4]), ("row", [1, 4]))]
    ends = [helper.make_tensor_value_info(name, 1, [1, n]) for name, n in (("x", 16), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x0 = rng.random(16).astype(np.float32)
    if turned:
        with pytest.raises(ModelError, match="another network than the file states"):
            make_query(load_model(proto), x0)
        words = [f"(declare-const {n}_{i} Real)" for n, k in (("X", 16), ("Y", 3)) for i in range(k)]
        words += [f"(assert (>= X_{i} {x}))(assert (<= X_{i} {x + 0.1}))" for i, x in enumerate(x0.tolist())]
        (tmp_path / "p.vnnlib").write_text("\n".join([*words, "(assert (<= Y_0 Y_1))"]))
        with pytest.raises(ModelError, match="middle of the first box"):
            onnxsub.verify(proto, property=tmp_path / "p.vnnlib", timeout=20)
    else:
        query = make_query(load_model(proto), x0)
        assert np.abs(query.logits(x0[None]) - query.network.forward(torch.from_numpy(x0[None].astype(float))).numpy()).max() > 0.1
