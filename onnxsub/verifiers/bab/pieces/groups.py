"""Which maxima are bounded together: those that share inputs, as far as all choices of a group stay few."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.maxima import Maxima

__all__ = ["Groups"]

_CHOICES = 64  # of a group, at most


@dataclass(frozen=True, eq=False)
class Groups:
    """A partition of the units that a row may rise with; those of a group have one depth.

    Attributes:
        members: numbers of the units of each group.
        choices: `(K, members)` each: which element of every member is the largest one.
    """

    members: tuple[tuple[int, ...], ...]
    choices: tuple[Array, ...]

    @staticmethod
    def of(row: Maxima, radius: float) -> Groups:
        """Groups joined greedily by how much of the inputs within a radius their elements differ on together."""
        low, high = row.within(radius)
        half, most = (high - low) / 2, row.ends[1]
        members = list[tuple[int, ...]]()
        for depth in sorted(set(row.depths[list(row.rising)].tolist()), reverse=True):
            own = [q for q in row.rising if row.depths[q] == depth]
            spans = np.array([np.ptp(row.units[q].w, axis=0) * half * most[q] for q in own])
            members += _joined(own, spans, np.array([len(row.units[q].b) for q in own]))
        choices = [np.array(list(itertools.product(*(range(len(row.units[q].b)) for q in g))), dtype=np.int64) for g in members]
        return Groups(tuple(members), tuple(choices))

    @property
    def most(self) -> int:
        """The largest number of choices of a group."""
        return max((len(c) for c in self.choices), default=0)

    @property
    def there(self) -> Array:
        """All choices: `(groups, most)`, bool."""
        return np.arange(self.most) < np.array([len(c) for c in self.choices], dtype=np.int64)[:, None]

    @property
    def largest(self) -> int:
        """The largest number of members of a group."""
        return max((len(m) for m in self.members), default=0)

    def allowed(self, unit: int, element: int) -> Array:
        """The choices in which one of the units is one of its elements; all those of other groups: `(groups, most)`, bool."""
        found = np.zeros((len(self.members), self.most), dtype=np.bool_)
        for g, (members, choices) in enumerate(zip(self.members, self.choices, strict=True)):
            found[g, : len(choices)] = choices[:, members.index(unit)] == element if unit in members else True
        return found


def _joined(units: list[int], spans: Array, size: Array) -> list[tuple[int, ...]]:
    """Groups of some units by what their elements differ on, `(units, n)`, each with so many elements."""
    groups: list[tuple[int, ...]] = [(q,) for q in units]
    shared = np.array([np.minimum(s, spans).sum(axis=1) for s in spans])
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
    return groups
