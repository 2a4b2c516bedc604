"""Where inputs live: the domain box, the normalisation, the ball round an anchor, and the units that features are measured in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.features import Units, Weights, check_inside, check_range, domain_arrays, fill, measured_ends, sha256, weights
from onnxsub.lattice import check_lattice, nearest_whole, range_of
from onnxsub.ops.base import Array, Shape

__all__ = ["InputSpace"]


@dataclass(frozen=True, eq=False)
class InputSpace:
    """The valid inputs of a model, in un-normalised units.

    The model is fed `(x - mean) / std`; every radius, anchor and witness is in the units of `x`. With `units` they are in those of
    `u`, where `x = anchor + scale u`: all that is computed in such a space is in units of the scale.

    Attributes:
        lower, upper: the domain box `[lower, upper]`. Numbers: the same for every input element. Arrays: one range per feature, of
            the input's shape or one value per channel (`fitted` makes the former of the latter); equal ends fix a feature.
        mean, std: per channel (or one value for all); None for models that take `x` as it is.
        whole: only whole numbers are inputs (a file of uint8, int64, ...). Boxes are the same; points are rounded to them.
        units, base: of a space of `u`: where that is measured from, and the space of `x`. None: this is a space of `x`.
    """

    lower: float | Array = 0.0
    upper: float | Array = 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    whole: bool = False
    units: Units | None = None
    base: InputSpace | None = None

    def __post_init__(self) -> None:
        if self.per_feature:
            for name, end in zip(("lower", "upper"), domain_arrays(self.lower, self.upper), strict=True):
                object.__setattr__(self, name, end)
        else:
            check_range(float(self.lower), float(self.upper))
        if (self.mean is None) != (self.std is None):
            raise OptionError("--mean and --std belong together; give both or neither")
        if self.std is not None and not all(math.isfinite(s) and s > 0 for s in self.std):
            raise OptionError(f"--std {list(self.std)} must be positive numbers")
        if self.mean is not None and not all(math.isfinite(m) for m in self.mean):
            raise InputError(f"--mean {list(self.mean)} must be finite numbers")
        if not self.per_feature:
            self.check_fed(np.dtype(np.float32))
        if self.whole:
            if self.mean is not None:
                raise InputError("--mean and --std make fractions, and the model takes whole numbers; leave them out")
            check_lattice(self.lower, self.upper)

    def over(self, dtype: np.dtype[Any], *, stated: bool = True) -> InputSpace:
        """The same for a file whose input is of type `dtype`; `stated`: the user gave the ends.

        Raises:
            InputError: whole numbers of a type that has no usual range, and none was given; ends beyond the type.
        """
        if dtype.kind not in "iu":
            return self
        lower, upper = range_of(dtype, self.lower, self.upper, stated=stated)
        return replace(self, lower=lower, upper=upper, whole=True)

    def _key(self) -> tuple[Any, ...]:
        ends = (end if np.ndim(end) == 0 else (np.shape(end), np.asarray(end).tobytes()) for end in (self.lower, self.upper))
        return (*ends, self.mean, self.std, self.whole, None if self.units is None else self.units.sha256)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputSpace) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def per_feature(self) -> bool:
        """Whether every feature has a range of its own."""
        return np.ndim(self.lower) > 0 or np.ndim(self.upper) > 0

    @property
    def interval(self) -> tuple[float, float]:
        """The one range of all input elements.

        Raises:
            InputError: there is none.
        """
        if self.per_feature:
            raise InputError("a domain per feature is not possible here; give one range for all features with --domain LO HI")
        return float(self.lower), float(self.upper)

    @property
    def hull(self) -> tuple[float, float]:
        """The smallest range that holds the domain of every feature."""
        return float(np.min(self.lower)), float(np.max(self.upper))

    @property
    def grey(self) -> tuple[float | Array, float | Array]:
        """What the 8-bit values 0 and 255 stand for: the ends of the domain; of whole numbers, unless it has 256, themselves."""
        themselves = self.whole and (self.per_feature or self.upper - self.lower != 255)
        return (0.0, 255.0) if themselves else (self.lower, self.upper)

    @property
    def plain(self) -> InputSpace:
        """The space of `x` itself."""
        return self if self.base is None else self.base

    def fitted(self, shape: Shape) -> InputSpace:
        """The same for inputs of a shape: a domain per feature has that shape then.

        Raises:
            InputError: it does not fit.
        """
        if not self.per_feature:
            return self
        lower, upper = self.ends(shape)
        return replace(self, lower=lower, upper=upper)

    def reshaped(self, shape: Shape, new: Shape) -> InputSpace:
        """The same for inputs of another shape with as many elements; what was one value per channel is one per element."""
        if shape == new:
            return self
        lower, upper = (end.reshape(new) for end in self.ends(shape)) if self.per_feature else (self.lower, self.upper)
        ms = self.mean_std(shape)
        mean, std = (None, None) if ms is None else (tuple(end.reshape(-1).tolist()) for end in ms)
        return replace(self, lower=lower, upper=upper, mean=mean, std=std)

    def ends(self, shape: Shape) -> tuple[Array, Array]:
        """Both ends of the domain, float64, of an input's shape."""
        lower, upper = (
            np.full(shape, end, dtype=np.float64) if np.ndim(end) == 0 else fill(np.asarray(end), shape, "--domain")
            for end in (self.lower, self.upper)
        )
        return lower, upper

    def measured(self, anchor: Array, scale: Array | Weights) -> InputSpace:
        """This space in units: `u = (x - anchor) / scale`, where a scale of 0 fixes a feature. The anchor is the point `u = 0`.

        Args:
            anchor: float32, `(*shape)`, inside the domain.
            scale: `(*shape)`, or one value per channel.

        Raises:
            InputError: a scale that is negative, not finite, or far too small for the domain; nothing that can move; whole numbers.
        """
        given = weights(scale)
        if self.whole:
            raise InputError(
                f"{given.option} makes points between whole numbers, and the model takes whole numbers; leave it out, "
                "or give every feature its range with --domain FILE.npy"
            )
        shape = anchor.shape
        values = fill(given.values, shape, given.option)
        fitted = self.fitted(shape)
        lower, upper = fitted.ends(shape)
        units = Units(anchor, values)
        low, high = measured_ends(lower, upper, units, given.option)
        return InputSpace(low, high, units=units, base=fitted)

    def original(self, x: Array) -> Array:
        """Points of this space `(..., *shape)` as inputs in un-normalised units: `anchor + scale u` in float32; else `x` itself."""
        return x if self.units is None else self.plain.inside(self.units.original(x))

    def check_fed(self, dtype: np.dtype[Any], shape: Shape | None = None) -> None:
        """Raises InputError where `(x - mean) / std` at an end of the domain is beyond `dtype`, the type that a model is fed.

        Args:
            shape: of an input; a domain per feature cannot be checked without it.
        """
        most = float(np.finfo(dtype).max)
        if self.per_feature:
            if shape is None:
                raise InputError("a domain per feature is not possible here; give one range for all features with --domain LO HI")
            mean, std = self.mean_std(shape) or (0.0, 1.0)
            beyond = max(float(np.abs((end - mean) / std).max()) for end in self.ends(shape))
            if not beyond <= most:
                what = f"(x - mean) / std of an end of the domain is {beyond:g}"
                raise InputError(f"{what}, beyond {most:.3g}, the largest {dtype} to feed; check --domain, --mean and --std")
            return
        means, stds = self.mean or (0.0,), self.std or (1.0,)
        for i in range(max(len(means), len(stds))):
            m, s = means[i % len(means)], stds[i % len(stds)]
            for end in self.interval:
                if not abs(end - m) <= most * s:
                    fed = f"x = {end:g}" if self.mean is None else f"(x - mean) / std of x = {end:g} with mean {m:g} and std {s:g}"
                    raise InputError(f"{fed} is beyond {most:.3g}, the largest {dtype} to feed; check --domain, --mean and --std")

    def mean_std(self, shape: Shape) -> tuple[Array, Array] | None:
        """`m` and `s` (float64) of `shape` with which a model is fed `(x - m) / s`; None without normalisation and units.

        Channels come first, else last.
        """
        if self.units is not None:
            m, s = self.plain.mean_std(shape) or (np.zeros(shape), np.ones(shape))
            return (m - self.units.anchor.astype(np.float64)) / self.units.divisor, s / self.units.divisor
        if self.mean is None or self.std is None:
            return None
        mean, std = (np.reshape(values, getattr(values, "shape", -1)) for values in (self.mean, self.std))
        return fill(mean, shape, "--mean"), fill(std, shape, "--std")

    def normalise(self, x: Array) -> Array:
        """What the model is fed for `x` of shape `(N, *shape)`: float32 arithmetic on the float64 quotient."""
        if self.units is not None:
            return self.plain.normalise(self.original(x))
        ms = self.mean_std(tuple(x.shape[1:]))
        if ms is None:
            return np.asarray(x, dtype=np.float32)
        return ((np.asarray(x, dtype=np.float64) - ms[0]) / ms[1]).astype(np.float32)

    def inside(self, x: Array) -> Array:
        """The nearest float32 points to `x`, `(..., *shape)`, that lie in the domain (float32(0.3) itself is above 0.3).

        Where inputs are whole numbers, the nearest of these.

        Raises:
            InputError: the domain is so narrow that no float32 number lies in it.
        """
        if self.whole:
            return nearest_whole(x, self.lower, self.upper)
        lower, upper = (np.asarray(end, dtype=np.float64) for end in (self.lower, self.upper))
        low, high = lower.astype(np.float32), upper.astype(np.float32)
        low = np.where(low < lower, np.nextafter(low, np.float32(np.inf)), low)
        high = np.where(high > upper, np.nextafter(high, np.float32(-np.inf)), high)
        if (low > high).any():
            at = np.flatnonzero((low > high).reshape(-1))[0]
            ends = f"{float(lower.reshape(-1)[at])!r} {float(upper.reshape(-1)[at])!r}"
            raise InputError(f"--domain {ends} holds no float32 number; widen it")
        return np.asarray(np.clip(np.asarray(x, dtype=np.float32), low, high))

    def ball(self, x0: Array, radius: float) -> tuple[Array, Array]:
        """`B(radius) = {x : |x - x0|_inf <= radius}` intersected with the domain: lower and upper end, float64.

        Both ends lie in the domain, also for an `x0` that rounding put outside of it.
        """
        centre = np.asarray(x0, dtype=np.float64)
        return np.clip(centre - radius, self.lower, self.upper), np.clip(centre + radius, self.lower, self.upper)

    def plain_ball(self, x0: Array, radius: float) -> tuple[Array, Array]:
        """The same ball as a box of inputs in un-normalised units."""
        low, high = self.ball(x0, radius)
        if self.units is None:
            return low, high
        x, plain = self.units, self.plain
        low, high = (np.clip(x.anchor + x.scale * end, plain.lower, plain.upper) for end in (low, high))
        return low, high

    def reach(self, x0: Array) -> float:
        """The radius at which the ball is the whole domain."""
        centre = np.asarray(x0, dtype=np.float64)
        return float(max((centre - self.lower).max(), (self.upper - centre).max()))

    def within_reach(self, x0: Array, radius: float) -> float:
        """A radius of the same ball that is no larger than it need be: `radius`, or a hair more than `reach(x0)`.

        `--eps 1e39` is a question about the whole domain. Programs and float32 do not bear such a number. Of whole numbers, `x0`
        among them, none lies between two whole radii.
        """
        least = min(radius, self.reach(x0) * (1 + 2.0**-40))
        return float(math.floor(least)) if self.whole else least

    def spacing(self, x: Array) -> Array:
        """The step of float32 at every element of `x`, in the units of this space."""
        step: Array = np.spacing(np.abs(np.asarray(x)).astype(np.float32)).astype(np.float64)
        return step if self.units is None else np.asarray(np.maximum(step, self.units.spacing(x)))

    def check(self, x: Array, what: str) -> None:
        """Raises InputError where `x` has NaN or leaves the domain."""
        if not np.isfinite(x).all():
            bad = int((~np.isfinite(x)).sum())
            raise InputError(f"{what} contains NaN or infinite values ({bad} of {x.size}); give finite numbers")
        check_inside(np.asarray(x), self.lower, self.upper, what)

    @property
    def domain_sha256(self) -> str | None:
        """Hash of both ends of a domain per feature (float64, little-endian, all lower ends first); None: one range for all."""
        if not self.per_feature:
            return None
        return sha256(np.stack([np.asarray(self.lower), np.asarray(self.upper)]))

    def to_json(self) -> dict[str, Any]:
        """The key `input` of documents: `domain` is a pair, or per feature the lowest and the highest end and a hash."""
        plain = self.plain
        low, high = plain.hull
        own = {"lowest": low, "highest": high, "sha256": plain.domain_sha256}
        domain = own if plain.per_feature else [plain.lower, plain.upper]
        scale = None
        if self.units is not None:
            values = self.units.scale
            scale = {"lowest": float(values.min()), "highest": float(values.max()), "sha256": self.units.sha256}
        return {"domain": domain, "mean": plain.mean, "std": plain.std, "scale": scale}
