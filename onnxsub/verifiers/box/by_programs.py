r"""Bounds of units by linear programs (optimality-based bound tightening), where half-spaces (`halfspaces.py`) have done their
part.

For every unstable unit its smallest and its largest pre-activation over the rows of the program with the binaries relaxed. That
relaxation knows all units and the question at once, while a backward pass chooses one line per unit. What counts is never the
solver's optimum but the bound that its multipliers give (`programs/dual_bound.py`): a run that is cut off gives a weaker bound, not
a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.verifiers.programs.dual_bound import Multipliers, safe_minimum
from onnxsub.verifiers.programs.encode import Encoding
from onnxsub.verifiers.programs.lp import WarmProgram
from onnxsub.verifiers.programs.solvers import Problem
from onnxsub.verifiers.proof import excludes

__all__ = ["LP_SHARE", "Relaxable", "tighten_by_programs"]

LP_SHARE = 0.25
"""Of the time left: what the programs of one target may take together."""

_NARROWEST = 1e-5  # as in halfspaces.py: slivers are where solvers lose their footing
_EACH = 10.0  # seconds that one linear program may take

Intervals = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Relaxable:
    """What a program is about, encoded anew for tighter intervals.

    Attributes:
        network: whose units are bounded.
        whole: their intervals on the whole box, flattened.
        encode: the rows of the network for given intervals and units whose interval must stand as a row.
        rows: `row >= end` for every row that the points of interest satisfy, of such an encoding.
    """

    network: Network
    whole: Intervals
    encode: Callable[[Intervals, Mapping[str, Array]], Encoding]
    rows: Callable[[Encoding], list[tuple[LinExpr, float]]]


def tighten_by_programs(
    question: Relaxable, intervals: Intervals, budget: Budget
) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array]] | None:
    """Intervals at the points of interest, never looser than `intervals`, and what has to be enforced; None: there is no point.

    Args:
        intervals: that hold at the points of interest.
        budget: asked before every program; when it is over the work ends with what is proved so far.
    """
    found = {name: (l.copy(), u.copy()) for name, (l, u) in intervals.items()}
    for op in question.network.activations:
        name = op.output
        units = np.flatnonzero(~_affine(op, found[name]))
        if len(units) == 0 or budget.over:
            continue
        encoding = question.encode(found, _enforced(question, found))
        rows = question.rows(encoding)
        relaxed = _Relaxed(encoding.model.problem(encoding.logits.take(np.array([0])), *((e, end, np.inf) for e, end in rows)))
        if relaxed.empty(budget):
            return None
        z = encoding.before[name].take(units)
        low, high = (end[units] for end in found[name])
        given = low.copy(), high.copy()
        for i in range(len(units)):
            row = z.take(np.array([i]))
            for sign in (1.0, -1.0):
                if not budget.running:
                    break
                bound = relaxed.minimum(row.scale(np.array([sign])), budget)
                if sign > 0:
                    low[i] = max(low[i], bound)
                else:
                    high[i] = min(high[i], -bound)
        if (low > high).any():
            return None
        before = question.whole[name]
        short = (_NARROWEST * (before[1][units] - before[0][units]) - (high - low)).clip(min=0) / 2
        found[name][0][units] = np.maximum(low - short, given[0])
        found[name][1][units] = np.minimum(high + short, given[1])
    return found, _enforced(question, found)


def _affine(op: Activation, ends: tuple[Array, Array]) -> Array:
    lower, upper = (torch.as_tensor(np.array(e)).reshape(op.in_shapes[0]) for e in ends)
    return op.affine_on(lower, upper).flatten().numpy()


def _enforced(question: Relaxable, found: Intervals) -> dict[str, Array]:
    """Units that are stable at the points of interest only: nothing else keeps the program to their interval."""
    whole = question.whole
    names = question.network.activations
    return {op.output: np.flatnonzero(_affine(op, found[op.output]) & ~_affine(op, whole[op.output])) for op in names}


class _Relaxed:
    """A program without its integrality, for one objective after the other from the last basis."""

    def __init__(self, problem: Problem) -> None:
        self._program = WarmProgram(problem, objective=False)
        self._rows = Multipliers.of(problem)

    def minimum(self, expression: LinExpr, budget: Budget) -> float:
        """A proved lower bound of an expression over the rows; `-inf` where the solver has no multipliers."""
        c = expression.widened(self._rows.problem.columns).matrix.toarray().reshape(-1)
        return safe_minimum(self._rows, c, self._multipliers(c, budget)) + float(expression.constant[0])

    def empty(self, budget: Budget) -> bool:
        """Whether multipliers prove that no point satisfies the rows: those of the least violation."""
        if budget.over:
            return False
        zero = np.zeros(self._rows.problem.columns)
        self._multipliers(zero, budget)
        ray = self._program.ray if self._program.able and self._program.status == "kInfeasible" else None
        if ray is None:
            return False
        return any(excludes(-safe_minimum(self._rows, zero, y)) for y in (ray, -ray))

    def _multipliers(self, c: Array, budget: Budget) -> Array:
        """Multipliers of the rows at the end of a run; zeros where there are none."""
        self._program.costs(c)
        done = self._program.run(_EACH, budget)
        return self._program.multipliers if done else np.zeros(self._rows.problem.rows)
