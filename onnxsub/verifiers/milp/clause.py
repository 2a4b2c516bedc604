"""One case of a property as mixed-integer programs: a box of inputs, and clauses of rows that are `>= 0` at a counterexample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.passes.fold import fold
from onnxsub.propagate import Bounds, compute_bounds
from onnxsub.properties.rows import RowSet, as_margin_network
from onnxsub.verifiers.milp.build import Encoding, encode_network
from onnxsub.verifiers.milp.local import SLACK
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.solvers import Problem
from onnxsub.verifiers.milp.tighten import MOST_UNITS, tighten
from onnxsub.verifiers.milp.tighten_lp import Question, tighten_by_programs

__all__ = ["CaseModel", "ClauseModel"]


@dataclass(frozen=True, eq=False)
class CaseModel:
    """The rows of a case over its box.

    Attributes:
        network: from the input to the rows and the zero behind them, folded where it could be.
        rows: what they are.
        lower, upper: the box, `(*input_shape)`.
        bounds: of that network over the box.
        lowest, highest: proved interval of every row, `(rows,)`.
    """

    network: Network
    rows: RowSet
    lower: Array
    upper: Array
    bounds: Bounds
    lowest: Array
    highest: Array

    @staticmethod
    def over(network: Network, rows: RowSet, lower: Array, upper: Array, method: str) -> CaseModel:
        """Bounds only.

        Raises:
            UnsupportedOperatorError: an operator has no bounds.
        """
        margins = as_margin_network(network, rows)
        bounds = compute_bounds(margins, lower, upper, method)
        return CaseModel(margins, rows, lower, upper, bounds, *_interval(bounds))

    def folded(self, options: MilpOptions) -> CaseModel:
        """The same with stable units and affine stretches folded, and bounded again.

        Raises:
            UnsupportedOperatorError: it cannot be folded, and the options say `always`.
        """
        if options.fold == "never":
            return self
        try:
            network = fold(self.network, self.bounds)
        except UnsupportedOperatorError:
            if options.fold == "always":
                raise
            return self
        bounds = compute_bounds(network, self.lower, self.upper, options.bounds_method)
        low, high = _interval(bounds)
        return replace(
            self, network=network, bounds=bounds, lowest=np.maximum(self.lowest, low), highest=np.minimum(self.highest, high)
        )

    def promise(self, clause: int) -> float:
        """An upper bound of the smallest row of a clause over the box; below zero no input of the box satisfies it."""
        return float(min(self.highest[r] for r in self.rows.clauses[clause]))

    @property
    def open(self) -> tuple[int, ...]:
        """The clauses that bounds do not refute, the most promising first."""
        promises = [self.promise(c) for c in range(len(self.rows.clauses))]
        return tuple(int(c) for c in np.argsort([-p for p in promises], kind="stable") if promises[c] >= 0)

    @property
    def unstable(self) -> int:
        """Units that are not one affine piece on the box."""
        return sum(int((~op.affine_on(*self.bounds.pre[op.output])).sum()) for op in self.network.activations)

    def slack(self, row: int) -> float:
        """How far a row is relaxed, so that no rounding can hide a point: proofs are about `row >= -slack`."""
        return SLACK * (1.0 + max(abs(float(self.lowest[row])), abs(float(self.highest[row]))))

    def clause(self, number: int, *, tight: bool = True, late: Callable[[], bool] = lambda: False) -> ClauseModel | None:
        """What the points of the box that satisfy a clause look like; None: bounds prove that there is none.

        Args:
            tight: bound the units where the clause holds, not on the whole box.
            late: asked before each row; True leaves the intervals as tight as they are.
        """
        members = self.rows.clauses[number]
        bounds = self.bounds
        if not tight or self.unstable > MOST_UNITS:
            return ClauseModel(self, members, self.lower, self.upper, _flat(bounds), {})
        # what one row leaves of the box and of the intervals is where the next one begins
        for row in sorted(members, key=lambda r: self.highest[r]):
            if late():
                break
            tightened = tighten(self.network, bounds, row, len(self.rows.b), self.slack(row))
            if tightened is None:
                return None
            pre = {op.output: _shaped(tightened.pre[op.output], op.in_shapes[0]) for op in self.network.nonlinear}
            bounds = replace(bounds, lower=tightened.lower.unsqueeze(0), upper=tightened.upper.unsqueeze(0), pre=pre)
        enforced: dict[str, Array] = {}
        for op in self.network.activations:
            before, after = self.bounds.pre[op.output], bounds.pre[op.output]
            enforced[op.output] = torch.nonzero((op.affine_on(*after) & ~op.affine_on(*before)).flatten()).flatten().numpy()
        lower, upper = (end[0].numpy() for end in (bounds.lower, bounds.upper))
        return ClauseModel(self, members, lower, upper, _flat(bounds), enforced)


@dataclass(frozen=True, eq=False)
class ClauseModel:
    """The points of a box at which one clause holds.

    Attributes:
        members: its rows.
        lower, upper, intervals: hold at these points.
        enforced: units that are stable at these points only: their intervals become rows.
    """

    case: CaseModel
    members: tuple[int, ...]
    lower: Array
    upper: Array
    intervals: Mapping[str, tuple[Array, Array]]
    enforced: Mapping[str, Array]

    @property
    def binaries(self) -> int:
        """Units that cost a binary."""
        found = 0
        for op in self.case.network.activations:
            found += int((~op.affine_on(*(torch.as_tensor(e) for e in self.intervals[op.output]))).sum())
        return found

    @cached_property
    def _encoding(self) -> Encoding:
        case = self.case
        centre = (case.lower + case.upper) / 2
        return encode_network(case.network, centre, self.lower, self.upper, self.intervals, enforced=self.enforced)

    @property
    def scale(self) -> float:
        """Size of the rows, at least 1."""
        return 1.0 + max(float(np.abs([self.case.lowest[r], self.case.highest[r]]).max()) for r in self.members)

    def tightened(self, late: Callable[[], bool]) -> ClauseModel | None:
        """The same with units bounded by linear programs; None: these prove that the clause does not hold anywhere.

        Args:
            late: asked before every program.
        """

        def encode(intervals: Mapping[str, tuple[Array, Array]], enforced: Mapping[str, Array]) -> Encoding:
            return replace(self, intervals=intervals, enforced=enforced)._encoding

        def rows(encoding: Encoding) -> list[tuple[LinExpr, float]]:
            return [(encoding.logits.take(np.array([r])), -self.case.slack(r)) for r in self.members]

        case = self.case
        found = tighten_by_programs(Question(case.network, _flat(case.bounds), encode, rows), self.intervals, late)
        return None if found is None else replace(self, intervals=found[0], enforced=found[1])

    def decision(self) -> Problem:
        r"""`max min_r row_r` over the points where every row is at least minus its slack; infeasible: there is no such point.

        Several rows share a column t with `t <= row_r`.
        """
        encoding = self._encoding
        rows = [encoding.logits.take(np.array([r])) for r in self.members]
        extra: list[tuple[LinExpr, float, float]] = [
            (row, -self.case.slack(r), np.inf) for row, r in zip(rows, self.members, strict=True)
        ]
        if len(rows) == 1:
            return encoding.model.problem(-rows[0], *extra)
        least = encoding.model.continuous(np.array([-self.scale]), np.array([self.scale]))
        return encoding.model.problem(-least, *extra, *((row - least, 0.0, np.inf) for row in rows))

    def point(self, solution: Array) -> Array:
        """The input of a solution, `(*input_shape)`, float64."""
        return self._encoding.point(solution)


def _interval(bounds: Bounds) -> tuple[Array, Array]:
    """Interval of the rows; the zero behind them left out."""
    low, high = (end[0, :-1].double().cpu().numpy().copy() for end in bounds.output)
    return low, high


def _flat(bounds: Bounds) -> dict[str, tuple[Array, Array]]:
    return {name: bounds.arrays(name) for name in bounds.pre}


def _shaped(interval: tuple[torch.Tensor, torch.Tensor], shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return interval[0].reshape(1, *shape), interval[1].reshape(1, *shape)
