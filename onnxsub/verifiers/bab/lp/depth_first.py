r"""Depth-first search on linear relaxations, for targets with few units: a node is one warm-started linear program.

A dozen unstable units over hundreds of inputs make a program that a simplex step or two re-solves in a millisecond, where gradient
steps on multipliers need many passes to come within 1e-4 of the same bound. Which binary is fixed next is chosen by pseudo-costs
(Benichou et al. 1971): by how much fixing it has lowered the bound so far, per unit of what was fractional. Both sides of a binary
that was never fixed are solved before it is chosen; where one of them holds nothing, the other one is all that is left.

A solution that is adversarial on the network, or has no fractional binary, leads to the nearest point of its linear region, by
Newton steps on the radius: each program's line says where the margin can be reached at the earliest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.cutting import Cutting
from onnxsub.verifiers.bab.lp.pattern import Pattern
from onnxsub.verifiers.bab.lp.relaxation import Relaxation, Solved
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.proof import excludes

__all__ = ["DepthFirst"]

# Nodes after which the tree by lines takes over: once points have come near region by region, it needs a handful (PERFORMANCE.md).
# Others go on for longer: lines of windows are weaker, and a search of a part of the points has no such tree behind it.
_MOST, _MOST_OF_OTHERS = 200, 2000
_INTEGRAL = 1e-7
_NEWTON = 30  # steps on the radius, at most
_SAME = 1e-10  # relative change of the radius at which these end
_SHRUNK = 0.97
_LOOK = 4
_RELIABLE = 1  # times that a binary was fixed after which its pseudo-cost is believed
_EASY = 16  # nodes of a tree after which it is worth to solve programs before one is branched on
_LEAST = 1e-12  # fall of a bound that counts as none
_GRAIN = 1e-3  # smallest fraction that a pseudo-cost is divided by


@dataclass(frozen=True, eq=False)
class _Open:
    """A node that waits: fixed binaries by column, a proved distance, and what was fixed last.

    Attributes:
        last: number of the binary, its value, what of it was fractional and the bound of the margin before.
    """

    fixed: dict[int, int]
    radius: float
    last: tuple[int, int, float, float] | None


class DepthFirst:
    """The search for one target.

    Attributes:
        close: the radius within which points of interest are looked for; it shrinks with every point that is found.
        nodes: programs solved for nodes.
        shrunk: the ball has become so much smaller that it is better bounded anew.
    """

    @staticmethod
    def of(bracket: Bracket, model: ClauseModel, radius: float, *, part: bool = False) -> DepthFirst | None:
        """The search within `radius`; None where the target has too many units, or operators without MILP rows.

        Args:
            part: the model is of a part of the target's points, so nothing that is proved goes to the bracket.
        """
        most = bracket.session.bab.searched(windows=bool(model.local.network.windows))
        if most == 0 or model.binaries > most or not model.local.able:
            return None
        with bracket.budget.stage("build"):
            linear = Relaxation(model, bracket.budget)
            if not linear.ordinary:
                return None
            # units of some operators cost several binaries
            return DepthFirst(bracket, model, linear, radius, part) if len(linear.binaries) <= most else None

    def __init__(self, bracket: Bracket, model: ClauseModel, linear: Relaxation, radius: float, part: bool) -> None:
        self._bracket = bracket
        self._part = part
        self._most = _MOST_OF_OTHERS if part or model.local.network.windows else _MOST
        self._model = model
        self._radius = radius
        self.close = self._closing()
        self._linear = linear
        self._cutting = Cutting(linear, bracket.budget)
        refuted = self._cutting.root(self.close)
        self._network = model.local.network
        count = len(linear.binaries)
        self._cost = np.zeros((2, count))
        self._times = np.zeros((2, count))
        self._stack = [] if refuted else [_Open({}, 0.0, None)]
        self._stuck: list[_Open] = []
        self._pattern = Pattern.of(model, len(linear.binaries))
        self.nodes = self._counted = 0

    @property
    def shrunk(self) -> bool:
        return self.close < _SHRUNK * self._model.local.box.radius

    @property
    def lower(self) -> float:
        """No point of interest is nearer than this, as far as `close`."""
        # a node that waits may be known farther out than the ball on which others were refuted
        return min([self.close, *(node.radius for node in self._stack + self._stuck)])

    def run(self, budget: Budget) -> bool:
        """Until the budget ends, a near enough point is found or nothing is left; whether the target needs no more work.

        What is proved of the whole target goes to the bracket, also where an interruption ends it.
        """
        bracket = self._bracket
        try:
            while self._stack and self._going(budget):
                self.close = min(self.close, self._closing())
                at = len(self._stack) - 1
                node = self._stack[at]
                nearer = node.radius < self.close and self._visit(node)
                self._count()  # a limit of nodes ends this, too
                if not nearer:  # else the same node on the smaller ball
                    del self._stack[at]
        finally:
            self._count()
            if not self._part:
                bracket.claims.prove(self._model.key, min(self.lower, self._radius))
        return not self._stack and not self._stuck

    def _count(self) -> None:
        self._bracket.budget.count(self.nodes - self._counted)
        self._counted = self.nodes

    def _going(self, budget: Budget) -> bool:
        bracket = self._bracket
        if budget.over or not bracket.running:
            return False
        return self.nodes < self._most and not self.shrunk and bracket.upper > bracket.enough

    def _closing(self) -> float:
        return min(self._radius, self._bracket.upper - self._bracket.gap / 2)

    def _visit(self, node: _Open) -> bool:
        """Bounds a node, puts its children behind it or none; whether a nearer point was found."""
        linear, close = self._linear, self.close
        solved = linear.solve(node.fixed, close)
        self.nodes += 1
        self._learn(node, linear.value(solved, close))
        solved = self._cutting.node(solved, node.fixed, close)
        value = linear.value(solved, close)
        if excludes(value) or solved.empty:
            return False
        radius = max(node.radius, linear.reach(solved, close))
        if solved.columns is None:
            self._give_up(node, radius, None)
            return False
        part = solved.columns[linear.binaries]
        fractional = np.minimum(part, 1 - part) > _INTEGRAL
        # a fixed one may be off by the solver's tolerance: it is no choice
        fractional[np.searchsorted(linear.binaries, list(node.fixed))] = False
        if self._try(solved, part, integral=not fractional.any()):
            return True
        if not fractional.any():
            self._give_up(node, radius, part)
            return False
        found = self._choose(node, solved, part, fractional, value)
        if isinstance(found, dict):
            # one side of each of these holds nothing: what is left is one node
            if found:
                self._stack.append(_Open({**node.fixed, **found}, radius, None))
            return False
        first = round(float(part[found]))
        column = int(linear.binaries[found])
        # the end that is nearer to the solution is looked at first, the other one waits below it
        for branch in (1 - first, first):
            loss = float(part[found]) if branch == 0 else 1 - float(part[found])
            self._stack.append(_Open({**node.fixed, column: branch}, radius, (found, branch, loss, value)))
        return False

    def _give_up(self, node: _Open, radius: float, part: Array | None) -> None:
        """A node without a line below zero and without a point: branched on where anything is left, else kept for others."""
        left = [c for c in self._linear.binaries.tolist() if c not in node.fixed]
        if not left:
            self._stuck.append(_Open(node.fixed, radius, None))
            return
        column = left[0]
        first = 0 if part is None else round(float(part[int(np.searchsorted(self._linear.binaries, column))]))
        for branch in (1 - first, first):
            self._stack.append(_Open({**node.fixed, column: branch}, radius, None))

    def _learn(self, node: _Open, value: float) -> None:
        if node.last is not None:
            self._note(*node.last, value)

    def _note(self, k: int, branch: int, loss: float, before: float, value: float) -> None:
        drop = before - max(value, -abs(before)) if math.isfinite(value) else 2 * abs(before)
        self._cost[branch, k] += max(drop, 0.0) / max(loss, _GRAIN)
        self._times[branch, k] += 1

    def _choose(self, node: _Open, solved: Solved, part: Array, fractional: Array, value: float) -> int | dict[int, int]:
        """The number of the binary to branch on; or the only possible values of some, {}: there are none for one of them."""
        numbers = np.flatnonzero(fractional)
        bounds = self._linear.ahead(solved, node.fixed, self.close, numbers)
        out = bounds < 0
        if out.all(axis=1).any():
            return {}
        forced = {int(self._linear.binaries[k]): int(o[0]) for k, o in zip(numbers, out, strict=True) if o.any()}
        if forced:
            return forced
        drops = np.maximum(value - np.maximum(bounds, 0.0), _LEAST)
        if self.nodes < _EASY:
            return int(numbers[drops.prod(axis=1).argmax()])
        return self._solved_ahead(node, part, numbers, value, drops)

    def _solved_ahead(self, node: _Open, part: Array, numbers: Array, value: float, least: Array) -> int | dict[int, int]:
        """The same by pseudo-costs, where a binary that was not fixed before has programs of its own solved.

        Args:
            least: `(k, 2)`: by how much the bound falls at least.
        """
        known = self._times > 0
        mean = self._cost.sum() / max(self._times.sum(), 1.0)
        cost = np.where(known, self._cost / np.maximum(self._times, 1.0), mean if mean > 0 else 1.0)
        expected = np.maximum((cost * np.stack([part, 1 - part]))[:, numbers].T, least)
        score = expected.prod(axis=1)
        forced: dict[int, int] = {}
        order = np.argsort(-score, kind="stable")
        fresh = [int(i) for i in order if self._times[:, numbers[i]].min() < _RELIABLE][:_LOOK]
        for i in fresh:
            k = int(numbers[i])
            column = int(self._linear.binaries[k])
            values = []
            for branch in (0, 1):
                solved = self._linear.solve({**node.fixed, column: branch}, self.close)
                self.nodes += 1
                values.append(self._linear.value(solved, self.close))
                self._note(k, branch, float(part[k]) if branch == 0 else 1 - float(part[k]), value, values[-1])
            if max(values) < 0:
                return {}
            if min(values) < 0:
                forced[column] = int(values[0] < 0)
            score[i] = math.prod(max(value - max(v, 0.0), _LEAST) for v in values)
        return forced or int(numbers[score.argmax()])

    def _try(self, solved: Solved, part: Array, *, integral: bool) -> bool:
        """Whether the solution leads to a nearer point than the best one."""
        assert solved.columns is not None
        x = self._model.point(solved.columns)
        f = self._outputs(x)
        reached = float(f[self._model.row] - f[self._model.local.rows.zero]) >= 0
        if not (reached or integral):
            return False
        pattern = np.round(part).astype(int)
        if not integral:
            if self._pattern is None:
                return self._accept(x)
            pattern = self._pattern.at(x)
        region = dict(zip(self._linear.binaries.tolist(), pattern.tolist(), strict=True))
        return self._nearest(region) or (reached and self._accept(x))

    def _outputs(self, x: Array) -> Array:
        with torch.no_grad():
            return self._network.forward(torch.as_tensor(x).unsqueeze(0)).reshape(-1).numpy()

    def _nearest(self, fixed: dict[int, int]) -> bool:
        """The nearest point of a linear region, by Newton steps on the radius; whether it is nearer than the best one."""
        linear, radius = self._linear, self.close
        columns = None
        for _ in range(_NEWTON):
            solved = linear.solve(fixed, radius)
            if solved.columns is None:
                break
            columns = solved.columns
            # exact on a linear region, but for the outward rounding
            smaller = linear.reach(solved, radius)
            if smaller >= radius * (1 - _SAME) or smaller <= 0:
                break
            radius = smaller
        return columns is not None and self._accept(self._model.point(columns))

    def _accept(self, x: Array) -> bool:
        """Whether the point counts and is well nearer than the best so far."""
        before = self._bracket.upper
        self._bracket.accept(x)
        self.close = min(self.close, self._closing())
        return self._bracket.upper < before
