"""One question about one box: is any clause satisfied there? Roots, tighter intervals, linear programs, then a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.bounders import bounder_of
from onnxsub.verifiers.bab.divide import divided
from onnxsub.verifiers.bab.driver import Driver, Goal
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.halfspaces import GAIN
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.box.unpool import with_relus
from onnxsub.verifiers.session import Session

__all__ = ["BoxGoal", "Question"]

_PATIENT = 4.0  # seconds that a question must be worth before slopes are optimised for it
_DEARER = 20.0  # and as many times what its first bounds took
_CUTS = 0.25  # share of the closing radius that a root's line must reach for its clause's intervals to be cut
_COARSE = 0.2  # share that a pass of tightening must bring for clauses that linear programs will settle
_FEW = 4  # gradient steps for the roots of what linear programs will settle
_NUMBERS = 2**24  # intervals of the roots that are bounded together
_APART = 32  # clauses of hard trees that get one each
_TURN = 256  # nodes of each of these before the next one goes on, doubled every time
_RATES = 2.0, 0.5, 3.0, 0.3  # of the usual step size: what trees that are begun again have


class BoxGoal(Goal, Protocol):
    """A goal about one box.

    Attributes:
        whole: whether nodes are about the whole box and no distance (`Frame.whole`).
    """

    whole: bool

    def local(self) -> BoxModel:
        """The box, bounded; what bounds exclude is noted."""
        ...

    def keep(self, local: BoxModel) -> None:
        """Notes what better bounds of the box exclude."""
        ...

    def pending(self, key: int) -> bool:
        """Whether a clause is still of interest."""
        ...

    def prove(self, key: int, radius: float) -> None:
        """Notes that a clause holds nowhere within a radius; at `close`: nowhere at all."""
        ...

    def narrow(self, local: BoxModel, key: int, gain: float) -> ClauseModel | None:
        """What the points look like at which a clause holds; None: there are none, which is noted."""
        ...

    def dive(self, model: ClauseModel, budget: Budget) -> bool:
        """Searches a clause with few units by linear programs; whether it needs no more work."""
        ...

    @property
    def fresh(self) -> bool:
        """Whether the box is as small as it may be: False where a dive has made it worth to begin again."""
        ...


class Question:
    """What is proved goes to the goal, also where time runs out. A question that ran out of time can be run again and goes on.

    Args:
        seconds: that it will be given first: short questions are not prepared at length.
        local: the box, where it is bounded already.

    Attributes:
        seconds: spent so far; tree: of these, in trees.
    """

    def __init__(self, goal: BoxGoal, session: Session, seconds: float, local: BoxModel | None = None) -> None:
        self.goal = goal
        self.spent = self.in_tree = 0.0
        self._session = session
        self._worth = seconds
        self._local = local
        self._bounding = 0.0
        self._open: dict[int, float] | None = None
        self._models: list[ClauseModel] | None = None  # what is left to search
        self._drivers: list[Driver] = []
        self._divided, self._turn, self._rounds = False, _TURN, 0
        self._ready = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do about this question."""
        return self._open == {} or (self._ready and not self._undecided())

    @property
    def small(self) -> bool:
        """Whether few units of the box are unstable, so that nodes are cheap."""
        return self._local is not None and self._local.unstable <= self._session.bab.narrow

    @property
    def frontier(self) -> Frontier | None:
        """The tree, where there is one for all clauses."""
        return self._drivers[0].frontier if len(self._drivers) == 1 else None

    def roots(self, *, quick: bool = False) -> bool:
        """Bounds and one root per clause; whether they settle everything.

        Args:
            quick: a single clause with few units is left to the linear programs, which do what its root would.
        """
        if self._open is None:
            clock = self._session.budget
            began = clock.now
            self._local = self._local or self.goal.local()
            self._bounding = clock.now - began
            self._open = self._left(self._local, quick=quick)
            self.spent += clock.now - began
        return not self._open

    def run(self, budget: Budget) -> None:
        """Goes on until the budget ends, or the goal is reached."""
        began = budget.now
        if not self.roots(quick=True) and not self._ready:
            self._prepare(budget)
        if self._ready:
            with budget.stage("tree"):
                started = budget.now
                self._search(budget)
                self.in_tree += budget.now - started
        self.spent += budget.now - began

    def _search(self, budget: Budget) -> None:
        """One tree for all clauses, or one for each."""
        if not self._drivers and (models := [m for m in self._models or () if self.goal.pending(m.key)]):
            frame = Frame.of(models, whole=self.goal.whole, device=self._session.bab.device)
            frontier = Frontier(frame, self._session.bab, self.goal.close(), budget=self._session.budget)
            self._drivers = [Driver(self.goal, self._session, models, frontier)]
        if self._drivers and self.goal.whole and not self._divided:
            self._divide(budget)
        if self._drivers and not self._divided:
            self._drivers[0].run(budget)
            return
        while (todo := self._undecided()) and not self.goal.done and budget.running:
            for driver in todo:
                driver.run(budget.with_nodes(self._turn))
                if driver in self._undecided() and not self.goal.done and budget.running:
                    self._again(driver).run(budget.with_nodes(self._turn))
            self._turn *= 2
            self._rounds += 1

    def _undecided(self) -> list[Driver]:
        """The trees that are not finished, of clauses that are not proved by another one."""
        return [d for d in self._drivers if not d.finished and any(self.goal.pending(k) for k in d.frontier.frame.keys)]

    def _divide(self, budget: Budget) -> None:
        """The tree of several clauses goes on until it is hard; then there is one for each."""
        (driver,) = self._drivers
        tree, hard = driver.frontier, self._session.bab.hard
        while tree.split < hard and not driver.finished and not self.goal.done and budget.running:
            driver.run(budget.with_nodes(hard - tree.split))  # roots count as nodes too, so once may not be enough
        left = {w.target for w in tree.all_open()}
        fits = 0 < len(left) <= _APART and not tree.frame.cuts
        if tree.split < hard or not fits or self.goal.done or budget.over:
            return
        models = {m.key: m for m in self._models or ()}
        self._drivers = [Driver(self.goal, self._session, [models[t.frame.keys[0]]], t) for t in divided(tree)]
        self._divided = True

    def _again(self, driver: Driver) -> Driver:
        """The same clause from its root, with other steps for multipliers.

        How many nodes a proof takes hangs on the first few splits: of trees that differ in nothing else one takes 60 nodes and
        another one has thousands open in the end. To begin again cuts such tails off (Gomes, Selman, Kautz 1998).
        """
        bab = self._session.bab
        rate = min(1.0, _RATES[self._rounds % len(_RATES)] * bab.rate)
        frame = replace(driver.frontier.frame, cuts={})
        tree = Frontier(frame, replace(bab, rate=rate), self.goal.close(), budget=self._session.budget)
        return Driver(self.goal, self._session, [m for m in self._models or () if m.key in frame.keys], tree, programs=False)

    def _left(self, local: BoxModel, *, quick: bool = False) -> dict[int, float]:
        """Clauses that one root each does not settle, and the radius that their line reaches."""
        goal, bab = self.goal, self._session.bab
        keys = [k for k in local.open if goal.pending(k)]
        small = self._few(local)
        left: dict[int, float] = {}
        with self._session.budget.stage("tree"):
            if quick and len(keys) == 1 and small:
                return {keys[0]: goal.close()}
            for models in self._blocks(local, keys):
                frame = Frame.of(models, whole=goal.whole, device=bab.device)
                bounder = bounder_of(frame, self._session.budget)
                # linear programs over a few units are worth more than many steps of the gradient
                found = bounder.bound(bounder.roots(), _FEW if small else bab.root_steps, goal.close(), bab.rate)
                self._session.budget.count(len(models))
                for m, radius in zip(models, found.nodes.radius.tolist(), strict=True):
                    goal.prove(m.key, min(radius, goal.close()))
                    if radius < goal.close():
                        left[m.key] = radius
                goal.look(frame, found.point, None)
                if goal.done:
                    break
        return left

    def _blocks(self, local: BoxModel, keys: list[int]) -> Iterator[list[ClauseModel]]:
        """Plain models of clauses, as many at a time as memory allows."""
        each = sum(op.out_size for op in local.network.nonlinear) + local.network.input_size
        count = max(1, _NUMBERS // max(each, 1))
        for i in range(0, len(keys), count):
            self._session.budget.check()
            yield [m for k in keys[i : i + count] if (m := local.clause(k, tight=False)) is not None]

    def _prepare(self, budget: Budget) -> None:
        """What roots leave open is searched by linear programs, where these are a match for it; then there is a tree."""
        goal = self.goal
        if self._models is None:
            self._models = self._cut(budget)
        local = self._local
        if self._models is None or local is None:
            return
        if self._few(local):
            self._models = self._dived(self._models, budget)
            if goal.done or budget.over:
                return  # what was cut short goes on the next time
            if self._models and local.network.windows:
                local = self._local = self._split(local)
                self._models = self._narrowed(local, [m.key for m in self._models], budget)
        self._ready = True

    def _cut(self, budget: Budget) -> list[ClauseModel] | None:
        """What the points of interest look like: better slopes first, then intervals that are cut by the line of a root."""
        goal, bab, local = self.goal, self._session.bab, self._local
        assert local is not None
        assert self._open is not None
        if not self._few(local):
            local = self._split(local)
        most = bab.searched(windows=False, whole=bool(local.network.windows) or not self._programs(local))
        if self._worth > max(_PATIENT, _DEARER * self._bounding) and local.unstable > most:
            budget.tell("better slopes for the bounds")
            with budget.stage("bounds"):
                local = local.bounded("alpha-crown", bab.slopes)
            goal.keep(local)
            self._open = self._left(local)
        self._local = local
        models = self._narrowed(local, list(self._open), budget)
        return None if goal.done or budget.over else models

    def _programs(self, local: BoxModel) -> bool:
        """Whether linear programs search clauses of few units: those of a distance, where solvers know all operators."""
        return local.able and not self.goal.whole

    def _few(self, local: BoxModel) -> bool:
        return local.few(self._session.bab, programs=self._programs(local))

    def _split(self, local: BoxModel) -> BoxModel:
        """The box with Relus in the place of windows: a tree splits these."""
        if local.network.windows:
            with self._session.budget.stage("bounds"):
                local = with_relus(local)
            self.goal.keep(local)
        return local

    def _narrowed(self, local: BoxModel, keys: list[int], budget: Budget) -> list[ClauseModel]:
        """What the points look like at which each clause holds, without those that hold nowhere."""
        goal, models = self.goal, list[ClauseModel]()
        reached = self._open or {}
        for key in keys:
            if goal.done or budget.over:
                break
            # a line that reaches zero near the anchor cuts off next to nothing
            tight = local.how.tight and reached[key] > _CUTS * goal.close()
            cut = local if tight else replace(local, how=replace(local.how, tight=False))
            model = goal.narrow(cut, key, _COARSE if self._few(local) else GAIN)
            if model is not None:
                models.append(model)
        return models

    def _dived(self, models: list[ClauseModel], budget: Budget) -> list[ClauseModel]:
        """What is left when clauses with few units were searched by linear programs."""
        left = []
        for model in models:
            if budget.over or not self.goal.fresh:
                left.append(model)
                continue
            with budget.stage("tree"):
                started = budget.now
                settled = self.goal.dive(model, budget)
                self.in_tree += budget.now - started
            if not settled:
                left.append(model)
        return left if self.goal.fresh else []
