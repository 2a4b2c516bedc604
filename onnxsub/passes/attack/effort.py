"""How much an attack does: less of everything on a network on which one gradient is dear."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Effort", "affordable"]

_AT_EASE = 4e7
"""Multiplications of a forward pass up to which nothing is spared: about 6,000 gradients in ten seconds of one core."""


@dataclass(frozen=True)
class Effort:
    """What a share of the usual work comes to.

    Attributes:
        targets: classes tried at all, the most promising ones by the logits at the anchor.
        signs: classes whose gradient's sign is searched along.
        scouted: classes to which a short descent leads.
        restarts: descents in one batch.
        finalists: best rows that are polished.
    """

    targets: int
    signs: int
    scouted: int
    restarts: int
    finalists: int

    @staticmethod
    def of(share: float, restarts: int) -> Effort:
        """Of `share` in (0, 1] of the work: at least two of each."""

        def part(whole: int) -> int:
            return max(min(2, whole), math.ceil(share * whole))

        return Effort(part(64), part(10), 64 if share == 1 else part(20), part(restarts), part(6))


def affordable(multiplications: int) -> float:
    """The share of an attack's usual work on a network whose forward pass takes so many multiplications.

    `sqrt(4e7 / multiplications)`, at most 1: time grows with the root of the network's size.
    """
    return min(1.0, math.sqrt(_AT_EASE / max(multiplications, 1)))
