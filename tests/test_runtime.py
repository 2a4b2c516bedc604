from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.errors import InputError, MissingDependencyError, ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.runtime import Runtime, check_onnxruntime

F = TensorProto.FLOAT
W = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
X = np.random.default_rng(4).normal(size=(5, 6)).astype(np.float32)


def classifier(nodes: list[Any], batch: int | str = "N", kind: int = F, **weights: Any) -> ModelProto:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {"W": W.astype(dtype), **weights}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["z"]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, [batch, 6])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    graph.output[0].type.tensor_type.elem_type = kind
    for length in (None, 3):
        dim = graph.output[0].type.tensor_type.shape.dim.add()
        if length:
            dim.dim_value = length
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def relu(**kwargs: Any) -> ModelProto:
    return classifier([helper.make_node("Relu", ["z"], ["y"])], **kwargs)


def softmax() -> ModelProto:
    return classifier([helper.make_node("Softmax", ["z"], ["p"]), helper.make_node("Identity", ["p"], ["y"])])


def expected(x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    return np.maximum(x @ W, 0)


@pytest.mark.parametrize("batch", [1, "N"])
@pytest.mark.parametrize("threads", [None, 2])
def test_logits(batch: int | str, threads: int | None) -> None:
    runtime = Runtime(relu(batch=batch), threads)
    y = runtime.logits(X)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(runtime.logits(X[:1]), runtime.logits(X, one_by_one=True)[:1])
    np.testing.assert_array_equal(runtime.raw(X), y)


def test_sources(tmp_path: Path) -> None:
    proto = relu()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    for source in (proto, proto.SerializeToString(), path, str(path), load_model(path)):
        np.testing.assert_allclose(Runtime(source).logits(X), expected(), rtol=1e-5, atol=1e-6)


def test_softmax_is_in_raw_and_not_in_logits() -> None:
    runtime = Runtime(softmax())
    logits, raw = runtime.logits(X), runtime.raw(X)
    np.testing.assert_allclose(logits, X @ W, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(raw.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), raw, rtol=1e-5)


def test_input_is_cast() -> None:
    np.testing.assert_array_equal(Runtime(relu()).logits(X.astype(np.float64)), Runtime(relu()).logits(X))
    double = Runtime(relu(kind=TensorProto.DOUBLE))
    assert double.logits(X).dtype == np.float64
    half = Runtime(relu(kind=TensorProto.FLOAT16)).logits(X)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, expected(), atol=0.05)


def test_many_rows() -> None:
    x = np.random.default_rng(5).normal(size=(2500, 6)).astype(np.float32)
    np.testing.assert_allclose(Runtime(relu()).logits(x), expected(x), rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_written_into_the_graph_is_run_row_by_row() -> None:
    proto = classifier([helper.make_node("Reshape", ["z", "shape"], ["y"])], shape=np.array([1, 3]))
    np.testing.assert_allclose(Runtime(proto).logits(X), X @ W, rtol=1e-5, atol=1e-6)


def test_rows_that_are_mixed_together_are_run_row_by_row() -> None:
    """What a row gives is what the file gives for this row alone."""
    nodes = [helper.make_node("ReduceMean", ["z"], ["m"], axes=[0]), helper.make_node("Add", ["z", "m"], ["y"])]
    np.testing.assert_allclose(Runtime(classifier(nodes)).logits(X), 2 * (X @ W), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 6, 1), (), (0, 6)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"the given model (takes rows of shape \(N, 6\)|was given an array without rows)"):
        Runtime(relu()).logits(np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", ["two quantisers", "float weights"])
def test_optimisers_that_change_the_function_are_off(kind: str) -> None:
    def steps(x: str, y: str, step: str, zero: str) -> list[Any]:
        return [
            helper.make_node("QuantizeLinear", [x, step, zero], [f"{y}:stored"]),
            helper.make_node("DequantizeLinear", [f"{y}:stored", step, zero], [y]),
        ]

    values = {"s": np.float32(0.02), "t": np.float32(0.03), "n": np.uint8(10), "o": np.uint8(100)}
    if kind == "two quantisers":
        nodes = [*steps("z", "a", "s", "n"), *steps("a", "b", "t", "o"), helper.make_node("Neg", ["b"], ["y"])]
    else:
        nodes = [*steps("z", "a", "s", "n"), helper.make_node("MatMul", ["a", "V"], ["h"]), *steps("h", "y", "t", "o")]
    weight = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    proto = classifier(nodes, V=weight, **values)
    model = load_model(proto)
    want = lower(model).forward(torch.as_tensor(X.astype(np.float64))).numpy()
    assert np.abs(Runtime(model).logits(X) - want).max() < 1e-6


def test_wrong_threads() -> None:
    with pytest.raises(InputError, match="at least 1"):
        Runtime(relu(), 0)


def test_what_onnxruntime_does_not_accept_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    proto = relu()
    proto.graph.node[1].domain = "com.example"
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(
        ModelError, match=r"the given model: onnxruntime .* does not accept it .*com\.example.*; export it"
    ) as caught:
        Runtime(proto)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_real_networks(data_dir: Path, net_path: Callable[[str], Path]) -> None:
    with np.load(data_dir / "data" / "mnist.npz", allow_pickle=False) as archive:
        images = archive["x_test"][:20].astype(np.float32) / 255
        labels = archive["y_test"][:20]
    for name in ("wk17a", "mnist2x10", "cnn_max_mninst2", "mnist-net_256x2"):
        runtime = Runtime(net_path(name))
        x = images.reshape(-1, *runtime.model.input_shape)
        y = runtime.logits(x)
        assert (y.argmax(1) == labels).mean() >= 0.9
        session = onnxruntime.InferenceSession(net_path(name), providers=["CPUExecutionProvider"])
        for i in range(3):
            (row,) = session.run(None, {runtime.model.input: x[i : i + 1]})
            np.testing.assert_allclose(y[i : i + 1], row, rtol=1e-5, atol=1e-5)


# --- which onnxruntime is installed


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    true = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if not name.startswith("onnxruntime"):
            return true(name)
        if name in names:
            return true("onnx")
        raise importlib.metadata.PackageNotFoundError(name)

    spec = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "onnxruntime" and not names else spec(name, package)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_one_onnxruntime_is_fine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    installed(monkeypatch, name)
    check_onnxruntime()


def test_no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(MissingDependencyError, match=r'pip install "onnxsub\[cpu\]"'):
        Runtime(relu())


def test_both_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(MissingDependencyError, match="pip uninstall -y onnxruntime onnxruntime-gpu") as caught:
        Runtime(relu())
    assert isinstance(caught.value, ImportError)
    assert "\n" not in str(caught.value)
