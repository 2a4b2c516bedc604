"""Architectures as data: layers, shapes, parameters, units. No torch: `onnxsub zoo list` needs none of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from onnxsub.errors import InputError, OptionError
from onnxsub.ops.base import Shape

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "Architecture", "Conv", "Dense", "Layer", "Pool", "architecture"]

ACTIVATIONS = ("relu", "tanh", "sigmoid")

CLAMP = 100.0
"""Largest absolute logit of the networks that end in a clamp."""


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
class Pool:
    """The mean of square windows that lie side by side. Attributes: size: of a window; 0 for one window, the whole image."""

    size: int = 0

    def window(self, shape: Shape) -> tuple[int, int]:
        """Height and width of a window in images `(C, H, W)`. Raises InputError where they are smaller."""
        if len(shape) != 3:
            raise InputError(f"a pool wants images (C, H, W), not {list(shape)}; use A, B or G for flat data")
        height, width = (self.size or n for n in shape[1:])
        if height > shape[1] or width > shape[2]:
            raise InputError(f"images {list(shape)} are too small for a window of {self.size}; use larger ones, or A, B or G")
        return height, width

    def out_shape(self, shape: Shape) -> Shape:
        """`(C, H // size, W // size)`."""
        height, width = self.window(shape)
        return (shape[0], shape[1] // height, shape[2] // width)


Layer = Conv | Dense | Pool


@dataclass(frozen=True)
class Architecture:
    """Hidden layers, an activation behind each but the pools; a dense layer to the classes comes last, without one.

    Attributes:
        name: as `architecture` takes it.
        hidden: layers; dense ones last.
        summary: the layers in words.
        activation: one of `ACTIVATIONS`.
        clamp: the logits are cut off at this absolute value; None: they are not.
    """

    name: str
    hidden: tuple[Layer, ...]
    summary: str
    activation: str = "relu"
    clamp: float | None = None

    def layers(self, shape: Shape, classes: int = 10) -> Iterator[tuple[Layer, Shape]]:
        """Every layer with the shape `(C, H, W)` or `(n,)` of its input, the last dense layer included."""
        for layer in (*self.hidden, Dense(classes)):
            yield layer, shape
            shape = layer.out_shape(shape)

    def parameters(self, shape: Shape, classes: int = 10) -> int:
        """Number of weights and biases for inputs of `shape` (per sample)."""
        weights = [layer.weight_shape(given) for layer, given in self.layers(shape, classes) if not isinstance(layer, Pool)]
        return sum(math.prod(w) + w[0] for w in weights)

    def units(self, shape: Shape) -> int:
        """Number of activations for inputs of `shape` (per sample); the clamp has none."""
        *hidden, _ = self.layers(shape)
        return sum(math.prod(layer.out_shape(given)) for layer, given in hidden if not isinstance(layer, Pool))


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
    Architecture("fc30", (Dense(30),), "Dense 30; clamp 100", clamp=CLAMP),
    Architecture("fc100", (Dense(100),), "Dense 100; clamp 100", clamp=CLAMP),
    Architecture(
        "lenet",
        (Conv(6, 5, padding=2), Pool(2), Conv(16, 5, padding=0), Pool(2), Dense(120), Dense(84)),
        "Conv 6 k5 p2, mean 2, 16 k5 p0, mean 2; Dense 120, 84",
    ),
    Architecture(
        "nin",
        (Conv(32, 5, padding=2), Conv(24, 1, padding=0), Conv(16, 1, padding=0), Pool(2),
         Conv(48, 3), Conv(48, 1, padding=0), Conv(24, 1, padding=0), Pool()),
        "Conv 32 k5 p2, 24 k1, 16 k1, mean 2, 48 k3, 48 k1, 24 k1, mean of the image",
    ),
)  # fmt: skip
"""Name -> architecture. A convolution without `p` has padding 1 (0 for windows of 1), one without `s` stride 1.

`fc30` and `fc100` are those of Casadio et al. 2022; `lenet` is that of LeCun et al. 1998 with ReLUs; `nin`, a network in network
(Lin et al. 2014), ends in the mean of the image, behind which a dense layer is the same as a convolution of 1 in front of it.
"""

_PATTERNS = "mlp:WIDTHxDEPTH:ACTIVATION or cnn:FILTERSxDEPTH:kKERNEL:ACTIVATION"
_MOST_LAYERS = 100


def architecture(name: str) -> Architecture:
    """The architecture called `name`, in either case; or one of a grid.

    `mlp:WIDTH[xDEPTH][:ACTIVATION][:clamp]` has dense layers, `cnn:FILTERS[xDEPTH][:kKERNEL][:ACTIVATION][:clamp]` convolutions
    with stride 2. `mlp:100x2:tanh`: two layers of 100 and Tanh. One layer, kernel 3 and ReLU where nothing is said.

    Raises:
        OptionError: there is none of that name.
    """
    for known in ARCHITECTURES.values():
        if known.name.lower() == name.lower():
            return known
    found = re.fullmatch(r"(mlp|cnn):(\d+)(?:x(\d+))?(?::k(\d+))?(?::([a-z]+))??(:clamp)?", name.lower())
    if found is None or (found[5] or "relu") not in ACTIVATIONS or (found[1] == "mlp" and found[4]):
        raise OptionError(
            f"there is no architecture {name!r}; choose one of {', '.join(ARCHITECTURES)}, or {_PATTERNS} "
            f"with {', '.join(ACTIVATIONS[:-1])} or {ACTIVATIONS[-1]}"
        )
    size, depth, kernel, activation = int(found[2]), int(found[3] or 1), int(found[4] or 3), found[5] or "relu"
    if min(size, depth, kernel) < 1 or depth > _MOST_LAYERS:
        raise OptionError(f"an architecture {name!r} is not possible; give sizes of 1 or more and at most {_MOST_LAYERS} layers")
    clamp = CLAMP if found[6] else None
    ends = [activation, *(["clamp"] if clamp else [])]
    behind = f", {activation}" + (f"; clamp {clamp:g}" if clamp else "")
    if found[1] == "mlp":
        hidden: tuple[Layer, ...] = (Dense(size),) * depth
        return Architecture(":".join([f"mlp:{size}x{depth}", *ends]), hidden, f"Dense {depth} x {size}{behind}", activation, clamp)
    hidden = (Conv(size, kernel, 2, (kernel - 1) // 2),) * depth
    summary = f"Conv {depth} x {size} k{kernel} s2{behind}"
    return Architecture(":".join([f"cnn:{size}x{depth}:k{kernel}", *ends]), hidden, summary, activation, clamp)
