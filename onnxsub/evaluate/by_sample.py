"""The distances of a run, sample by sample: what all rows of one network, verifier and sample say together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxsub.evaluate.row import Row

__all__ = ["SampleDistances", "SubstituteDistances", "by_sample", "known"]

_ENDED = ("exact", "bracket", "none")

References = Mapping[tuple[str, int], float]


def known(status: str) -> bool:
    """Whether a distance was searched for and the search has ended: neither open, nor failed, nor of a misclassified sample."""
    return status in _ENDED


@dataclass(frozen=True)
class SubstituteDistances:
    """What one substitute says of a sample. None: not known, infinite, or not applicable.

    Attributes:
        method, gamma: of the substitute.
        status: of its distance, as in `onnxsub.evaluate.row.Row`; `none` also where there was no radius to prune for.
        asked: whether its distance was searched for.
        d_hat_lower, d_hat_upper: bracket of its own distance.
        certified_lower, certified_upper: bracket that it proves of the network's distance.
    """

    method: str
    gamma: float
    status: str
    asked: bool
    d_hat_lower: float | None
    d_hat_upper: float | None
    certified_lower: float | None
    certified_upper: float | None

    @staticmethod
    def of(row: Row) -> SubstituteDistances:
        """From a row of the results."""
        return SubstituteDistances(
            row.method, row.gamma, row.status_hat, known(row.status_hat) and row.time_hat is not None, row.d_hat_lower,
            row.d_hat_upper, row.original_lower, row.original_upper,
        )  # fmt: skip


@dataclass(frozen=True)
class SampleDistances:
    """What is known of a sample of one network. None: not known, infinite, or not applicable.

    Attributes:
        model, verifier, index, label, predicted, adversarial_label: as in a row.
        status: of the network's own distance.
        d_bnd_lower, d_bnd_upper: its bracket. d_adv: of the attack.
        certified_lower: the largest lower end that a substitute proves of the network's distance.
        time_bnd: seconds of the network's own distance.
        reference: a published value of it, or any other.
        substitutes: in the order of the run.
    """

    model: str
    verifier: str
    index: int
    label: int | None
    predicted: int | None
    adversarial_label: int | None
    status: str
    d_bnd_lower: float | None
    d_bnd_upper: float | None
    d_adv: float | None
    certified_lower: float | None
    time_bnd: float | None
    reference: float | None
    substitutes: tuple[SubstituteDistances, ...]

    @property
    def attacked(self) -> bool:
        """Whether an attack has been tried, on a sample that is not misclassified to begin with."""
        return self.label is not None and self.status != "misclassified"

    @property
    def reference_difference(self) -> float | None:
        """How far the reference lies from the bracket, relative to it: 0 within, positive above. None without one or a bracket."""
        value, low = self.reference, self.d_bnd_lower
        if value is None or low is None or not known(self.status):
            return None
        high = math.inf if self.d_bnd_upper is None else self.d_bnd_upper
        beside = value - high if value > high else value - low if value < low else 0.0
        return beside / value if value else None

    @property
    def near(self) -> tuple[float, float, int]:
        """A key that sorts samples by what is known of their distance, the nearest first, misclassified and open ones last."""
        upper = self.d_bnd_upper if known(self.status) else None
        upper = upper if upper is not None else self.d_adv if self.attacked else None
        return (math.inf if upper is None else upper, self.d_bnd_lower or 0.0, self.index)

    def to_json(self) -> dict[str, Any]:
        """Under the names of the fields, and `reference_difference`."""
        return {**asdict(self), "reference_difference": self.reference_difference}


def by_sample(rows: Iterable[Row], references: References | None = None) -> list[SampleDistances]:
    """The samples in the order of the rows, network by network and verifier by verifier.

    Args:
        references: (network, sample) -> value.
    """
    groups: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        groups.setdefault((row.model, row.verifier), {}).setdefault(row.index, []).append(row)
    return [_sample(members, references or {}) for samples in groups.values() for members in samples.values()]


def _sample(rows: list[Row], references: References) -> SampleDistances:
    first = rows[0]
    substitutes = tuple(SubstituteDistances.of(r) for r in rows)
    certified = [s.certified_lower for s in substitutes if s.certified_lower is not None]
    return SampleDistances(
        first.model, first.verifier, first.index, first.label, first.predicted, first.adversarial_label, first.status_bnd,
        first.d_bnd_lower, first.d_bnd_upper, first.d_adv, max(certified, default=None), first.time_bnd,
        references.get((first.model, first.index)), substitutes,
    )  # fmt: skip
