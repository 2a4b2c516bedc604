"""Which maxima are bounded together: those that share inputs, as far as all choices of a group stay few."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.maxima import Affines, Maxima

__all__ = ["Groups"]

_CHOICES = 16  # of a group, at most


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of a row's maxima.

    Attributes:
        members: numbers of the maxima of each group.
        choices: `(K, members)` each: which element of every member is the largest one.
    """

    members: tuple[tuple[int, ...], ...]
    choices: tuple[Array, ...]

    @staticmethod
    def of(row: Maxima, radius: float) -> Groups:
        """Groups joined greedily by how much of the inputs within a radius their elements differ on together."""
        low, high = row.within(radius)
        half = (high - low) / 2
        spans = np.array([np.ptp(e.w, axis=0) * half for e in row.rising]).reshape(len(row.rising), len(half))
        shared = np.array([np.minimum(s, spans).sum(axis=1) for s in spans]).reshape(len(spans), len(spans))
        groups: list[tuple[int, ...]] = [(i,) for i in range(len(spans))]
        size = np.array([len(e.b) for e in row.rising])
        while len(groups) > 1:
            fits = size[:, None] * size <= _CHOICES
            np.fill_diagonal(fits, val=False)
            score = np.where(fits, shared, 0.0)
            i, j = sorted(divmod(int(score.argmax()), len(groups)))
            if not score[i, j] > 0:
                break
            groups[i] += groups.pop(j)
            size[i] *= size[j]
            shared[i] += shared[j]
            shared[:, i] += shared[:, j]
            shared, size = np.delete(np.delete(shared, j, axis=0), j, axis=1), np.delete(size, j)
        choices = [np.array(list(itertools.product(*(range(len(row.rising[c].b)) for c in g))), dtype=np.int64) for g in groups]
        return Groups(tuple(groups), tuple(choices))

    @property
    def most(self) -> int:
        """The largest number of choices of a group."""
        return max((len(c) for c in self.choices), default=0)

    def joined(self, rising: tuple[Affines, ...]) -> list[Affines]:
        """The maxima of the groups: an element per choice, the sum of what is chosen."""
        found = []
        for members, choices in zip(self.members, self.choices, strict=True):
            parts = [rising[c].take(choices[:, k]) for k, c in enumerate(members)]
            found.append(Affines(np.sum([p.w for p in parts], axis=0), np.sum([p.b for p in parts], axis=0)))
        return found

    def allowed(self, winner: int, element: int) -> Array:
        """The choices in which one of the maxima is one of its elements; all those of other groups: `(groups, most)`, bool."""
        found = np.zeros((len(self.members), self.most), dtype=np.bool_)
        for g, (members, choices) in enumerate(zip(self.members, self.choices, strict=True)):
            found[g, : len(choices)] = choices[:, members.index(winner)] == element if winner in members else True
        return found
