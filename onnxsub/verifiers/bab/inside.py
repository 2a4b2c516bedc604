"""The goal of a decision: is any clause of a box satisfied anywhere in it? Nodes whose line is below zero in the box are done."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bab.driver import Policy
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.order import BEYOND
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel, Building, Rows
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.programs.solvers import SolverStatus

__all__ = ["ROUND_A_POINT", "InsideGoal", "worth_a_search"]

_ASCEND_EVERY = 16  # looks at a tree's points between two searches from them
_FAR = 1e38  # beyond the numbers of float32, nearly


ROUND_A_POINT = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=4, steps=20)
"""The search from the best point of a tree's step."""


def worth_a_search(looks: int) -> bool:
    """Whether to search from the best point of this look: the first ones come from the widest bounds and change most."""
    return looks % _ASCEND_EVERY == 0 or looks in (1, 2, 4, 8)


class InsideGoal:
    """Some clauses of one box of a decision.

    Attributes:
        number: of the box.
        promise: an upper bound of the smallest row of its clauses; below 0 nothing is left.
    """

    whole = True
    policy = Policy(largest=600, by_steps=True)
    fresh = True

    def __init__(self, decision: Decision, number: int, clauses: list[int]) -> None:
        self.number = number
        self.promise = math.inf
        self._decision = decision
        self._rows: Rows = decision.least_model(number, clauses)
        reach = decision.spec.boxes[number].box.radius
        # multipliers are improved in float32
        self._close = (reach * BEYOND if reach < _FAR else math.inf) if reach > 0 else 1.0
        self._looks = 0

    @property
    def keys(self) -> tuple[int, ...]:
        """Its clauses."""
        return tuple(self._rows.members)

    @property
    def done(self) -> bool:
        return self._decision.witness is not None

    def close(self) -> float:
        return self._close

    def local(self) -> BoxModel:
        d = self._decision
        with d.budget.stage("bounds"):
            how = Building.of(d.session.options, d.budget, branching=True)
            local = BoxModel.over(self._rows, d.spec.boxes[self.number].box, how)
        self.keep(local)
        self.promise = max((local.promise(k) for k in self._rows.members), default=-math.inf)
        return local

    def keep(self, local: BoxModel) -> None:
        open_ = set(local.open)
        for k in self._rows.members:
            if k not in open_:
                self._decision.prove(self.number, k)

    def pending(self, key: int) -> bool:
        return self._decision.is_open(self.number, key)

    def prove(self, key: int, radius: float) -> None:
        if radius >= self._close:
            self._decision.prove(self.number, key)

    def narrow(self, local: BoxModel, key: int, gain: float) -> ClauseModel | None:
        if not self.pending(key):
            return None
        d = self._decision
        d.budget.tell(f"clause {key + 1}: tightening the bounds")
        with d.budget.stage("tighten"):
            model = local.clause(key, d.session.bab.tighten, gain)
        if model is None:
            d.prove(self.number, key)
        return model

    def dive(self, model: ClauseModel, budget: Budget) -> bool:
        return False

    def stale(self, frontier: Frontier) -> bool:
        return False

    def progressed(self, frontier: Frontier) -> None:
        """Nothing: what is proved is taken at the end of a run."""

    def publish(self, frontier: Frontier) -> None:
        self._decision.grown = True
        for key, lower in frontier.lowers().items():
            self.prove(key, lower)

    def look(self, frame: Frame, offsets: Tensor, frontier: Frontier | None) -> None:
        """Tries the points at which bounds are attained, and searches on from the best of them."""
        d = self._decision
        if not d.running:
            return
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            least = frame.network.forward(x)
        outputs = {self._rows.members[k][0]: k for k in self._rows.members if self.pending(k)}
        closed = torch.ones(least.shape[1], dtype=torch.bool, device=least.device)
        closed[list(outputs)] = False
        least[:, closed] = -math.inf
        value, output = least.max(1)
        best = int(value.argmax())
        clause = outputs.get(int(output[best]))
        if clause is None:
            return
        point, members = x[best].cpu().numpy(), d.rows(self.number).clauses[clause]
        self._looks += 1
        if float(value[best]) >= 0 and d.replay(self.number, point):
            return
        if worth_a_search(self._looks):
            d.search_round(self.number, members, point, replace(ROUND_A_POINT, device=d.session.bab.device))

    def program(self, model: ClauseModel, close: float, budget: Budget) -> float:
        """Infinite where a program proves that its clause is not satisfied; a point that it finds is replayed."""
        d = self._decision
        with d.budget.stage("build"):
            problem = model.decision()
        solution = d.session.solve(problem, model.decision_options, seconds=max(budget.remaining, 0.05))
        d.limited |= solution.status in (SolverStatus.TIME_LIMIT, SolverStatus.NODE_LIMIT)
        if solution.status.proves_empty:
            return math.inf
        if solution.x is not None:
            d.confirm(self.number, d.rows(self.number).clauses[model.key], model.point(solution.x))
        return 0.0
