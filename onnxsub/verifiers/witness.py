"""A witness: a point, and what the original file makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array

__all__ = ["Judge", "Witness", "grid_step", "inside_float32", "likely_witnesses"]


@dataclass(frozen=True, eq=False)
class Witness:
    """A point and what the judge says of it.

    Attributes:
        x: the point, in the shape and the units of the question; the file is fed its cast to the input's type.
        radius: `|x - x0|_inf` in float64; NaN where the question has no anchor.
        label: the class t with the largest `f_t - f_y`; -1 where the question is not about classes.
        margin: that difference, or the smallest row `b - A y` of `clause`, by the judge.
        kind: `strict` (beyond the boundary), `tie` (on it, within the stated tolerance) or `rejected`.
        path: where it was saved.
        case, clause: of a property: what the point satisfies, or comes nearest to; of a decision about a ball: case 0, and the
            clause of class `label`.
        y: the file's own output there; None where the judge does not say.
    """

    x: Array = field(repr=False)
    radius: float
    label: int
    margin: float
    kind: str
    path: str | None = None
    case: int | None = None
    clause: int | None = None
    y: Array | None = field(default=None, repr=False)

    @property
    def confirmed(self) -> bool:
        return self.kind != "rejected"

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, "margin": self.margin}


class Judge(Protocol):
    """Who says what a point of one box is worth.

    Attributes:
        lower, upper: the smallest and the largest point of the box that can be judged, any shape of `inputs` elements.
    """

    lower: Array
    upper: Array

    def judge(self, x: Array) -> Witness:
        """The verdict on a point of any shape, run alone."""
        ...

    def best(self, x: Array) -> Witness:
        """The verdict on the best of several points `(N, ...)`: run together first, the best one alone."""
        ...


def inside_float32(lower: Array, upper: Array, dtype: np.dtype[np.generic] | type = np.float32) -> tuple[Array, Array]:
    """The smallest and the largest number of a type inside each side of a box; twice the nearest where there is none."""
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore"):  # an end beyond the type becomes its largest number below
        low, high, nearest = (np.asarray(end).astype(dtype) for end in (lower, upper, lower))
    low = np.where(low.astype(np.float64) < lower, np.nextafter(low, kind(np.inf)), low)
    high = np.where(high.astype(np.float64) > upper, np.nextafter(high, kind(-np.inf)), high)
    none = low > high
    return np.where(none, nearest, low), np.where(none, nearest, high)


def grid_step(x: Array, x0: Array) -> float:
    """The coarsest step of float32 among the elements of a point that lie as far off as it does: its radius moves by that."""
    offset = np.abs(np.asarray(x, dtype=np.float64) - x0)
    far = offset >= (1 - _AS_FAR) * offset.max(initial=0.0)
    return float(np.spacing(np.abs(np.asarray(x)[far]).astype(np.float32)).max(initial=0.0))


_AS_FAR = 1e-6  # relative difference of distances that counts as none
_TRIED = 256  # points that are evaluated in float32 by torch
_VALUES = 2**23  # numbers of all tensors of them together
_REPLAYED = 48  # of these: the best ones, and as many at random


def likely_witnesses(network: Network, lower: Array, upper: Array, label: int, seed: int = 0) -> Array:
    """Points of a box at which a network that runs in float32 may have another class than over the real numbers.

    Corners, points on the sides and inside, evaluated in float32; the ones with the largest margin, and some at random:
    `(N, *input_shape)` float64. Where rounding decides, the order of summation does, so the judge may see other margins: hence
    both.

    Args:
        network: as the file computes, not rescaled; output `label` is what the others are compared with.
    """
    rng = np.random.default_rng(seed)
    shape = network.input_shape
    values = sum(math.prod(s) for s in network.shapes.values())
    count = int(min(max(_VALUES // max(values, 1), 2 * _REPLAYED), _TRIED))
    low, high = np.asarray(lower, dtype=np.float64).reshape(shape), np.asarray(upper, dtype=np.float64).reshape(shape)
    u = rng.random((count, *shape))
    kind = np.arange(count).reshape(-1, *[1] * len(shape)) % 4
    u = np.where(kind == 0, np.round(u), np.where((kind == 1) & (rng.random(u.shape) < 0.5), 0.5, u))
    u[0], u[1], u[2] = 0.0, 1.0, 0.5
    x = low + (high - low) * u
    with torch.no_grad():
        f = network.forward(torch.as_tensor(x, dtype=torch.float32)).double()
        margin = f - f[:, label : label + 1]
        margin[:, label] = -math.inf
        worst = margin.amax(1).nan_to_num(nan=math.inf)
    order = torch.argsort(worst, descending=True).numpy()
    others = rng.permutation(order[_REPLAYED:])
    return np.asarray(x[np.concatenate([order[:_REPLAYED], others[:_REPLAYED]])])
