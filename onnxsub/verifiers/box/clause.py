"""The points of a box at which one clause holds, as mixed-integer programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import Windows, choices
from onnxsub.passes.windows import original_windows
from onnxsub.verifiers.box.by_programs import Relaxable, tighten_by_programs
from onnxsub.verifiers.box.one_sided import pulled_down, switched_units
from onnxsub.verifiers.programs.encode import Encoding, encode_network
from onnxsub.verifiers.programs.solvers import Problem, SolverOptions

if TYPE_CHECKING:
    from onnxsub.verifiers.box.model import BoxModel

__all__ = ["ROOM", "ClauseModel"]

ROOM = 1e-6
"""What is claimed for `B(r)` is asked of `B((1 + ROOM) r)`: whatever lies in the smaller ball has room round it in the larger one,
and a solver that calls a sliver empty does not hide it."""


@dataclass(frozen=True, eq=False)
class ClauseModel:
    """The points of a box at which every row of a clause is `>= 0`. A target class is a clause with one row.

    Attributes:
        local: the box and its rows.
        key: of the clause.
        members: its rows.
        lower, upper, intervals: hold at these points.
        enforced: units that are stable at these points only: their intervals become rows.
    """

    local: BoxModel
    key: int
    members: tuple[int, ...]
    lower: Array
    upper: Array
    intervals: Mapping[str, tuple[Array, Array]]
    enforced: Mapping[str, Array]

    def __post_init__(self) -> None:
        # an end that is no number bounds nothing; a comparison with it would say that the unit is neither on nor off nor open
        sane = {n: (_or(l, -np.inf), _or(u, np.inf)) for n, (l, u) in self.intervals.items()}
        object.__setattr__(self, "intervals", sane)

    @property
    def row(self) -> int:
        """The row of a clause that has one."""
        (row,) = self.members
        return row

    @property
    def slack(self) -> float:
        """The slack of its row, or the largest of its rows."""
        return max(self.local.slack(r) for r in self.members)

    @property
    def binaries(self) -> int:
        """Units that are not stable and choices of windows: what searches go by; programs may need fewer binaries (`pulled`)."""
        windowed = self.local.network.windowed
        count = sum(choices(original_windows(op).table, *self.intervals[op.output]) for op in windowed)
        for op in self.local.network.activations:
            ends = (torch.as_tensor(np.array(e)).reshape(op.in_shapes[0]) for e in self.intervals[op.output])
            count += int((~op.affine_on(*ends)).sum())
        return count

    @cached_property
    def pulled(self) -> Mapping[str, Array]:
        """Units that need no binary (`one_sided.py`), flat, by operator; of a clause with one row only."""
        if len(self.members) > 1:
            return {}
        row = np.zeros(self.local.network.classes)
        row[self.row] = 1.0
        return pulled_down(self.local.network, row, self.intervals)

    def _eased(self, encoding: Encoding, problem: Problem) -> Problem:
        """A program without the binaries of units that the row pulls down."""
        integer = problem.integer.copy()
        for op in self.local.network.nonlinear:
            mask = self.pulled.get(op.output)
            if mask is None or not isinstance(op, Relu | Windows):
                continue
            columns, units = encoding.switches[op.output], switched_units(op, *self.intervals[op.output])
            assert len(columns) == len(units)  # what `encode` makes binaries for
            integer[columns[mask[units]]] = False
        return replace(problem, integer=integer)

    @property
    def scale(self) -> float:
        """Size of the rows, at least 1."""
        local = self.local
        return 1.0 + max(float(np.abs([local.lowest[r], local.highest[r]]).max()) for r in self.members)

    @property
    def decision_options(self) -> SolverOptions:
        """A point is enough once its rows are beyond what float32 rounds away."""
        return SolverOptions(stop_at=-1e-4 * self.scale, abs_gap=1e-6 * self.scale)

    def _encode(self) -> Encoding:
        local = self.local
        unit = local.box.radius * (1 + ROOM)
        return encode_network(
            local.network, local.box.x0, self.lower, self.upper, self.intervals, radius=unit if unit > 0 else None,
            enforced=self.enforced,
        )  # fmt: skip

    @cached_property
    def _ball(self) -> Encoding:
        return self._encode()

    @cached_property
    def _measured(self) -> tuple[Encoding, LinExpr]:
        encoding = self._encode()
        return encoding, encoding.add_distance()

    def _rows(self, encoding: Encoding) -> list[LinExpr]:
        return [encoding.logits.take(np.array([r])) for r in self.members]

    def _holds(self, rows: list[LinExpr]) -> list[tuple[LinExpr, float, float]]:
        return [(row, -self.local.slack(r), np.inf) for row, r in zip(rows, self.members, strict=True)]

    def tightened(self, budget: Budget) -> ClauseModel | None:
        """The same with units bounded by linear programs; None: these prove that the clause does not hold anywhere.

        Args:
            budget: asked before every program; when it ends the work ends with what is proved so far.
        """

        def encode(intervals: Mapping[str, tuple[Array, Array]], enforced: Mapping[str, Array]) -> Encoding:
            return replace(self, intervals=intervals, enforced=enforced)._encode()

        def rows(encoding: Encoding) -> list[tuple[LinExpr, float]]:
            return [(row, end) for row, end, _ in self._holds(self._rows(encoding))]

        question = Relaxable(self.local.network, self.local.arrays(), encode, rows)
        found = tighten_by_programs(question, self.intervals, budget)
        return None if found is None else replace(self, intervals=found[0], enforced=found[1])

    def decision(self) -> Problem:
        r"""`max min_r row_r` over the points where every row is at least minus its slack; infeasible: there is no such point.

        Several rows share a column t with `t <= row_r`.
        """
        encoding = self._ball
        rows = self._rows(encoding)
        if len(rows) == 1:
            return self._eased(encoding, encoding.model.problem(-rows[0], *self._holds(rows)))
        encoding = self._encode()  # the column t is of this question only
        rows = self._rows(encoding)
        least = encoding.model.continuous(np.array([-self.scale]), np.array([self.scale]))
        return encoding.model.problem(-least, *self._holds(rows), *((row - least, 0.0, np.inf) for row in rows))

    def relaxed(self) -> tuple[Problem, Array, Array]:
        """`max row` over the points of the box, whatever its sign; the columns of `(x - x0) / u`, and their units u."""
        ball = self._ball
        problem = self._eased(ball, ball.model.problem(-self._rows(ball)[0]))
        return problem, ball.steps.matrix.indices, ball.units

    def minimum(self) -> Problem:
        """`min |x - x0|_inf` over the points at which the clause holds; the columns of `decision` come first."""
        encoding, distance = self._measured
        return self._eased(encoding, encoding.model.problem(distance, *self._holds(self._rows(encoding))))

    def point(self, solution: Array) -> Array:
        """The input of a solution of `decision` or `minimum`, `(*input_shape)`, float64."""
        return self._ball.point(solution)

    def within(self, radius: float) -> ClauseModel:
        """The same on a smaller ball (and a little more, as every ball that something is claimed for)."""
        x0, r = self.local.box.x0, radius * (1 + ROOM)
        lower, upper = np.maximum(self.lower, x0 - r), np.minimum(self.upper, x0 + r)
        return replace(self, lower=lower, upper=np.maximum(lower, upper))


def _or(ends: Array, end: float) -> Array:
    bad = np.isnan(ends)
    return np.where(bad, end, ends) if bad.any() else ends
