"""One question: is there a point with another class within a radius? Answered by a tree, as far as the time allows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.passes.attack.walk import walk_back
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.dive import Dive
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.leaf import Closer
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.tree import Tree
from onnxsub.verifiers.milp.local import LocalModel, TargetModel
from onnxsub.verifiers.milp.search import Search
from onnxsub.verifiers.milp.tighten import GAIN

__all__ = ["Answer", "Question"]

_PATIENT = 4.0  # seconds that a question must be worth before slopes are optimised for it
_CUTS = 0.25  # share of the radius that a root's line must reach for its target's intervals to be cut
_WALK_EVERY = 16  # steps of a tree between two walks from points that are not adversarial themselves; the first ones come sooner
_WALK_CUT = 2  # the same where there are cuts: a step takes as long as five walks
_WALKS = 8  # points from which one walk begins
_SHRUNK = 0.998  # small trees are begun again when the closing radius has come below this share of the ball's
_TELL = 0.5  # seconds between two lines of progress
_STUCK = 0.97  # nodes with bounds this near to the closing radius: multipliers will not get there soon, a program may
_FIRST_PROGRAM = 128  # nodes of the tree before a program is tried; as many again before the next
_FAR = 8  # times as many where bounds are not near to the closing radius
_COARSE = 0.2  # share that a pass of tightening must bring for targets that linear programs will settle
_FEW = 4  # gradient steps for the roots of what linear programs will settle
_PROGRAM = 2.0  # seconds that a program gets at least


@dataclass(frozen=True)
class Answer:
    """What a question brought.

    Attributes:
        proved: no class is reached within the radius that was asked about, or within the tolerance below a point found since.
        better: a nearer point was found.
        finished: there is nothing left to do about this question.
        seconds: that it took, all runs together.
        tree: seconds of these that its trees took.
        cut: its tree was so hard that it got cuts over pairs of units.
        hard: nodes stayed open when they had met these.
    """

    proved: bool
    better: bool
    finished: bool
    seconds: float
    tree: float = 0.0
    cut: bool = False
    hard: bool = False


class Question:
    """Whether any class is reached within `radius`; what is proved goes to `search`, also where time runs out.

    A point that is found on the way lowers the radius to the tolerance below it and the search goes on. A question that ran out
    of time can be run again and goes on where it was.

    Args:
        seconds: that it will be given first: short questions are not prepared at length.
        local: the network on the ball of that radius, where it is known already.
    """

    def __init__(self, search: Search, options: BabOptions, radius: float, seconds: float, local: LocalModel | None = None) -> None:
        self.radius = radius
        self._search = search
        self._options = options
        self._patient = seconds > _PATIENT
        self._local = local
        self._open: dict[int, float] | None = None
        self._run: _Run | None = None
        self._ready = False
        self._narrower = False  # found on the way to the tree
        self._spent = 0.0
        self._in_tree = 0.0

    def roots(self, *, quick: bool = False) -> bool:
        """Bounds and one root per target; whether they settle everything.

        Args:
            quick: a single target with few units is left to the linear programs, which do what its root would.
        """
        if self._open is None:
            began = time.perf_counter()
            self._local = self._local or self._search.local(self.radius, self._options.dense, self._options.device)
            self._open = self._left(self._local, quick=quick)
            self._spent += time.perf_counter() - began
        return not self._open

    def run(self, seconds: float) -> Answer:
        """Goes on for at most `seconds`, or until a point within `search.enough` is found."""
        began = time.perf_counter()
        search, upper = self._search, self._search.upper
        until = began + seconds
        if not self.roots(quick=True) and not self._ready:
            self._prepare(until)
        if self._run is not None:
            with search.stage("tree"):
                started = time.perf_counter()
                self._run.go(until)
                self._in_tree += time.perf_counter() - started
        self._spent += time.perf_counter() - began
        proved = min(search.lowers.values()) >= min(self.radius, search.upper - search.options.tol)
        finished = not self._open or (self._ready and (self._run is None or self._run.finished))
        cut, hard = (False, False) if self._run is None else (self._run.cut, self._run.hard)
        return Answer(proved, search.upper < upper, finished, self._spent, self._in_tree, cut, hard)

    @property
    def shrunk(self) -> bool:
        """Whether the points found since make it worth to ask again on a smaller ball."""
        return self._narrower or (self._run is not None and self._run.shrunk)

    def _prepare(self, until: float) -> None:
        """Better slopes for what roots leave open, then intervals that are cut by what is asked about, and the tree."""
        search, options, radius, local, left = self._search, self._options, self.radius, self._local, self._open
        assert local is not None
        assert left is not None
        if self._patient and local.unstable > options.narrow:
            with search.stage("bounds"):
                before, local = local, local.bounded("alpha-crown", options.slopes)
            for t in set(before.open) - set(local.open):
                search.prove(t, radius, by_bounds=True)
            left = self._left(local)
        models = []
        for t, reached in left.items():
            if not search.running or time.perf_counter() > until:
                return
            # a line that reaches zero near the anchor cuts off next to nothing
            cut = local if reached > _CUTS * radius else replace(local, tight=False)
            model = search.target(cut, t, options.tighten, _COARSE if local.unstable <= options.dive else GAIN)
            if model is not None:
                models.append(model)
        models = self._dived(models, until)
        self._ready = True
        if models:
            self._run = _Run(search, options, models, radius)

    def _dived(self, models: list[TargetModel], until: float) -> list[TargetModel]:
        """What is left when targets with few units were searched by linear programs."""
        search, left = self._search, []
        for model in models:
            dive = Dive.of(search, model, self.radius, self._options) if time.perf_counter() < until else None
            if dive is None or self._narrower:
                left.append(model)
                continue
            with search.stage("tree"):
                started = time.perf_counter()
                settled = dive.run(until)
                self._in_tree += time.perf_counter() - started
            self._narrower = dive.shrunk
            if not settled:
                left.append(model)
        return [] if self._narrower else left

    def _left(self, local: LocalModel, *, quick: bool = False) -> dict[int, float]:
        """Targets that one root each does not settle on the intervals of the ball, and the radius that their line reaches."""
        search, radius = self._search, self.radius
        with search.stage("tree"):
            plain = replace(local, tight=False)
            models = [m for m in (plain.target(t) for t in local.open if search.lowers[t] < radius) if m is not None]
            if quick and len(models) == 1 and local.unstable <= self._options.dive:
                return {models[0].target: radius}
            if not models:
                return {}
            bounder = Bounder(Frame.of(models, device=self._options.device))
            # linear programs over a few units are worth more than many steps of the gradient
            steps = self._options.root_steps if local.unstable > self._options.dive else _FEW
            found = bounder.bound(bounder.roots(), steps, radius, self._options.rate)
            search.nodes += len(models)
            reached = {m.target: r for m, r in zip(models, found.nodes.radius.tolist(), strict=True)}
            for t, r in reached.items():
                search.prove(t, min(r, radius))
            return {t: r for t, r in reached.items() if r < radius}


class _Run:
    """One tree and what happens round it: points are tried, stubborn nodes become programs."""

    def __init__(self, search: Search, options: BabOptions, models: list[TargetModel], radius: float) -> None:
        self._search = search
        self._options = options
        self._radius = radius
        self._frame = Frame.of(models, device=options.device)
        self._tree = Tree(self._frame, options, self._close())
        self._closer = Closer(search, self._frame, models)
        none = torch.zeros(len(models), device=self._frame.device)
        counts = sum((self._frame.unstable(op).flatten(1).sum(1) for op in self._frame.activations), none)
        self._units = [int(u) for u in counts.tolist()]
        self._small = max(self._units) <= options.narrow
        self._patience = [_FIRST_PROGRAM] * len(models)
        self._started = False
        self._counted = 0
        self._looks = 0
        self._spent = 0.0
        self._told = 0.0

    @property
    def shrunk(self) -> bool:
        """Whether the closing radius has come well below the ball's in a small tree."""
        return self._small and self._tree.close < _SHRUNK * self._frame.radius

    @property
    def cut(self) -> bool:
        """Whether the tree got cuts."""
        return self._tree.cut

    @property
    def hard(self) -> bool:
        """Whether the tree went on behind its cuts."""
        return self._tree.hard

    @property
    def finished(self) -> bool:
        """Whether no node is left that anything can be done about."""
        return self._started and not self._tree.open and not self._tree.leaves

    def _close(self) -> float:
        return min(self._radius, self._search.upper - self._search.options.tol / 2)

    def go(self, until: float) -> None:
        """Until the tree is empty or the time is over."""
        search, tree = self._search, self._tree
        try:
            tree.close = min(tree.close, self._close())
            if not self._started:
                self._started = True
                self._look(tree.start())
            while (tree.open or tree.leaves) and search.running and search.upper > search.enough and time.perf_counter() < until:
                began = time.perf_counter()
                row = self._stubborn()
                if tree.leaves:
                    self._leaf(until)
                elif row is not None:
                    self._program(row, until)
                else:
                    tree.step(self._look, until)
                self._spent += time.perf_counter() - began
                self._tell()
                if self.shrunk:
                    break  # the nearer ball has tighter bounds, and they cost next to nothing here
        finally:
            search.nodes += tree.visited - self._counted
            self._counted = tree.visited
            for t, lower in tree.lowers().items():
                search.prove(t, min(lower, self._radius))

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self._told > _TELL:
            self._told = now
            tree = self._tree
            self._search.tell(f"within {tree.close:.6g}: nothing nearer than {tree.lower:.6g}, {len(tree)} nodes open")

    def _look(self, offsets: Tensor) -> None:
        """Tries the points at which bounds are attained on the network, and walks on from the best of them."""
        search, frame = self._search, self._frame
        self._looks += 1
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            f = search.network.forward(x)
            own = f[:, frame.label].clone()
            f[:, frame.label] = -math.inf
            margin = f.max(1).values - own
        size = offsets.abs().amax(1)
        upper = search.upper
        good = torch.nonzero((margin >= 0) & (size < search.upper))[:, 0]
        if len(good):
            order = good[torch.argsort(size[good])][:_WALKS]
            search.accept(x[order[0]].cpu().numpy())
        elif self._looks & (self._looks - 1) and self._looks % (_WALK_CUT if self._tree.frame.cuts else _WALK_EVERY):
            return
        else:
            # points that are no more than near: the boundary may be closer behind them
            order = torch.argsort(margin, descending=True)[:_WALKS]
        near = walk_back(
            search.network, search.x0.astype(np.float32), search.label, search.space, x[order].cpu().numpy(),
            search.referee.margins, upper=search.upper if math.isfinite(search.upper) else None, device=self._options.device,
        )  # fmt: skip
        if near is not None and near.radius < search.upper:
            search.accept(near.x)
        if search.upper < upper and search.best is not None and self._closer.able and max(self._units) <= self._options.leaf:
            self._closer.nearest(search.best)
        self._tree.close = min(self._tree.close, self._close())

    def _stubborn(self) -> int | None:
        """The target whose nodes are so near to the closing radius, or so few in their units, that one program may settle it."""
        tree, first = self._tree, self._tree.first
        if first is None or not self._closer.able or self._units[first.target] > self._options.leaf:
            return None
        near = tree.lower >= _STUCK * tree.close
        return first.target if tree.visited > self._patience[first.target] * (1 if near else _FAR) else None

    def _program(self, row: int, until: float) -> None:
        """The program of a whole target, for about as long as the tree has taken so far."""
        tree, now = self._tree, time.perf_counter()
        bound = self._closer.close_target(row, tree.close, min(until, now + max(self._spent, _PROGRAM)))
        tree.close = min(tree.close, self._close())
        tree.raise_target(row, bound)
        self._patience[row] = 2 * tree.visited

    def _leaf(self, until: float) -> None:
        """The program of a node with nothing left to split: it is done, or as well known as it can be."""
        tree = self._tree
        node = tree.leaves[-1]  # it stays there until it is known what becomes of it
        if node.radius >= tree.close:
            tree.leaves.pop()
            return
        if not self._closer.able:
            tree.given_up.append(node)
            tree.leaves.pop()
            return
        bound = self._closer.close(node, tree.close, until)
        tree.close = min(tree.close, self._close())
        rest = [replace(node, radius=bound)] if bound < tree.close else []
        if time.perf_counter() < until:
            tree.given_up += rest
            tree.leaves.pop()
        else:
            tree.leaves[-1:] = rest
