"""Where inputs live: the domain box, the normalisation, and the ball round an anchor."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.ops.base import Array, Shape
from onnxsub.reading.integers import RANGES

__all__ = ["InputSpace"]

_WHOLE = 2**24
"""Whole numbers up to here are float32 numbers, each of them."""
_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class InputSpace:
    """The valid inputs of a model, in un-normalised units.

    The model is fed `(x - mean) / std`; every radius, anchor and witness is in the units of `x`.

    Attributes:
        lower, upper: the domain box `[lower, upper]`, the same for every input element.
        mean, std: per channel (or one value for all); None for models that take `x` as it is.
        whole: only whole numbers are inputs (a file of uint8, int64, ...). Boxes are the same; points are rounded to them.
    """

    lower: float = 0.0
    upper: float = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower < self.upper):
            raise InputError(f"--domain {self.lower} {self.upper} is not an interval; give two finite numbers, the lower one first")
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std belong together; give both or neither")
        if self.std is not None and not all(math.isfinite(s) and s > 0 for s in self.std):
            raise InputError(f"--std {list(self.std)} must be positive numbers")
        if self.mean is not None and not all(math.isfinite(m) for m in self.mean):
            raise InputError(f"--mean {list(self.mean)} must be finite numbers")
        if max(abs(self.lower), abs(self.upper), self.upper - self.lower) > _FLOAT32:
            raise InputError(
                f"--domain {self.lower:g} {self.upper:g} reaches beyond {_FLOAT32:.3g}, and inputs are float32; "
                "give the range that the inputs really have"
            )
        self.check_fed(np.dtype(np.float32))
        if self.whole:
            self._check_whole()

    def _check_whole(self) -> None:
        """Raises InputError where whole numbers are no inputs, or not exactly float32 numbers."""
        if self.mean is not None:
            raise InputError("--mean and --std make fractions, and the model takes whole numbers; leave them out")
        if math.ceil(self.lower) > math.floor(self.upper):
            raise InputError(f"--domain {self.lower:g} {self.upper:g} holds no whole number, which the model takes; widen it")
        if max(abs(self.lower), abs(self.upper)) > _WHOLE:
            raise InputError(f"--domain {self.lower:g} {self.upper:g} holds whole numbers beyond {_WHOLE}, which are not read")

    def over(self, dtype: np.dtype[Any], *, stated: bool = True) -> InputSpace:
        """The same for a file whose input is of type `dtype`; `stated`: the user gave the ends.

        Raises:
            InputError: whole numbers of a type that has no usual range, and none was given; ends beyond the type.
        """
        if dtype.kind not in "iu":
            return self
        lower, upper = self.lower, self.upper
        if not stated:
            if str(dtype) not in RANGES:
                raise InputError(f"the model's input is {dtype}, which has no usual range; say the valid one with --domain LO HI")
            lower, upper = RANGES[str(dtype)]
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        if lower < least or upper > most:
            raise InputError(f"--domain {lower:g} {upper:g} leaves the range of the model's input, {dtype}: {least} to {most}")
        return replace(self, lower=lower, upper=upper, whole=True)

    def check_fed(self, dtype: np.dtype[Any]) -> None:
        """Raises InputError where `(x - mean) / std` at an end of the domain is beyond `dtype`, the type that a model is fed."""
        means, stds = self.mean or (0.0,), self.std or (1.0,)
        most = float(np.finfo(dtype).max)
        for i in range(max(len(means), len(stds))):
            m, s = means[i % len(means)], stds[i % len(stds)]
            for end in (self.lower, self.upper):
                if not abs(end - m) <= most * s:
                    fed = f"x = {end:g}" if self.mean is None else f"(x - mean) / std of x = {end:g} with mean {m:g} and std {s:g}"
                    raise InputError(f"{fed} is beyond {most:.3g}, the largest {dtype} to feed; check --domain, --mean and --std")

    def mean_std(self, shape: Shape) -> tuple[Array, Array] | None:
        """`mean` and `std` (float64) broadcast to `shape`; None without normalisation. Channels come first, else last."""
        if self.mean is None or self.std is None:
            return None
        return _per_channel(self.mean, shape, "--mean"), _per_channel(self.std, shape, "--std")

    def normalise(self, x: Array) -> Array:
        """What the model is fed for `x` of shape `(N, *shape)`: float32 arithmetic on the float64 quotient."""
        ms = self.mean_std(tuple(x.shape[1:]))
        if ms is None:
            return np.asarray(x, dtype=np.float32)
        return ((np.asarray(x, dtype=np.float64) - ms[0]) / ms[1]).astype(np.float32)

    def inside(self, x: Array) -> Array:
        """The nearest float32 points to `x` that lie in the domain (float32(0.3) itself is above 0.3), whole ones where inputs are.

        Raises:
            InputError: the domain is so narrow that no float32 number lies in it.
        """
        if self.whole:
            return np.clip(np.rint(x), np.ceil(self.lower), np.floor(self.upper)).astype(np.float32)
        lower, upper = np.float32(self.lower), np.float32(self.upper)
        if float(lower) < self.lower:
            lower = np.nextafter(lower, np.float32(np.inf))
        if float(upper) > self.upper:
            upper = np.nextafter(upper, np.float32(-np.inf))
        if lower > upper:
            raise InputError(f"--domain {self.lower!r} {self.upper!r} holds no float32 number; widen it")
        return np.clip(np.asarray(x, dtype=np.float32), lower, upper)

    def ball(self, x0: Array, radius: float) -> tuple[Array, Array]:
        """`B(radius) = {x : |x - x0|_inf <= radius}` intersected with the domain: lower and upper end, float64.

        Both ends lie in the domain, also for an `x0` that rounding put outside of it.
        """
        centre = np.asarray(x0, dtype=np.float64)
        return np.clip(centre - radius, self.lower, self.upper), np.clip(centre + radius, self.lower, self.upper)

    def reach(self, x0: Array) -> float:
        """The radius at which the ball is the whole domain."""
        centre = np.asarray(x0, dtype=np.float64)
        return float(max((centre - self.lower).max(), (self.upper - centre).max()))

    def within_reach(self, x0: Array, radius: float) -> float:
        """A radius of the same ball that is no larger than it need be: `radius`, or a hair more than `reach(x0)`.

        `--eps 1e39` is a question about the whole domain. Programs and float32 do not bear such a number.
        """
        return min(radius, self.reach(x0) * (1 + 2.0**-40))

    def check(self, x: Array, what: str) -> None:
        """Raises InputError where `x` has NaN or leaves the domain."""
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x)).sum())
            raise InputError(f"{what} contains NaN or infinite values ({bad} of {x.size}); give finite numbers")
        low, high = float(x.min()), float(x.max())
        # a float32 rounding of the ends themselves is no mistake of the user
        slack = 1e-6 * (self.upper - self.lower)
        if low < self.lower - slack or high > self.upper + slack:
            raise InputError(
                f"{what} has values in [{low:g}, {high:g}], outside the domain [{self.lower:g}, {self.upper:g}]; "
                "scale it, or say the valid range with --domain LO HI (a model of normalised inputs takes --mean and --std)"
            )


def _per_channel(values: tuple[float, ...], shape: Shape, option: str) -> Array:
    v = np.asarray(values, dtype=np.float64)
    if len(v) == 1:
        return np.full(shape, v[0])
    if shape and len(v) == shape[0]:
        return np.broadcast_to(v.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()
    if shape and len(v) == shape[-1]:
        return np.broadcast_to(v, shape).copy()
    channels = shape[0] if shape else 1
    raise InputError(f"{option} has {len(v)} values, the model's input {list(shape)} has {channels} channels; give one or as many")
