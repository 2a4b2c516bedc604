"""Values per feature: fitted to the input's shape, checked as a domain, and used as units of measurement."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.ops.base import Array, Shape

__all__ = [
    "Shaped", "Units", "Weights", "check_inside", "check_range", "domain_arrays", "fill", "measured_ends", "sha256", "weights",
]  # fmt: skip

_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Units:
    """Inputs measured from an anchor, every feature in a unit of its own: `x = anchor + scale u`.

    `|u|_inf` is the weighted distance `min t such that |x_i - anchor_i| <= t scale_i`.

    Attributes:
        anchor: float32, `(*shape)`.
        scale: float64, `(*shape)`, not negative; 0: the feature is fixed.
    """

    anchor: Array
    scale: Array

    @property
    def divisor(self) -> Array:
        """The scale, 1 for fixed features: their `u` is 0 in any unit."""
        return np.where(self.scale > 0, self.scale, 1.0)

    @property
    def sha256(self) -> str:
        """Hash of the scale."""
        return sha256(self.scale)

    def original(self, u: Array) -> Array:
        """`x` in float32, rounded towards the anchor, so that `|x_i - anchor_i| <= scale_i |u_i|` holds of what is fed as well."""
        move = self.scale * np.asarray(u, dtype=np.float64)
        anchor = self.anchor.astype(np.float64)
        with np.errstate(over="ignore"):
            x = (anchor + move).astype(np.float32)
        x = np.where(np.abs(x.astype(np.float64) - anchor) > np.abs(move), np.nextafter(x, self.anchor), x)
        return np.asarray(x)

    def spacing(self, u: Array) -> Array:
        """The step of float32 at every element of `x`, in units of the scale; 0 for fixed features."""
        return np.where(self.scale > 0, np.spacing(np.abs(self.original(u))) / self.divisor, 0.0)


class Shaped(tuple[float, ...]):
    """Numbers of a file, `source`, and the shape that they have there: that of a table says in which order they are (`fill`)."""

    shape: Shape
    source: str

    @staticmethod
    def of(values: Array, source: str) -> Shaped:
        found = Shaped(values.astype(np.float64).reshape(-1).tolist())
        found.shape, found.source = values.shape, source
        return found


@dataclass(frozen=True, eq=False)
class Weights:
    """One number per feature, as somebody gave them.

    Attributes:
        values: float64.
        option: under which name, for messages.
    """

    values: Array
    option: str = "--scale"


def check_range(lower: float, upper: float) -> None:
    """Raises InputError unless `[lower, upper]` is a range of float32 inputs."""
    if not (math.isfinite(lower) and math.isfinite(upper) and lower < upper):
        raise OptionError(f"--domain {lower} {upper} is not an interval; give two finite numbers, the lower one first")
    if max(abs(lower), abs(upper), upper - lower) > _FLOAT32:
        raise InputError(
            f"--domain {lower:g} {upper:g} reaches beyond {_FLOAT32:.3g}, and inputs are float32; "
            "give the range that the inputs really have"
        )


def domain_arrays(lower: float | Array, upper: float | Array) -> tuple[Array, Array]:
    """Both ends as float64 arrays of one shape that nobody can write to; a fixed feature's value is a float32 number."""
    try:
        low, high = (np.array(e, dtype=np.float64) for e in np.broadcast_arrays(lower, upper))
    except (TypeError, ValueError):
        shapes = f"{np.shape(lower)} and {np.shape(upper)}"
        raise InputError(f"--domain has ends of shapes {shapes}; give arrays of numbers of one shape") from None
    for wrong, why in (
        (~(np.isfinite(low) & np.isfinite(high)), "give the finite range that occurs in the data"),
        (low > high, "give the lower end first"),
        (np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(high / 2 - low / 2)) > _FLOAT32, "inputs are float32"),
    ):
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            number = at[0] if len(at) == 1 else list(at)
            raise InputError(f"--domain of feature {number} is [{low[at]:g}, {high[at]:g}]; {why}")
    if (low == high).all():
        raise InputError("--domain fixes every feature; give at least one of them room")
    fixed = low == high
    low[fixed] = high[fixed] = low[fixed].astype(np.float32)
    for end in (low, high):
        end.setflags(write=False)
    return low, high


def check_inside(x: Array, lower: float | Array, upper: float | Array, what: str) -> None:
    """Raises InputError where `x` leaves the domain."""
    low, high = np.asarray(lower), np.asarray(upper)
    # a float32 rounding of an end, or of the point beside it, is no mistake of the user; more would move the anchor in silence
    slack = np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32)).astype(np.float64)
    outside = (x < low - slack) | (x > high + slack)
    if not outside.any():
        return
    if low.ndim:
        at = tuple(int(i) for i in np.argwhere(outside)[0][-low.ndim :])
        number = at[0] if len(at) == 1 else list(at)
        raise InputError(
            f"{what} has {float(x[outside][0]):g} at feature {number}, outside its domain [{low[at]:g}, {high[at]:g}] "
            f"({int(outside.sum())} of {x.size} lie outside); check --domain"
        )
    raise InputError(
        f"{what} has values in [{float(x.min()):g}, {float(x.max()):g}], outside the domain [{float(low):g}, {float(high):g}]; "
        "scale it, or say the valid range with --domain LO HI (a model of normalised inputs takes --mean and --std)"
    )


def weights(scale: object) -> Weights:
    """A scale as an array, float64, with the name that it was given under."""
    if isinstance(scale, Weights):
        return scale
    try:
        return Weights(np.asarray(scale, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError):
        raise InputError("--scale is no array of numbers; give one weight per feature, 0 for a fixed one") from None


def measured_ends(lower: Array, upper: Array, units: Units, option: str = "--scale") -> tuple[Array, Array]:
    """Both ends of a domain of x as ends of u, outward by the rounding of the quotient.

    Args:
        option: the name under which the scale was given, for messages.

    Raises:
        InputError: a scale that is negative, not finite, or far too small for the domain; nothing that can move.
    """
    scale, anchor = units.scale, units.anchor.astype(np.float64)
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise InputError(f"{option} holds numbers that are negative or not finite; give 0 for a fixed feature")
    with np.errstate(over="ignore"):
        low, high = ((end - anchor) / units.divisor for end in (lower, upper))
    fixed = scale == 0
    low = np.where(fixed | (lower >= anchor), 0.0, np.nextafter(low, -np.inf))
    high = np.where(fixed | (upper <= anchor), 0.0, np.nextafter(high, np.inf))
    if not ((upper > lower) & ~fixed).any():
        raise InputError(f"no feature can move: every {option} is 0, or the domain is one point; give one feature room")
    if max(float(np.abs(low).max()), float(np.abs(high).max())) > _FLOAT32:
        raise InputError(f"{option} holds numbers far too small for the domain; give 0 for a fixed feature")
    return low, high


def fill(values: Array, shape: Shape, option: str) -> Array:
    """One value for all, one per channel, or all of them, as float64 of the input's shape. Channels come first, else last."""
    v = np.asarray(values, dtype=np.float64)
    if v.shape == shape:
        return v
    if v.size == 1:
        return np.full(shape, v.reshape(-1)[0])
    if v.ndim == 1 and shape and len(v) == shape[0]:
        return np.broadcast_to(v.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()
    if v.ndim == 1 and shape and len(v) == shape[-1]:
        return np.broadcast_to(v, shape).copy()
    if v.size == math.prod(shape) and (v.ndim == 1 or [n for n in v.shape if n > 1] == [n for n in shape if n > 1]):
        return v.reshape(shape)
    channels = shape[0] if shape else 1
    many = f"{v.size} values" if v.ndim <= 1 else f"shape {list(v.shape)}"
    raise InputError(f"{option} has {many}, the model's input {list(shape)} has {channels} channels; give one or as many")


def sha256(values: Array) -> str:
    """Hash of values as float64, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f8").tobytes()).hexdigest()
