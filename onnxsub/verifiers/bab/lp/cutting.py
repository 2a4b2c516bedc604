"""Rounds of cuts from the hulls of units and windows: at the root until they gain little, at a node one or two."""

from __future__ import annotations

from dataclasses import replace

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.hull_pairs import join
from onnxsub.verifiers.bab.lp.hull_windows import Hulls
from onnxsub.verifiers.bab.lp.relaxation import Relaxation, Solved
from onnxsub.verifiers.proof import excludes

__all__ = ["Cutting"]

_ROUNDS = 60
_LITTLE, _LOOK_BACK = 0.02, 4  # relative gain of as many rounds at the root after which there is no other
_LITTLE_OF_UNITS = 0.1  # the same of one round where there are no windows: a tree of Relus is quick
_LITTLE_AT_NODES = 0.1  # the same of one round at a node
_INNER = 0.4  # how far towards the solution cuts are looked for
_OVER = 1e-6  # by how much a solution must violate a cut to be cut off by it, and be away from one to drop it
_DROP = 3  # rounds after which cuts are dropped that hold nothing up
_MANY = 1.25  # as many times the rows that the root was left with, before the same happens at a node
_AT_NODES = 2  # rounds


class Cutting:
    """The cuts of one relaxation. They hold for every node, wherever they were found."""

    def __init__(self, linear: Relaxation, budget: Budget) -> None:
        self._linear = linear
        self._budget = budget
        self._hulls = Hulls.of(linear.problem)
        self._rows = linear.problem.rows

    def root(self, radius: float) -> bool:
        """Adds cuts round by round, until the bound within `radius` is negative or gains little; then those of pairs, too.

        Where there are windows, cuts are looked for between the solution and the mean of the latest ones, where they cut deeper
        (Ben-Ameur and Neto 2007); those that hold nothing up are dropped again.

        Returns:
            Whether the bound proves that there is no point within `radius`.
        """
        linear = self._linear
        solved = self._round_by_round(radius)
        value = linear.value(solved, radius)
        if self._hulls.windows and solved.columns is not None and value >= 0 and not self._budget.over:
            again = linear.solve({}, radius)  # rows may have gone since
            joined = None if again.columns is None else join(linear.problem, self._hulls.windows, again.columns, again.multipliers)
            if joined is not None:
                linear.widen(joined.columns, joined.rows)
                self._hulls = replace(self._hulls, pairs=joined.pairs)
                value = linear.value(self._round_by_round(radius), radius)
        self._rows = linear.problem.rows
        return excludes(value)

    def _round_by_round(self, radius: float) -> Solved:
        """The last solution."""
        linear, values = self._linear, list[float]()
        little, back = (_LITTLE, _LOOK_BACK) if self._hulls.windows else (_LITTLE_OF_UNITS, 1)
        centre: Array | None = None
        solved = linear.solve({}, radius)
        for number in range(_ROUNDS):
            values.append(linear.value(solved, radius))
            late = number >= back and values[-1] > (1 - little) * values[-1 - back]
            if solved.columns is None or values[-1] < 0 or late or self._budget.over:
                break
            if number % _DROP == _DROP - 1:
                linear.drop(_OVER)
            centre = solved.columns if centre is None or not self._hulls.windows else (centre + solved.columns) / 2
            cuts = self._hulls.at(linear.problem, _INNER * solved.columns + (1 - _INNER) * centre)
            cuts = [c for c in cuts if c.over(solved.columns) > _OVER]
            if not cuts:
                centre = solved.columns
                cuts = self._hulls.at(linear.problem, centre)
            if not cuts:
                break
            linear.add(cuts)
            solved = linear.solve({}, radius)
        return solved

    def node(self, solved: Solved, fixed: dict[int, int], radius: float) -> Solved:
        """The relaxation of a node with the cuts that its solution violates."""
        linear = self._linear
        if not self._hulls.windows:
            return solved
        value = linear.value(solved, radius)
        for _ in range(_AT_NODES):
            cuts = [] if solved.columns is None or value < 0 else self._hulls.at(linear.problem, solved.columns)
            if not cuts:
                break
            if linear.problem.rows > _MANY * self._rows:
                linear.drop(_OVER)
            linear.add(cuts)
            before, solved = value, linear.solve(fixed, radius)
            value = linear.value(solved, radius)
            if value > (1 - _LITTLE_AT_NODES) * before:
                break
        return solved
