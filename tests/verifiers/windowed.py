"""Small random networks with windows, as every MaxPool, Max and ReduceMax is read: a table of elements per output."""

from __future__ import annotations

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import WindowMax

__all__ = ["hidden_relus", "one_layer", "random_windowed", "table", "tied_windows"]


def table(rng: np.random.Generator, size: int, count: int, most: int) -> Array:
    """Windows of one to `most` elements, which may share some."""
    found = np.full((count, most), -1, dtype=np.int64)
    for row in found:
        own = rng.choice(size, size=min(size, int(rng.integers(1, most + 1))), replace=False)
        row[rng.permutation(most)[: len(own)]] = own
    return found


class _Builder:
    def __init__(self, seed: int, size: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[Operator] = []
        self.name, self.size, self.inputs = "x", size, size

    def add(self, kind: type[Operator], size: int, **more: object) -> None:
        name = f"t{len(self.ops)}"
        common = {"op_type": kind.__name__, "node": name, "inputs": (self.name,), "output": name}
        self.ops.append(kind(**common, in_shapes=((self.size,),), out_shape=(size,), **more))  # type: ignore[arg-type]
        self.name, self.size = name, size

    def dense(self, size: int) -> None:
        weight = self.rng.normal(size=(size, self.size)) / np.sqrt(self.size)
        # rows that nearly coincide make windows whose elements lie close together
        alike = self.rng.random(size) < 0.3
        weight[alike] = weight[0] + 0.1 * weight[alike]
        self.add(Dense, size, weight=weight, bias=0.2 * self.rng.normal(size=size))

    def join(self, parts: list[str], sizes: list[int]) -> None:
        """Goes on from several tensors."""
        if len(parts) == 1:
            return
        name, size = f"t{len(self.ops)}", sum(sizes)
        slots = tuple(int(e) for e in np.cumsum([0, *sizes[:-1]]))
        common = {"op_type": "Concat", "node": name, "inputs": tuple(parts), "output": name}
        self.ops.append(Concat(**common, in_shapes=tuple((s,) for s in sizes), out_shape=(size,), axis=0, slots=slots))  # type: ignore[arg-type]
        self.name, self.size = name, size

    def relu(self) -> None:
        self.add(Relu, self.size)

    def windows(self, count: int) -> None:
        self.add(WindowMax, count, windows=table(self.rng, self.size, count, int(self.rng.integers(2, 5))))


def random_windowed(seed: int) -> Network:
    """One or two layers of windows, with Relus before, between or behind, or none."""
    rng = np.random.default_rng(10_000 + seed)
    b = _Builder(seed, int(rng.integers(2, 9)))
    for _ in range(int(rng.integers(1, 3))):
        b.dense(int(rng.integers(6, 15)))
        if rng.random() < 0.5:
            b.relu()
        b.windows(int(rng.integers(3, 8)))
        if rng.random() < 0.5:
            b.dense(int(rng.integers(4, 9)))
            b.relu()
    b.dense(int(rng.integers(2, 5)))
    return Network("x", (b.inputs,), b.name, tuple(b.ops))


def one_layer(seed: int) -> Network:
    """A layer of windows that the classes alone read, up to sixteen of them, over up to a dozen inputs."""
    rng = np.random.default_rng(30_000 + seed)
    b = _Builder(seed, int(rng.integers(3, 13)))
    b.dense(int(rng.integers(10, 30)))
    b.windows(int(rng.integers(5, 17)))
    b.dense(int(rng.integers(2, 5)))
    return Network("x", (b.inputs,), b.name, tuple(b.ops))


def tied_windows(seed: int) -> tuple[Network, Array, int]:
    """Filters slid over a row of pixels that are black but for a few, windows over neighbouring outputs, classes; anchor and label.

    All elements of most windows are equal at the anchor, and neighbouring windows share pixels, as with images of digits.
    """
    rng = np.random.default_rng(20_000 + seed)
    b = _Builder(seed, int(rng.integers(8, 12)))
    filters, width, pixels = int(rng.integers(1, 4)), 3, b.size
    places = pixels - width + 1
    weight = np.zeros((filters, places, pixels))
    for one in weight:
        taps = rng.normal(size=width)
        for place in range(places):
            one[place, place : place + width] = taps
    bias = np.repeat(0.2 * rng.normal(size=filters), places)
    b.add(Dense, filters * places, weight=weight.reshape(-1, pixels), bias=bias)
    if rng.random() < 0.5:
        b.relu()
    first = np.arange(0, places - 1, 2 if rng.random() < 0.5 else 1)
    most = int(rng.integers(2, 4))
    one = np.minimum(first[:, None] + np.arange(most), places - 1)
    # an element behind the last one is there twice
    windows = (places * np.arange(filters)[:, None, None] + one).reshape(-1, most)
    b.add(WindowMax, len(windows), windows=windows)
    if rng.random() < 0.3:
        b.dense(6)
        b.relu()
    b.dense(3)
    network = Network("x", (b.inputs,), b.name, tuple(b.ops))
    x0 = np.zeros(pixels, dtype=np.float32)
    x0[rng.choice(pixels, 2, replace=False)] = rng.uniform(0.3, 1.0, 2)
    with torch.no_grad():
        label = int(network.forward(torch.as_tensor(x0[None].astype(np.float64))).argmax())
    return network, x0, label


def hidden_relus(seed: int) -> tuple[Network, Array, int]:
    """Windows, then layers of Relus or windows that read them and the input, and classes that read them all; anchor and label.

    As substitutes are: what is read of windows is small beside what is read of the input, and most of what is read is direct.
    """
    rng = np.random.default_rng(40_000 + seed)
    b = _Builder(seed, int(rng.integers(4, 10)))
    parts = ["x"]
    sizes = [b.size]
    for kind in ["windows", *(str(k) for k in rng.choice(["relu", "relu", "windows"], int(rng.integers(1, 3))))]:
        b.join(parts, sizes)
        b.dense(int(rng.integers(5, 13)))
        if kind == "relu":
            b.relu()
        else:
            b.windows(int(rng.integers(3, 8)))
        parts.append(b.name)
        sizes.append(b.size)
    b.join(parts, sizes)
    b.dense(3)
    network = Network("x", (b.inputs,), b.name, tuple(b.ops))
    x0 = rng.uniform(0.0, 1.0, sizes[0]).astype(np.float32)
    with torch.no_grad():
        label = int(network.forward(torch.as_tensor(x0[None].astype(np.float64))).argmax())
    return network, x0, label
