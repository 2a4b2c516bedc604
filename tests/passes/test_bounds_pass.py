"""The pass `bounds`: what it states per layer, at the edges of the radius, and soundness on graphs of every operator family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.bounds import BoundsOptions, bounds
from onnxsub.passes.fold import fold
from onnxsub.propagate import METHODS, compute_bounds, margin_bounds
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import random_model


def query_of(seed: int = 0, **kwargs: Any) -> Query:
    model = load_model(random_model(seed, **kwargs))
    return make_query(model, np.random.default_rng(seed).random(model.input_shape))


def inside(low: np.ndarray, high: np.ndarray, count: int = 150) -> torch.Tensor:
    rng = np.random.default_rng(0)
    shape = (count, *low.shape)
    return torch.as_tensor(np.concatenate([rng.uniform(low, high, shape), np.where(rng.random(shape) < 0.5, low, high)]))


@pytest.mark.parametrize("method", METHODS)
def test_layers_state_what_their_intervals_say(method: str) -> None:
    query = query_of(8, kind="conv")
    result = bounds(query, BoundsOptions(0.1, method, steps=3))
    low, high = query.space.ball(query.x0, 0.1)
    with torch.no_grad():
        values = query.network.values(inside(low, high))
    assert [layer.name for layer in result.layers] == [a.output for a in query.network.activations]
    for layer, op in zip(result.layers, query.network.activations, strict=True):
        z = values[op.inputs[0]].numpy()
        assert layer.lower.shape == layer.upper.shape == op.out_shape
        assert (layer.lower <= z).all()
        assert (z <= layer.upper).all()
        assert layer.stable_on == int((layer.lower >= 0).sum())
        assert layer.stable_off == int(((layer.upper <= 0) & (layer.lower < 0)).sum())
        assert layer.unstable == int(((layer.lower < 0) & (layer.upper > 0)).sum())
        assert layer.units == op.out_size
    logits = values[query.network.output].numpy()
    assert (result.output[0] <= logits).all()
    assert (logits <= result.output[1]).all()


def test_json_and_arrays() -> None:
    query = query_of(8, kind="conv")
    result = bounds(query, BoundsOptions(0.1, "fastlin-ibp"))
    document = json.loads(dumps(result))
    assert document["schema"] == "onnxsub.bounds/1"
    assert document["eps"] == 0.1
    assert document["method"] == "fastlin-ibp"
    assert document["anchor"]["sha256"] == query.anchor_sha256
    keys = {"name", "op_type", "units", "stable_on", "stable_off", "unstable", "width_min", "width_mean", "width_max"}
    assert all(set(layer) == keys for layer in document["layers"])
    width = result.layers[0].upper - result.layers[0].lower
    assert document["layers"][0]["width_max"] == width.max()
    assert document["layers"][0]["width_min"] == width.min()
    arrays = result.arrays()
    assert str(arrays["method"]) == "fastlin-ibp"
    assert float(arrays["eps"]) == 0.1
    assert str(arrays["anchor_sha256"]) == query.anchor_sha256
    assert str(arrays["model_sha256"]) == query.model.sha256
    np.testing.assert_array_equal(arrays[f"pre/{result.layers[1].name}/lower"], result.layers[1].lower)


def test_a_layer_that_is_called_logits_keeps_its_arrays() -> None:
    n = Net(4)
    query = make_query(load_model(n.model(n.named("Relu", [n.gemm("x", 4, 3)], "logits"), 3)), np.full(4, 0.5))
    result = bounds(query, BoundsOptions(0.3))
    arrays = result.arrays()
    np.testing.assert_array_equal(arrays["pre/logits/lower"], result.layers[0].lower)
    np.testing.assert_array_equal(arrays["logits/lower"], result.output[0])
    assert result.layers[0].lower.min() < 0 <= result.output[0].min() + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_a_radius_of_zero_is_the_point_itself(method: str) -> None:
    query = query_of(3, kind="residual")
    result = bounds(query, BoundsOptions(0.0, method, steps=2))
    with torch.no_grad():
        values = query.network.values(torch.tensor(query.x0[None], dtype=torch.float64))
    for layer, op in zip(result.layers, query.network.activations, strict=True):
        z = values[op.inputs[0]][0].numpy()
        assert (layer.lower <= z).all()
        assert (z <= layer.upper).all()
        assert (layer.upper - layer.lower).max() < 1e-6


@pytest.mark.parametrize("method", ["ibp", "fastlin", "crown"])
def test_a_radius_beyond_the_domain_is_the_domain(method: str) -> None:
    query = query_of(3, kind="dense")
    some, more = (bounds(query, BoundsOptions(eps, method)) for eps in (1.0, 50.0))
    for a, b in zip(some.layers, more.layers, strict=True):
        np.testing.assert_array_equal(a.lower, b.lower)
        np.testing.assert_array_equal(a.upper, b.upper)


def test_the_radius_is_in_units_of_the_image_not_of_what_the_model_is_fed() -> None:
    n = Net(3)
    r = n.node("Relu", [n.node("MatMul", ["x", n.weight(np.eye(3))])])
    model = load_model(n.model(n.gemm(r, 3, 2), 2))
    query = make_query(model, np.array([0.5, 0.05, 0.9]), space=InputSpace(0, 1, (0.4,), (0.2,)))
    (layer,) = bounds(query, BoundsOptions(0.1, "crown")).layers
    np.testing.assert_allclose(layer.lower, (np.array([0.4, 0.0, 0.8]) - 0.4) / 0.2, atol=1e-6)
    np.testing.assert_allclose(layer.upper, (np.array([0.6, 0.15, 1.0]) - 0.4) / 0.2, atol=1e-6)


def test_a_network_without_activations() -> None:
    n = Net(3)
    query = make_query(load_model(n.model(n.gemm("x", 3, 2), 2)), np.full(3, 0.5))
    for method in METHODS:
        result = bounds(query, BoundsOptions(0.2, method))
        assert result.layers == ()
        assert json.loads(dumps(result))["layers"] == []
        assert (result.output[0] < result.output[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1}, r"--eps -0.1 is not a radius; give a finite number that is not negative"),
        ({"eps": float("nan")}, "is not a radius"),
        ({"eps": float("inf")}, "is not a radius"),
        ({"eps": 0.1, "method": "magic"}, "--method 'magic' is unknown; choose one of ibp"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BoundsOptions(**options)


# --- every operator family


def boxes(network: Network, seed: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    x0 = np.random.default_rng(seed).random(network.input_shape)
    return np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.1, 0.5]))
def test_random_graphs_stay_inside_their_bounds(seed: int, eps: float) -> None:
    network = lower(load_model(random_dag(seed)))
    low, high = boxes(network, seed, eps)
    x = inside(low, high)
    with torch.no_grad():
        values = network.values(x)
    logits = values[network.output].flatten(1)
    row = np.eye(network.classes)[:1] - np.eye(network.classes)[1:2]
    widths = {}
    for method in METHODS:
        found = compute_bounds(network, low, high, method, steps=2)
        for op in network.nonlinear:
            l, u = found.pre[op.output]
            z = values[op.inputs[0]]
            assert (z >= l).all(), (method, op.output)
            assert (z <= u).all(), (method, op.output)
        assert (logits >= found.output[0]).all(), method
        assert (logits <= found.output[1]).all(), method
        margin = logits[:, 0] - logits[:, 1]
        l, u = margin_bounds(network, found, row)
        assert (margin >= l[0, 0]).all(), method
        assert (margin <= u[0, 0]).all(), method
        widths[method] = found.output[1] - found.output[0]
        if method in ("ibp", "crown"):
            with torch.no_grad():
                torch.testing.assert_close(fold(network, found).forward(x), logits, rtol=1e-8, atol=1e-8)
    tiny = 1e-8 * (1 + widths["ibp"])
    assert (widths["crown"] <= widths["ibp"] + tiny).all()
    assert (widths["fastlin-ibp"] <= widths["ibp"] + tiny).all()
    assert (widths["alpha-crown"] <= widths["crown"] + tiny).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(("ibp", "fastlin", "fastlin-ibp", "crown")))
def test_many_boxes_of_random_graphs_give_what_each_gives_alone(seed: int, method: str) -> None:
    network = lower(load_model(random_dag(seed)))
    several = [boxes(network, s, 0.1) for s in range(3)]
    together = compute_bounds(network, np.stack([b[0] for b in several]), np.stack([b[1] for b in several]), method)
    row = np.eye(network.classes)[:1] - np.eye(network.classes)[1:2]
    margins = margin_bounds(network, together, row)
    for i, (low, high) in enumerate(several):
        alone = compute_bounds(network, low, high, method)
        for op in network.nonlinear:
            for a, b in zip(together.pre[op.output], alone.pre[op.output], strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-7, atol=1e-7)
        for a, b in zip(margins, margin_bounds(network, alone, row), strict=True):
            torch.testing.assert_close(a[i : i + 1], b, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "mean", "std", "method"),
    [
        ("mnist_relu_3_50", None, None, "crown"),  # a Relu on the logits
        ("cifar_base_kw", (0.485, 0.456, 0.406), (0.225,), "fastlin-ibp"),
        ("cnn_max_mninst2", None, None, "ibp"),
        ("mnist_convtiny_norm", None, None, "alpha-crown"),
    ],
)
def test_real_networks_stay_inside_their_bounds(
    net_path: Callable[[str], Path],
    data_dir: Path,
    name: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    method: str,
) -> None:
    model = load_model(net_path(name))
    with np.load(data_dir / "data" / ("mnist.npz" if np.prod(model.input_shape) == 784 else "cifar10.npz")) as images:
        x0 = images["x_test"][0] / 255
    x0 = x0.reshape(model.input_shape) if x0.ndim == 2 else np.moveaxis(x0, -1, 0)
    query = make_query(model, x0, space=InputSpace(0, 1, mean, std))
    result = bounds(query, BoundsOptions(0.02, method, steps=2))
    low, high = query.space.ball(query.x0, 0.02)
    with torch.no_grad():
        values = query.network.values(inside(low, high, 50))
    for layer, op in zip(result.layers, query.network.activations, strict=True):
        z = values[op.inputs[0]].numpy()
        assert (layer.lower <= z).all()
        assert (z <= layer.upper).all()
        assert (layer.lower <= layer.upper).all()
