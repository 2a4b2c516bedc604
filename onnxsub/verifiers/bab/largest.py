"""The goal of a largest value: no point of the box has a value above the level. The level rises with every better point."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.ascend import Climb, climb
from onnxsub.verifiers.bab.driver import Driver, Policy
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.order import ByValue
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.extremum import Extremum

__all__ = ["LargestGoal"]

_CLIMB_EVERY = 16  # steps of a tree between two climbs from its points; the first ones come sooner
_NEAR = Climb(restarts=4, steps=20)
_RISEN = 0.1  # share of the gap that a better point must close for the intervals to be cut again
_YOUNG = 200  # nodes up to which a tree is given up for tighter intervals


class LargestGoal:
    """One tree over the points above the level.

    Args:
        model: their programs, at the level of `search`, output 0 the value above it.
    """

    policy = Policy(largest=600, small=16, seconds=1.0)

    def __init__(self, search: Extremum, model: ClauseModel) -> None:
        self._search = search
        self._model = model
        self._at = search.level  # the model's values count from here
        self._gap = search.top + search.upper
        self._began_at = search.upper
        self._looks = 0

    def run(self) -> bool:
        """Whether the tree has done what it can; False: the level has risen so far that a new one is better."""
        search = self._search
        frame = Frame.of([self._model], whole=True, device=search.session.bab.device)
        frontier = Frontier(frame, search.session.bab, self.close(), ByValue(), search.budget)
        with search.budget.stage("tree"):
            Driver(self, search.session, [self._model], frontier).run(search.budget)
        return search.settled or not search.running or not frontier.active

    @property
    def done(self) -> bool:
        return self._search.settled or not self._search.running

    def close(self) -> float:
        return -(self._search.level - self._at)

    def stale(self, frontier: Frontier) -> bool:
        return frontier.visited < _YOUNG and self._began_at - self._search.upper > _RISEN * self._gap

    def progressed(self, frontier: Frontier) -> None:
        self._search.prove(self._at - frontier.lowers()[self._model.key])

    def publish(self, frontier: Frontier) -> None:
        self.progressed(frontier)

    def look(self, frame: Frame, offsets: Tensor, frontier: Frontier | None) -> None:
        """Tries the points at which bounds are attained, and climbs on from the best of them."""
        search = self._search
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            value = frame.network.forward(x)[:, 0]
        best = int(value.argmax())
        point = x[best].cpu().numpy()
        self._looks += 1
        if float(value[best]) > search.level - self._at:
            search.accept(point[None])
        if self._looks % _CLIMB_EVERY == 0 or self._looks in (1, 2, 4, 8):
            seed = search.session.limits.seed + self._looks
            search.accept(climb(frame.network, (search.low, search.high), _NEAR, seed, start=point, budget=search.budget))

    def program(self, model: ClauseModel, close: float, budget: Budget) -> float:
        bound = self._search.program(model, max(budget.remaining, 0.0))
        return -bound if math.isfinite(bound) else -math.inf
