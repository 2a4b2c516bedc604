"""Cropped coefficients on images that are larger than what one unit sees: the same numbers as with whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.propagate import Coefficients, compute_bounds, linear_range, pull_back
from onnxsub.propagate.backward import flattened
from onnxsub.propagate.chunks import row_chunks, unit_rows
from tests.handmade import Net


def convolution(n: Net, x: str, c: int, channels: int, k: int, group: int = 1, **attributes: Any) -> str:
    weight = n.weight(n.gauss(channels, c // group, k, k, fan=c * k * k))
    return n.node("Conv", [x, weight, n.weight(0.3 * n.rng.normal(size=channels))], group=group, **attributes)


def plain(n: Net) -> str:
    x = n.node("Relu", [convolution(n, "x", 2, 4, 3, pads=[1, 1, 1, 1])])
    x = n.node("Relu", [convolution(n, x, 4, 4, 3, strides=[2, 1], pads=[0, 2, 1, 0])])
    return n.node("Relu", [convolution(n, x, 4, 3, 2, dilations=[2, 3])])


def grouped(n: Net) -> str:
    x = n.node("LeakyRelu", [convolution(n, "x", 2, 4, 3, group=2, strides=[2, 2], auto_pad="SAME_UPPER")], alpha=0.2)
    x = n.node("Mul", [x, n.weight(np.array([1.5, -0.5, 1.0, 2.0]).reshape(4, 1, 1))])
    return n.node("Clip", [convolution(n, x, 4, 4, 3, group=4, pads=[1, 0, 0, 1]), n.weight(-0.2), n.weight(0.4)])


def residual(n: Net) -> str:
    x = n.node("Relu", [convolution(n, "x", 2, 3, 3, pads=[1] * 4)])
    y = n.node("Relu", [convolution(n, x, 3, 3, 3, pads=[1] * 4)])
    wide = convolution(n, x, 3, 3, 5, pads=[2] * 4)
    # windows of three sizes meet here
    z = n.node("Sub", [n.node("Add", [wide, y]), x])
    return n.node("Relu", [convolution(n, z, 3, 2, 1)])


def averaged(n: Net) -> str:
    x = n.node("Relu", [convolution(n, "x", 2, 3, 3)])
    x = n.node("AveragePool", [x], kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1], count_include_pad=1)
    return n.node("Tanh", [convolution(n, x, 3, 2, 2)])


def pooled(n: Net) -> str:
    x = n.node("Relu", [convolution(n, "x", 2, 3, 3)])
    x = n.node("MaxPool", [x], kernel_shape=[2, 3], strides=[2, 2], pads=[1, 0, 0, 1])
    return n.node("Relu", [convolution(n, x, 3, 2, 2)])


def turned(n: Net) -> str:
    x = n.node("Transpose", [n.node("Relu", [convolution(n, "x", 2, 3, 3)])], perm=[0, 1, 3, 2])
    x = n.node("Pad", [x, n.weight([0, 0, 1, 0, 0, 0, 0, 2], np.int64), n.weight(0.1)])
    x = n.node("Relu", [convolution(n, x, 3, 3, 3)])
    weight = n.weight(n.gauss(3, 2, 2, 2, fan=12))
    return n.node("Relu", [n.node("ConvTranspose", [x, weight], strides=[2, 2])])


def network_of(build: Any) -> Network:
    n = Net(2, 13, 11)
    flat = n.node("Flatten", [n.node("ReduceMean", [build(n)], axes=[2, 3], keepdims=0)])
    y = n.node("Concat", [flat, n.node("Neg", [flat])], axis=1)
    return lower(load_model(n.model(y, None)))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["fastlin", "crown"])
@pytest.mark.parametrize("build", [plain, grouped, residual, averaged, pooled, turned])
def test_windows_change_nothing(build: Any, method: str) -> None:
    network = network_of(build)
    x0 = np.random.default_rng(1).random(network.input_shape)
    low, high = (torch.as_tensor(np.clip(x0 + d, 0, 1))[None] for d in (-0.1, 0.1))
    bounds = compute_bounds(network, low, high, method)
    for op in network.nonlinear:
        tensor = op.inputs[0]
        if tensor == network.input:
            continue
        size = int(np.prod(network.shapes[tensor]))
        index = torch.arange(size)
        got = linear_range(network, tensor, index, bounds.relaxations, low, high)
        rows = torch.eye(size, dtype=torch.float64).reshape(1, size, *network.shapes[tensor])
        lower_end = pull_back(network, tensor, Coefficients(rows), bounds.relaxations).minimum(low, high)
        upper_end = -pull_back(network, tensor, Coefficients(-rows), bounds.relaxations).minimum(low, high)
        torch.testing.assert_close(got[0], lower_end, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(got[1], upper_end, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("build", [plain, residual])
def test_a_few_scattered_units_in_any_order(build: Any) -> None:
    network = network_of(build)
    x0 = np.random.default_rng(1).random(network.input_shape)
    low, high = (torch.as_tensor(np.clip(x0 + d, 0, 1))[None] for d in (-0.1, 0.1))
    bounds = compute_bounds(network, low, high, "crown")
    tensor = network.activations[-1].inputs[0]
    size = int(np.prod(network.shapes[tensor]))
    index = torch.as_tensor(np.random.default_rng(2).permutation(size)[:17].copy())
    everything = linear_range(network, tensor, torch.arange(size), bounds.relaxations, low, high)
    some = linear_range(network, tensor, index, bounds.relaxations, low, high, memory=1)
    for a, b in zip(some, everything, strict=True):
        torch.testing.assert_close(a, b[:, index], rtol=1e-9, atol=1e-9)


def test_rows_say_one_at_their_unit_and_nothing_elsewhere() -> None:
    network = network_of(plain)
    tensor = network.activations[1].inputs[0]
    shape = network.shapes[tensor]
    size = int(np.prod(shape))
    for chunk in row_chunks(network, tensor, torch.arange(size), domains=1, itemsize=8):
        whole = unit_rows(chunk, shape, torch.zeros((), dtype=torch.float64)).full(shape)[0].flatten(1)
        assert torch.equal(whole, torch.eye(size, dtype=torch.float64)[chunk])


def test_sums_of_windows() -> None:
    shape = (2, 6, 7)
    rng = np.random.default_rng(0)

    def at(*window: slice) -> Coefficients:
        sizes = [len(range(*w.indices(n))) for w, n in zip(window, shape[1:], strict=True)]
        return Coefficients(torch.as_tensor(rng.random((1, 3, 2, *sizes))), window)

    a, b = at(slice(0, 2), slice(3, 7)), at(slice(4, 6), slice(1, 2))
    whole = Coefficients(torch.as_tensor(rng.random((1, 3, *shape))))
    for one, other in ((a, b), (b, a), (a, whole), (whole, b), (a, a)):
        torch.testing.assert_close(one.plus(other, shape).full(shape), one.full(shape) + other.full(shape))


def test_flattened_gives_scalars_an_axis() -> None:
    assert flattened(torch.zeros(3, 4), 1).shape == (3, 4)
    assert flattened(torch.zeros(3, 4, 5, 6), 2).shape == (3, 4, 30)
    assert flattened(torch.zeros(3, 4), 2).shape == (3, 4, 1)
