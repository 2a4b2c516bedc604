"""Branch and bound on the box of inputs itself: where few of them vary, halves of a box close more than signs of units do.

A region is a box and a clause that is looked for in it. All rows of the clause must be `>= 0`, so a region is done where one of
them is negative all over it, and what a row's line excludes is cut off its box. What is left is halved along the input whose halves
have the lowest rows (`halves.py`). Regions are searched depth-first, many at a time, the most promising first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Activation, Box
from onnxsub.propagate.backward import flattened
from onnxsub.verifiers.bab.inputs.bounds import RegionBounds
from onnxsub.verifiers.bab.inputs.halves import TRIED, Regions, halved, promises
from onnxsub.verifiers.bab.inside import ROUND_A_POINT, worth_a_search
from onnxsub.verifiers.box.model import BoxModel, Building
from onnxsub.verifiers.decision import Decision

__all__ = ["InputSearch"]

_AT_ONCE, _NUMBERS = 128, 2**19  # regions of a step, and values of the units of all halves that are bounded for them, at most
_FEW = 8  # inputs
_CLAUSES = 64  # beyond, every clause would need regions of its own for the same bounds
_WITHOUT_A_LIMIT = 2**15  # regions, where no time ends them: a row that only touches zero is never closed by halves


class InputSearch:
    """The regions of some clauses of one box of a decision.

    Attributes:
        visited: regions bounded so far.
        few: whether so few inputs vary that this is what closes a box, as a rule.
    """

    def __init__(self, decision: Decision, number: int, clauses: list[int]) -> None:
        box, rows = decision.spec.boxes[number], decision.rows(number)
        self.visited = self._looks = 0
        self._decision, self._number, self._clauses = decision, number, clauses
        how = Building.of(decision.session.options, decision.budget, branching=True)
        # stretches of affine operators are one each in the folded form
        self._network = BoxModel.over(decision.row_model(number, clauses), box.box, how).network
        members = [rows.clauses[k] for k in clauses]
        used = sorted({r for m in members for r in m})
        place = {r: i for i, r in enumerate(used)}
        most = max(map(len, members))
        # a clause of fewer rows has one of them several times
        self._members = torch.tensor([[place[r] for r in m] + [place[m[0]]] * (most - len(m)) for m in members])
        self._rows = torch.tensor(used)
        self._bounds = RegionBounds(self._network, self._rows)
        lower, upper = (torch.from_numpy(e.astype(np.float64)).reshape(1, -1) for e in (box.lower, box.upper))
        self._side = (upper - lower)[0]
        self.few = int((self._side > 0).sum()) <= _FEW
        count = len(clauses)
        self._waiting = [Regions(lower.expand(count, -1), upper.expand(count, -1), torch.arange(count), {})]
        self._stuck: set[int] = set()  # clauses with a region that no halving helps: regions prove them no more
        self._alone = torch.tensor([len(m) == 1 for m in members])
        self._most = math.inf if math.isfinite(decision.budget.remaining) else _WITHOUT_A_LIMIT
        self._units = sum(math.prod(op.in_shapes[0]) for op in self._network.nonlinear)
        self._at_once = max(1, min(_AT_ONCE, _NUMBERS // (2 * TRIED * max(self._units, 1))))

    @staticmethod
    def fits(decision: Decision, number: int, clauses: list[int]) -> bool:
        """Whether few enough inputs of a box vary."""
        box = decision.spec.boxes[number]
        side = (box.upper.astype(np.float64) - box.lower.astype(np.float64)).reshape(-1)
        most = decision.session.bab.inputs
        finite = bool(np.isfinite(side).all())
        return finite and 0 < int((side > 0).sum()) <= most and 0 < len(clauses) <= _CLAUSES

    @property
    def finished(self) -> bool:
        """Whether no region is left that can be halved, or enough were where no time limit would end them."""
        return not self._waiting or self.visited >= self._most

    @property
    def _roomy(self) -> bool:
        """Whether what waits may keep the intervals of its units."""
        count = sum(len(r) for r in self._waiting if r.within)
        return 16 * self._units * count < self._decision.session.bab.memory / 4

    def run(self, budget: Budget) -> None:
        """Until no region is left, a point is found or the budget ends; what is proved goes to the decision.

        Raises:
            OutOfTime: the budget ended in the middle of a step, whose regions wait on.
        """
        with budget.stage("tree"):
            while not self.finished and self._decision.running and budget.running:
                self._step(budget)

    def _step(self, budget: Budget) -> None:
        regions = self._waiting[-1]
        first = max(0, len(regions) - self._at_once)
        done, left = self._bounded(regions.take(slice(first, None)), budget)
        # all at once: an interruption before this line loses no region
        self._waiting = [*self._waiting[:-1], *(r for r in (regions.take(slice(first)), left) if len(r))]
        self.visited += done
        budget.count(done)
        self._close()

    def _bounded(self, regions: Regions, budget: Budget) -> tuple[int, Regions]:
        """How many regions were bounded, and the halves of what is left of them."""
        d = self._decision
        pending = torch.tensor([k not in self._stuck and d.is_open(self._number, k) for k in self._clauses])
        regions = regions.take(torch.nonzero(pending[regions.clause])[:, 0])
        if not len(regions):
            return 0, regions
        count = len(regions)
        lines, way = self._bounds.thorough(regions, budget)
        which = self._members[regions.clause]
        tops = lines.top.gather(1, which)
        lower, upper = lines.cut(which, regions.lower, regions.upper)
        # only a number below zero refutes: `top` is `inf` where nothing is known
        keep = torch.nonzero(~(tops < 0).any(1) & ~(lower > upper).any(1))[:, 0]
        left = Regions(lower, upper, regions.clause, lines.pre if self._roomy else {}).take(keep)
        self._bounds.told(way, count - len(left), count)
        if not len(left):
            return count, left
        tops, which = tops[keep], which[keep]
        least, weakest = tops.min(1)
        c = lines.c[keep, which.gather(1, weakest[:, None])[:, 0]]
        self._try(left, c, which)
        promise = promises(left, c, self._side)
        # where the network is affine a line is the row itself, and no half brings it lower
        helpless = (promise < 0).all(1) | (self._affine(lines.pre, count)[keep] & self._alone[left.clause])
        self._stuck |= {self._clauses[k] for k in left.clause[helpless].tolist()}
        rows = torch.nonzero(~helpless)[:, 0]
        # the last ones come first
        rows = rows[least[rows].argsort(stable=True)]
        halves, _ = halved(left.take(rows), promise[rows], least[rows], lambda r: self._tops(r, budget))
        return count, halves

    def _tops(self, regions: Regions, budget: Budget) -> Tensor:
        """The largest value that the weakest row of each region's clause may have, by what costs little."""
        return self._bounds.quick(regions, budget).top.gather(1, self._members[regions.clause]).amin(1)

    def _affine(self, pre: Mapping[str, Box], count: int) -> Tensor:
        """Whether every unit keeps to one affine piece on each of `count` regions, `(B,)`."""
        found = torch.ones(count, dtype=torch.bool)
        for op in self._network.nonlinear:
            if not isinstance(op, Activation):
                return torch.zeros(count, dtype=torch.bool)
            found &= flattened(op.affine_on(*pre[op.output]), 1).all(1)
        return found

    def _try(self, regions: Regions, c: Tensor, which: Tensor) -> None:
        """Replays the best of the middles and of the points at which lines are largest; now and then a search goes on from it."""
        middle = regions.lower / 2 + regions.upper / 2
        points = torch.cat([middle, torch.where(c > 0, regions.upper, regions.lower)])
        with torch.no_grad():
            values = self._network.forward(points.reshape(-1, *self._network.input_shape)).flatten(1)[:, self._rows]
        least = values.gather(1, which.repeat(2, 1)).amin(1).nan_to_num(nan=-torch.inf)
        best = int(least.argmax())
        point = points[best].reshape(self._decision.spec.boxes[self._number].lower.shape).numpy()
        if float(least[best]) >= 0 and self._decision.replay(self._number, point):
            return
        self._looks += 1
        if worth_a_search(self._looks):
            clause = self._clauses[int(regions.clause.repeat(2)[best])]
            members = self._decision.rows(self._number).clauses[clause]
            self._decision.search_round(self._number, members, point, ROUND_A_POINT)

    def _close(self) -> None:
        """Tells the clauses of which no region is left."""
        left = {self._clauses[k] for regions in self._waiting for k in set(regions.clause.tolist())} | self._stuck
        for k in self._clauses:
            if k not in left and self._decision.is_open(self._number, k):
                self._decision.prove(self._number, k)
