"""A unit of work as the ledger knows it, and many of them by kind and state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Group", "Unit", "UnitKey", "numbered"]

UnitKey = tuple[str, int, str, str, float, str]
"""`(model, sample, kind, method, gamma, verifier)` of a unit; see `onnxsub.evaluate.ledger.Ledger.add`."""


@dataclass(frozen=True)
class Unit:
    """A row of the ledger, without its point.

    Attributes:
        model: name of the network. sample: position in the data set.
        needs: the attack that it builds on.
        deaths: how often its worker was lost.
    """

    id: int
    model: str
    sample: int
    kind: str
    method: str | None
    gamma: float | None
    verifier: str | None
    needs: int | None
    state: str
    attempts: int
    deaths: int
    reason: str | None
    seconds: float | None
    result: Mapping[str, Any] | None


@dataclass(frozen=True)
class Group:
    """Units that are alike but for model and sample.

    Attributes:
        kind, method, gamma, verifier, state: of each, as in `Unit`. count: how many there are.
        seconds: that they took, all together. timed: of them, those that took any.
    """

    kind: str
    method: str | None
    gamma: float | None
    verifier: str | None
    state: str
    count: int
    seconds: float
    timed: int

    @staticmethod
    def of(kind: str, method: str, gamma: float, verifier: str, *rest: Any) -> Group:
        """From the values of a ledger, which has empty ones."""
        return Group(kind, method or None, None if gamma < 0 else gamma, verifier or None, *rest)


def numbered(units: Iterable[UnitKey], first: int) -> Iterator[tuple[Any, ...]]:
    """The units with their places, and those of the attacks that they need."""
    attacks: dict[tuple[str, int], int] = {}
    for place, unit in enumerate(units, first):
        model, sample, kind, *_ = unit
        yield place, *unit, attacks.get((model, sample))
        if kind == "attack":
            attacks[model, sample] = place
