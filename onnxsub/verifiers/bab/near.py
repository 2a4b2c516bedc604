"""The goal of a distance: is any class reached within a radius? Points found on the way lower it to the tolerance below them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.passes.attack.walk import walk_back
from onnxsub.verifiers.bab.driver import Policy
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.leaf import region_model
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.pieces.tree import MaximaTree
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import OUTWARD, Bracket
from onnxsub.verifiers.programs.solvers import SolverOptions, SolverStatus
from onnxsub.verifiers.proof import excludes

__all__ = ["NearGoal", "Patience"]

_WALK_EVERY = 16  # steps of a tree between two walks from points that are not adversarial themselves; the first ones come sooner
_WALK_CUT = 2  # the same where there are cuts: a step takes as long as five walks
_WALKS = 8  # points from which one walk begins
_LEAST = 1e-6  # seconds that are none
_SHRUNK = 0.998  # small trees are begun again when the closing radius has come below this share of the ball's


@dataclass
class Patience:
    """Seconds left, for a whole distance, in which linear programs may search targets of more than `BabOptions.small` open units.

    Some of these end after a handful of nodes; others would take hundreds at a tenth of a second each, where lines need tens.
    Networks with windows are left out of it: programs search their targets whatever comes.
    """

    left: float = 1.0

    @property
    def over(self) -> bool:
        """Whether it is used up; a part of it that was granted ends within rounding of it."""
        return self.left < _LEAST


class NearGoal:
    """Whether any class is reached within `radius`; what is proved goes to the bracket.

    Args:
        patience: shared by all goals of one distance.

    Attributes:
        gave_up: linear programs took too long over a large target. The session searches no more of them; what was bounded for
            programs is too coarse for a tree, so the question is best begun anew.
    """

    whole = False
    policy = Policy()

    def __init__(self, bracket: Bracket, radius: float, patience: Patience) -> None:
        self.radius = radius
        self.fresh = True
        self.gave_up = False
        self._patience = patience
        self._bracket = bracket
        self._looks = 0
        self._models: dict[int, ClauseModel] = {}
        self._dives: dict[int, MaximaTree | DepthFirst | None] = {}

    @property
    def done(self) -> bool:
        b = self._bracket
        return b.claims.diverged is not None or b.upper <= b.enough

    def close(self) -> float:
        return min(self.radius, self._bracket.upper - self._bracket.gap / 2)

    def local(self) -> BoxModel:
        return self._bracket.local(self.radius, branching=True)

    def keep(self, local: BoxModel) -> None:
        self._bracket.keep(local, self.radius)

    def pending(self, key: int) -> bool:
        return self._bracket.claims.lowers[key] < self.radius

    def prove(self, key: int, radius: float) -> None:
        self._bracket.claims.prove(key, min(radius, self.radius))

    def narrow(self, local: BoxModel, key: int, gain: float) -> ClauseModel | None:
        b = self._bracket
        model = b.target(local, key, b.session.bab.tighten, gain)
        if model is not None:
            self._models[key] = model
        return model

    def dive(self, model: ClauseModel, budget: Budget) -> bool:
        session, began = self._bracket.session, budget.now
        small = session.bab.small
        if model.local.network.windows or model.binaries <= small or session.bab.dive <= small:
            return self._dive(model, budget)
        settled = not self._patience.over and self._dive(model, budget.part(self._patience.left))
        self._patience.left -= budget.now - began
        if not settled and self._patience.over:
            session.bab = replace(session.bab, dive=small)
            self.gave_up, self.fresh = True, False
        return settled

    def _dive(self, model: ClauseModel, budget: Budget) -> bool:
        if model.key not in self._dives:
            tree = MaximaTree.of(self._bracket, model, self.radius)
            self._dives[model.key] = tree or DepthFirst.of(self._bracket, model, self.radius)
        search = self._dives[model.key]
        if search is None:
            return False
        settled = search.run(budget)
        self.fresh = not search.shrunk
        return settled

    def stale(self, frontier: Frontier) -> bool:
        frame = frontier.frame
        small = frame.open_units <= self._bracket.session.bab.narrow
        return small and frontier.close < _SHRUNK * frame.radius  # the nearer ball has tighter bounds, at next to no cost

    def progressed(self, frontier: Frontier) -> None:
        """Nothing: what is proved is taken at the end of a run."""

    def publish(self, frontier: Frontier) -> None:
        for t, lower in frontier.lowers().items():
            self._bracket.claims.prove(t, min(lower, self.radius))

    def look(self, frame: Frame, offsets: Tensor, frontier: Frontier | None) -> None:
        """Tries the points at which bounds are attained on the network, and walks on from the best of them."""
        if frontier is None:
            return
        b = self._bracket
        self._looks += 1
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            f = b.network.forward(x)
            others = f[:, list(b.instance.targets)]
            margin = others.max(1).values - f[:, b.label]
        size = offsets.abs().amax(1)
        upper = b.upper
        good = torch.nonzero((margin >= 0) & (size < b.upper))[:, 0]
        if len(good):
            order = good[torch.argsort(size[good])][:_WALKS]
            b.accept(x[order[0]].cpu().numpy())
        elif self._looks & (self._looks - 1) and self._looks % (_WALK_CUT if frame.cuts else _WALK_EVERY):
            return
        else:
            # points that are no more than near: the boundary may be closer behind them
            order = torch.argsort(margin, descending=True)[:_WALKS]
        near = walk_back(
            b.network, b.x0.astype(np.float32), b.label, b.instance.space, x[order].cpu().numpy(), b.referee.margins,
            upper=b.upper if math.isfinite(b.upper) else None, device=b.session.bab.device, budget=b.budget,
            target=b.instance.target,
        )  # fmt: skip
        if near is not None and near.radius < b.upper:
            b.accept(near.x)
        if b.upper < upper:
            self._nearest_of_region(frame)

    def _nearest_of_region(self, frame: Frame) -> None:
        """The nearest point with the pieces that the best one has: a linear program, whose solution is tried."""
        b, witness = self._bracket, self._bracket.best
        model = None if witness is None else self._models.get(witness.label)
        able = model is not None and model.local.able and model.binaries <= b.session.bab.leaf
        if witness is None or model is None or not able or model.key not in frame.keys:
            return
        region = region_model(frame, model, witness.x)
        if region is None:
            return  # the point lies outside of what is proved of points of interest: rounding
        with b.budget.stage("build"):
            problem = region.minimum()
        solution = b.session.solve(problem, SolverOptions(), share=0.5)
        if solution.x is not None:
            b.accept(model.point(solution.x))

    def program(self, model: ClauseModel, close: float, budget: Budget) -> float:
        """First whether anything lies within the radius, which is the cheaper question; if so, the nearest point."""
        b = self._bracket
        inner = model.within(close)
        with b.budget.stage("build"):
            problem = inner.decision()
        solution = b.session.solve(problem, inner.decision_options, seconds=max(budget.remaining, 0.05))
        if solution.status.proves_empty:
            return math.inf
        if solution.x is None:
            return 0.0
        b.accept(inner.point(solution.x))
        with b.budget.stage("build"):
            problem = model.minimum()
        solution = b.session.solve(problem, SolverOptions(abs_gap=b.tol / 8), seconds=max(budget.remaining, 0.05))
        key = 0.0
        if solution.status.proves_empty:
            key = math.inf
        elif solution.status is not SolverStatus.UNBOUNDED and excludes(-solution.bound):
            key = solution.bound - OUTWARD * model.local.box.radius
        if solution.x is not None:
            witness = b.accept(model.point(solution.x))
            if not witness.confirmed:
                self._strict(model, witness.radius, budget)
        return key

    def _strict(self, model: ClauseModel, radius: float, budget: Budget) -> None:
        """Looks for a point with the largest margin a hair beyond the nearest one, which no replay can tell from the boundary."""
        b = self._bracket
        inner = model.within(radius + b.tol / 2)
        with b.budget.stage("build"):
            problem = inner.decision()
        solution = b.session.solve(problem, SolverOptions(abs_gap=1e-9), seconds=max(budget.remaining, 0.05))
        if solution.x is not None:
            b.accept(inner.point(solution.x))
