"""The architectures A to G as data: layers, shapes, parameters, units. No torch: `onnxsub zoo list` needs none of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from onnxsub.errors import InputError, OptionError
from onnxsub.ops.base import Shape

__all__ = ["ARCHITECTURES", "Architecture", "Conv", "Dense", "architecture"]


@dataclass(frozen=True)
class Conv:
    """A convolution with a square window and the same padding on all sides.

    Attributes:
        channels: that come out. kernel, stride, padding: in elements.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 1

    def out_shape(self, shape: Shape) -> Shape:
        """`(channels, H', W')`, `H' = floor((H + 2 padding - kernel) / stride) + 1`. Raises InputError where nothing is left."""
        if len(shape) != 3:
            raise InputError(f"a convolution wants images (C, H, W), not {list(shape)}; use A, B or G for flat data")
        height, width = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in shape[1:])
        if height < 1 or width < 1:
            raise InputError(f"images {list(shape)} are too small for a window of {self.kernel}; use larger ones, or A, B or G")
        return (self.channels, height, width)

    def weight_shape(self, shape: Shape) -> Shape:
        """`(channels, C, kernel, kernel)` of the weight for an input `shape`."""
        return (self.channels, shape[0], self.kernel, self.kernel)


@dataclass(frozen=True)
class Dense:
    """A dense layer on whatever comes, flattened. Attributes: units: that come out."""

    units: int

    def out_shape(self, shape: Shape) -> Shape:
        """`(units,)`."""
        return (self.units,)

    def weight_shape(self, shape: Shape) -> Shape:
        """`(units, n)` of the weight for an input `shape` of n elements."""
        return (self.units, math.prod(shape))


@dataclass(frozen=True)
class Architecture:
    """Hidden layers with a ReLU behind each; a dense layer to the classes comes last, without one.

    Attributes:
        name: one letter.
        hidden: layers; convolutions first.
        summary: the layers in words.
    """

    name: str
    hidden: tuple[Conv | Dense, ...]
    summary: str

    def layers(self, shape: Shape, classes: int = 10) -> Iterator[tuple[Conv | Dense, Shape]]:
        """Every layer with the shape `(C, H, W)` or `(n,)` of its input, the last dense layer included."""
        for layer in (*self.hidden, Dense(classes)):
            yield layer, shape
            shape = layer.out_shape(shape)

    def parameters(self, shape: Shape, classes: int = 10) -> int:
        """Number of weights and biases for inputs of `shape` (per sample)."""
        weights = [layer.weight_shape(given) for layer, given in self.layers(shape, classes)]
        return sum(math.prod(w) + w[0] for w in weights)

    def units(self, shape: Shape) -> int:
        """Number of ReLUs for inputs of `shape` (per sample)."""
        *hidden, _ = self.layers(shape)
        return sum(math.prod(layer.out_shape(given)) for layer, given in hidden)


def _table(*rows: Architecture) -> MappingProxyType[str, Architecture]:
    return MappingProxyType({row.name: row for row in rows})


ARCHITECTURES = _table(
    Architecture("A", (Dense(20),) * 2, "Dense 20, 20"),
    Architecture("B", (Dense(100),) * 3, "Dense 100, 100, 100"),
    Architecture("C", (Conv(16, 4, 2), Conv(32, 4, 2), Dense(100)), "Conv 16 k4 s2, 32 k4 s2; Dense 100"),
    Architecture(
        "D",
        (Conv(16, 3), Conv(16, 4, 2), Conv(32, 3), Conv(32, 4, 2), Dense(512)),
        "Conv 16 k3, 16 k4 s2, 32 k3, 32 k4 s2; Dense 512",
    ),
    Architecture(
        "E",
        (Conv(32, 3), Conv(32, 4, 2), Conv(64, 3), Conv(64, 4, 2), Dense(512), Dense(512)),
        "Conv 32 k3, 32 k4 s2, 64 k3, 64 k4 s2; Dense 512, 512",
    ),
    Architecture(
        "F",
        (Conv(64, 3), Conv(64, 3), Conv(128, 4, 2), Conv(128, 3), Conv(128, 3), Dense(512)),
        "Conv 64 k3, 64 k3, 128 k4 s2, 128 k3, 128 k3; Dense 512",
    ),
    Architecture("G", (Dense(1024),) * 7, "Dense 7 x 1024"),
)
"""Name -> architecture. Every convolution has padding 1, every window without `s` stride 1."""


def architecture(name: str) -> Architecture:
    """The architecture called `name`, in either case. Raises InputError."""
    try:
        return ARCHITECTURES[name.upper()]
    except KeyError:
        raise OptionError(f"there is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}") from None
