r"""Pointwise robustness and what it says of a data set: adversarial frequency and severity (Bastani et al. 2016, section 2).

    rho(x)  = inf { e : the class changes on B(e) }            pointwise robustness; the distance to the decision boundary
    phi(e)  = Pr[ rho <= e ]                                   adversarial frequency: how often
    mu(e)   = E[ rho | rho <= e ]                              adversarial severity: how near, where it happens at all

A sample's rho is known as a bracket `lower <= rho <= upper`: both ends agree for an exact distance, a certified bound has an
infinite upper end, an attack or the linear-region program the lower end 0. phi and mu are then brackets too, the extremes over all
rho that the brackets admit: nothing is assumed of the values between their ends.

A misclassified sample has rho = 0: no change of the input is needed for a wrong class. (Bastani et al. ask for a change of the
*predicted* class, for which every sample has rho > 0; `counted(rhos, misclassified=False)` leaves such samples out.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.intervals import Interval, clopper_pearson, hoeffding_error
from onnxsub.ops.base import Array
from onnxsub.verifiers.result import DistanceResult

__all__ = ["CurvePoint", "Rho", "counted", "curve", "estimated", "frequency", "frequency_interval", "rho_of", "severity"]


@dataclass(frozen=True)
class Rho:
    """`lower <= rho <= upper` for one sample, in un-normalised input units.

    Attributes:
        misclassified: the sample is of another class to begin with; both ends are 0.
    """

    lower: float
    upper: float
    misclassified: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.lower <= self.upper:  # NaN fails too
            raise InputError(f"a distance in [{self.lower:g}, {self.upper:g}] is impossible; give 0 <= lower <= upper")
        if self.misclassified and self.upper > 0:
            raise InputError(f"a misclassified sample has distance 0, not [{self.lower:g}, {self.upper:g}]")

    @property
    def exact(self) -> bool:
        return self.lower == self.upper


def rho_of(result: DistanceResult) -> Rho:
    """The bracket that a distance proves of the model itself (by way of a substitute: its `original`)."""
    if result.status == "misclassified":
        return Rho(0.0, 0.0, misclassified=True)
    known = result if result.original is None else result.original
    return Rho(known.lower, max(known.lower, known.upper))


def counted(rhos: Iterable[Rho], *, misclassified: bool = True) -> tuple[Rho, ...]:
    """The samples that count: all, or only those whose class is right to begin with."""
    return tuple(r for r in rhos if misclassified or not r.misclassified)


def frequency(rhos: Sequence[Rho], eps: float) -> tuple[float, float]:
    """Bracket of the share of samples with `rho <= eps`: surely (`upper <= eps`), and possibly (`lower <= eps`).

    Raises:
        InputError: no samples, or a negative radius.
    """
    lower, upper = _ends(rhos)
    _check_radius(eps)
    return float((upper <= eps).mean()), float((lower <= eps).mean())


def frequency_interval(rhos: Sequence[Rho], eps: float, confidence: float) -> Interval:
    """phi of the distribution that the samples were drawn from independently: Clopper-Pearson round the samples' bracket.

    The lower end is that of the count `upper <= eps`, the upper end that of `lower <= eps`. Each fails with probability
    `(1 - confidence) / 2` at most, so the interval holds at `confidence`, open brackets included.
    """
    low, high = (round(share * len(rhos)) for share in frequency(rhos, eps))
    one, other = (clopper_pearson(k, len(rhos), confidence) for k in (low, high))
    return Interval(one.lower, other.upper, confidence, "clopper-pearson")


def estimated(values: Sequence[float], eps: float) -> tuple[float, float | None]:
    """Frequency and severity as the values say that are taken for rho (of an attack, a substitute, a linear program), unproved.

    As Bastani et al. 2016 and others report them. The severity is None where no value is at most eps.

    Raises:
        InputError: no values, one that is no distance, or a negative radius.
    """
    _check_radius(eps)
    found = np.asarray(values, dtype=np.float64)
    if not len(found) or not (found >= 0).all():  # NaN fails too
        raise InputError("there are no distances, or one that is negative; give one per sample, infinite where none was found")
    near = found[found <= eps]
    return len(near) / len(found), float(near.mean()) if len(near) else None


def severity(rhos: Sequence[Rho], eps: float) -> tuple[float, float] | None:
    """Bracket of the mean of rho over the samples with `rho <= eps`; None where no sample can have that.

    The extremes over all `lower_i <= rho_i <= upper_i`. A sample with `upper <= eps` counts with either of its ends. One with
    `lower <= eps < upper` may count with anything from `lower` to eps, or not at all, so the largest mean has all of these at
    eps, which is no less than the mean of the others; the smallest one has them at `lower` in ascending order, as long as that
    lowers the mean.
    """
    lower, upper = _ends(rhos)
    _check_radius(eps)
    surely = upper <= eps
    maybe = np.sort(lower[(lower <= eps) & ~surely])
    count = int(surely.sum())
    if count + len(maybe) == 0:
        return None
    largest = (float(upper[surely].sum()) + len(maybe) * eps) / (count + len(maybe))
    # the mean with the first k of them: it falls as long as the next one is below it
    counts = count + np.arange(len(maybe) + 1)
    sums = float(lower[surely].sum()) + np.concatenate([[0.0], np.cumsum(maybe)])
    means = sums[counts > 0] / counts[counts > 0]
    smallest = float(means.min())
    return smallest, max(largest, smallest)


@dataclass(frozen=True)
class CurvePoint:
    """Frequency and severity at one radius.

    Attributes:
        eps: the radius.
        frequency_lower, frequency_upper: bracket of the samples' share.
        band_lower, band_upper: of the distribution's, at all radii together, with the confidence that was asked for.
        severity_lower, severity_upper: bracket of the samples' mean; None where no sample has `rho <= eps`.
    """

    eps: float
    frequency_lower: float
    frequency_upper: float
    band_lower: float
    band_upper: float
    severity_lower: float | None
    severity_upper: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def curve(rhos: Sequence[Rho], grid: Iterable[float] | Array, confidence: float = 0.95) -> tuple[CurvePoint, ...]:
    """phi and mu over a grid of radii, with a band that contains the whole curve of the distribution.

    phi is the distribution function of rho, so `sup_e |phi_N(e) - phi(e)| <= sqrt(ln(2 / alpha) / (2 N))` with probability
    `1 - alpha` (Dvoretzky, Kiefer and Wolfowitz 1956, constant by Massart 1990): Hoeffding's error, here for all radii at once. The
    lower edge is drawn below the share that is sure, the upper one above the share that is possible.
    """
    lower, _ = _ends(rhos)
    error = hoeffding_error(len(lower), confidence)
    points = []
    for eps in grid:
        low, high = frequency(rhos, float(eps))
        mean = severity(rhos, float(eps))
        ends = (None, None) if mean is None else mean
        points.append(CurvePoint(float(eps), low, high, max(0.0, low - error), min(1.0, high + error), *ends))
    return tuple(points)


def _ends(rhos: Sequence[Rho]) -> tuple[Array, Array]:
    if len(rhos) == 0:
        raise InputError("no samples: frequency and severity need at least one distance")
    return np.array([r.lower for r in rhos]), np.array([r.upper for r in rhos])


def _check_radius(eps: float) -> None:
    if not (eps >= 0 and math.isfinite(eps)):
        raise OptionError(f"--eps {eps:g} must be a number of at least 0")
