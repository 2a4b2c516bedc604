"""A witness: a point, and what the original file makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace

__all__ = ["Judge", "Witness", "ball_float32", "grid_step", "inside_float32", "points_inside", "points_within", "rounding"]


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


def inside_float32(
    lower: Array, upper: Array, dtype: np.dtype[np.generic] | type = np.float32, *, whole: bool = False
) -> tuple[Array, Array]:
    """The smallest and the largest number of a type inside each side of a box; twice the nearest where there is none.

    Args:
        whole: whole numbers only.
    """
    if whole:
        between = np.ceil(lower) > np.floor(upper)
        lower, upper = (np.where(between, np.rint(lower), end) for end in (np.ceil(lower), np.floor(upper)))
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore"):  # an end beyond the type becomes its largest number below
        low, high, nearest = (np.asarray(end).astype(dtype) for end in (lower, upper, lower))
    low = np.where(low.astype(np.float64) < lower, np.nextafter(low, kind(np.inf)), low)
    high = np.where(high.astype(np.float64) > upper, np.nextafter(high, kind(-np.inf)), high)
    none = low > high
    return np.where(none, nearest, low), np.where(none, nearest, high)


def ball_float32(ball: tuple[Array, Array], x0: Array, eps: float, *, whole: bool = False) -> tuple[Array, Array]:
    """The same for the sides of a ball, whose ends are rounded: of these numbers none is farther from the anchor than `eps`."""
    low, high = inside_float32(*ball, whole=whole)
    inner = (low + 1, high - 1) if whole else (np.nextafter(low, np.float32(np.inf)), np.nextafter(high, np.float32(-np.inf)))
    return np.where(x0 - low.astype(np.float64) > eps, inner[0], low), np.where(high.astype(np.float64) - x0 > eps, inner[1], high)


def grid_step(x: Array, x0: Array, space: InputSpace) -> float:
    """The coarsest step of float32 among the elements of a point that lie as far off as it does: its radius moves by that."""
    offset = np.abs(np.asarray(x, dtype=np.float64) - x0)
    far = offset >= (1 - _AS_FAR) * offset.max(initial=0.0)
    return float(space.spacing(x)[far].max(initial=0.0))


def rounding(witness: Witness, x0: Array, space: InputSpace) -> float:
    """How far a proved distance and the distance of a float32 point may cross by rounding alone.

    A share of the radius, or two steps of float32 where the point lies; nothing absolute, which would hide a contradiction at small
    radii.
    """
    return max(_CROSSES * witness.radius, 2 * grid_step(witness.x, x0, space))


_CROSSES = 1e-6  # of a radius
_AS_FAR = 1e-6  # relative difference of distances that counts as none
_FEWEST, _MOST = 96, 128  # points that are replayed
_VALUES = 2**23  # numbers of all tensors of them together
_END = 1e-6  # relative: points lie this far inside a proved radius, and its corners this far beyond


def points_inside(network: Network, lower: Array, upper: Array, seed: int = 0) -> Array:
    """Points of a box that are replayed after a proof, because float32 execution may differ from the network over the real numbers.

    Corners, points on the sides and inside, both ends and the centre: `(N, *input_shape)` float64, fewer of a large network.
    """
    rng = np.random.default_rng(seed)
    shape = network.input_shape
    values = sum(math.prod(s) for s in network.shapes.values())
    count = min(max(_VALUES // max(values, 1), _FEWEST), _MOST)
    low, high = np.asarray(lower, dtype=np.float64).reshape(shape), np.asarray(upper, dtype=np.float64).reshape(shape)
    u = rng.random((count, *shape))
    u[::4] = np.round(u[::4])
    u[1::4][rng.random(u[1::4].shape) < 0.5] = 0.5
    u[0], u[1], u[2] = 0.0, 1.0, 0.5
    return np.asarray(low + (high - low) * u)


def points_within(instance: Instance, radius: float, seed: int = 0) -> Array:
    """Points that are replayed after a proof that nothing lies within a radius: `(N, *input_shape)` float64.

    Points of the ball, each of them once more at some share of its distance, and two corners of the ball just beyond its end, where
    the domain allows: a point that float32 cannot tell from the boundary is likely at a corner.
    """
    points = points_inside(instance.network, *instance.ball(radius * (1 - _END)), seed)
    shares = np.linspace(0.0, 1.0, len(points)).reshape(-1, *[1] * instance.x0.ndim)
    corners = np.stack(instance.ball(radius * (1 + _END)))
    return np.concatenate([points, instance.x0 + shares * (points - instance.x0), corners])
