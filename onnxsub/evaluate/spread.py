"""How the distances of a run are spread over its samples: mean, median, quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxsub.evaluate.by_sample import SampleDistances, known
from onnxsub.evaluate.numbers import Digits

__all__ = [
    "FIGURES", "LEVELS", "DistanceSpread", "Quantity", "quantities", "spread_of", "spread_rows", "spreads", "title_of",
]  # fmt: skip

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
FIGURES = ("mean", "sd", "min", "q10", "q25", "median", "q75", "q90", "max")


@dataclass(frozen=True)
class Quantity:
    """One distance of every sample that has it.

    Attributes:
        name: `d_bnd_lower`, `d_bnd_upper`, `d_adv`, `certified_lower` (the largest of the substitutes), `d_hat_lower`,
            `d_hat_upper`, `reference`.
        method, gamma: of the substitute, where the distance is one's.
        values: of the samples whose search has ended; None where the distance is infinite or nothing bounds it.
    """

    name: str
    method: str | None
    gamma: float | None
    values: tuple[float | None, ...]

    @property
    def finite(self) -> list[float]:
        """Those that have a value, in ascending order."""
        return sorted(v for v in self.values if v is not None)


@dataclass(frozen=True)
class DistanceSpread:
    """One distance over the samples of a network. None where no sample has a value.

    Attributes:
        model, verifier: of the samples. quantity, method, gamma: see `Quantity`.
        samples: whose search has ended. counted: among them, with a finite value; all figures are over these.
        mean, sd: and standard deviation (n - 1).
        min, q10, q25, median, q75, q90, max: quantiles, between two samples in a straight line.
    """

    model: str
    verifier: str
    quantity: str
    method: str | None
    gamma: float | None
    samples: int
    counted: int
    mean: float | None
    sd: float | None
    min: float | None
    q10: float | None
    q25: float | None
    median: float | None
    q75: float | None
    q90: float | None
    max: float | None

    def to_json(self) -> dict[str, Any]:
        """Under the names of the fields."""
        return asdict(self)


def quantities(samples: Sequence[SampleDistances]) -> list[Quantity]:
    """The distances that samples of one network and verifier have."""
    ended = [s for s in samples if known(s.status)]
    found = [
        Quantity("d_bnd_lower", None, None, tuple(s.d_bnd_lower for s in ended)),
        Quantity("d_bnd_upper", None, None, tuple(s.d_bnd_upper for s in ended)),
        Quantity("d_adv", None, None, tuple(s.d_adv for s in samples if s.attacked)),
        Quantity("certified_lower", None, None, tuple(s.certified_lower for s in samples if s.certified_lower is not None)),
        Quantity("reference", None, None, tuple(s.reference for s in samples if s.reference is not None)),
    ]
    for method, gamma in dict.fromkeys((x.method, x.gamma) for s in samples for x in s.substitutes):
        own = [x for s in samples for x in s.substitutes if (x.method, x.gamma) == (method, gamma) and x.asked]
        found.append(Quantity("d_hat_lower", method, gamma, tuple(x.d_hat_lower for x in own)))
        found.append(Quantity("d_hat_upper", method, gamma, tuple(x.d_hat_upper for x in own)))
    return [q for q in found if q.values]


def spread_of(model: str, verifier: str, quantity: Quantity) -> DistanceSpread:
    """Its figures."""
    values = np.array(quantity.finite)
    found: dict[str, float | None] = dict.fromkeys(FIGURES)
    if len(values):
        found |= zip(("q10", "q25", "median", "q75", "q90"), np.quantile(values, LEVELS).tolist(), strict=True)
        found |= {"mean": float(values.mean()), "min": float(values[0]), "max": float(values[-1])}
    if len(values) > 1:
        found["sd"] = float(values.std(ddof=1))
    return DistanceSpread(
        model, verifier, quantity.name, quantity.method, quantity.gamma, len(quantity.values), len(values), **found
    )  # fmt: skip


def spreads(samples: Iterable[SampleDistances]) -> list[DistanceSpread]:
    """One line per network, verifier and distance."""
    groups: dict[tuple[str, str], list[SampleDistances]] = {}
    for sample in samples:
        groups.setdefault((sample.model, sample.verifier), []).append(sample)
    return [spread_of(*key, quantity) for key, members in groups.items() for quantity in quantities(members)]


_TITLES = {
    "d_bnd_lower": "d_bnd, lower end", "d_bnd_upper": "d_bnd, upper end", "d_adv": "d_adv", "reference": "reference",
    "certified_lower": "certified lower end", "d_hat_lower": "d_hat {}, lower end", "d_hat_upper": "d_hat {}, upper end",
}  # fmt: skip


def title_of(x: Quantity | DistanceSpread) -> str:
    """What a distance is called where people read it."""
    name = x.name if isinstance(x, Quantity) else x.quantity
    return _TITLES[name].format("" if x.gamma is None else f"{x.method} {x.gamma:g}")


def spread_rows(lines: Sequence[DistanceSpread], digits: Digits) -> list[tuple[str, ...]]:
    """One row per distance: its name, of how many samples, and `FIGURES`. Two ends that look the same are one row."""
    rows: list[tuple[str, ...]] = []
    for x in lines:
        counted = f"{x.counted:,}" if x.counted == x.samples else f"{x.counted:,} of {x.samples:,}"
        row = (title_of(x), counted, *(digits.near(getattr(x, name)) for name in FIGURES))
        if rows and x.quantity.endswith("_upper") and rows[-1][1:] == row[1:]:
            rows.pop()
            row = (row[0].removesuffix(", upper end"), *row[1:])
        rows.append(row)
    return rows
