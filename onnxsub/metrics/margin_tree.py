"""The tree of a smallest margin and what happens round it: points are tried, stubborn nodes become programs."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from onnxsub.metrics.margin_climb import Climb, climb
from onnxsub.metrics.margin_state import MarginState
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.leaf import node_model
from onnxsub.verifiers.bab.minimum import ValueTree
from onnxsub.verifiers.milp.local import TargetModel

__all__ = ["Grower"]

_CLIMB_EVERY = 16  # steps of a tree between two climbs from its points; the first ones come sooner
_NEAR = Climb(restarts=4, steps=20)
_SMALL = 16  # binaries of a whole program that is asked at once
_TREE = 3.0  # seconds of the tree for one of its programs
_FIRST = 1.0  # seconds of the tree before a program is tried
_FAR = 10.0  # times as long where many units are open
_LARGEST = 600  # most binaries of a program
_PROGRAM = 1.0  # seconds that a program gets at least
_RISEN = 0.1  # share of the gap that a better point must close for the intervals to be cut again
_YOUNG = 200  # nodes up to which a tree is given up for tighter intervals
_TELL = 0.5  # seconds between two lines of progress


class Grower:
    """One tree over the points above the level.

    Args:
        model: their programs, at the level of `state`, output 0 the value above it.
        able: whether every operator has MILP rows.
    """

    def __init__(self, state: MarginState, model: TargetModel, *, able: bool) -> None:
        self._state = state
        self._model = model
        self._able = able
        self._at = state.level  # the model's values count from here
        self._tree = ValueTree(Frame.of([model], whole=True, device=state.options.bab.device), state.options.bab)
        self._gap = state.top + state.upper
        self._began_at = state.upper
        self._binaries = model.binaries
        self._grown = self._programs = self._given = self._told = 0.0
        self._looks = self._counted = 0

    def run(self) -> bool:
        """Whether the tree has done what it can; False: the level has risen so far that a new one is better."""
        state, tree = self._state, self._tree
        try:
            with state.stage("tree"):
                self._look(tree.start())
            while (tree.open or tree.leaves) and state.running:
                state.prove(self._at + tree.top)
                if state.settled:
                    return True
                if tree.visited < _YOUNG and self._began_at - state.upper > _RISEN * self._gap:
                    return False
                began = time.perf_counter()
                if self._able and self._due(tree):
                    self._whole(tree)
                    self._programs += time.perf_counter() - began
                    continue
                if tree.leaves:
                    self._leaf(tree)
                else:
                    with state.stage("tree"):
                        tree.step(self._look)
                self._grown += time.perf_counter() - began
                self._tell(tree)
        finally:
            state.nodes += tree.visited - self._counted
            self._counted = tree.visited
            state.prove(self._at + tree.top)
        return True

    def _tell(self, tree: ValueTree) -> None:
        now = time.perf_counter()
        if now - self._told > _TELL:
            self._told = now
            self._state.prove(self._at + tree.top)
            self._state.tell(f"{tree.open + len(tree.leaves)} nodes open, {tree.visited} bounded")

    def _rise(self) -> None:
        self._tree.rise(self._state.level - self._at)

    def _look(self, offsets: Tensor) -> None:
        """Tries the points at which bounds are attained, and climbs on from the best of them."""
        state, frame = self._state, self._tree.frame
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            value = frame.network.forward(x)[:, 0]
        best = int(value.argmax())
        point = x[best].cpu().numpy()
        self._looks += 1
        if float(value[best]) > self._tree.level:
            state.accept(point[None])
        if self._looks % _CLIMB_EVERY == 0 or self._looks in (1, 2, 4, 8):
            seed = state.options.milp.seed + self._looks
            state.accept(climb(frame.network, state.low, state.high, _NEAR, seed, start=point, late=state.late))
        self._rise()

    def _due(self, tree: ValueTree) -> bool:
        """Whether the program of all that is left may go on now; programs get a quarter of the time."""
        leaf = self._state.options.bab.leaf
        if not leaf or not tree.open or self._binaries > _LARGEST:
            return False
        if not self._given:
            wait = 0.0 if self._binaries <= min(_SMALL, leaf) else _FIRST if self._binaries <= leaf else _FAR * _FIRST
            return self._grown >= wait
        # a run that is not longer than the last one would end where that did
        return _TREE * self._programs <= self._grown and self._slice() > 2 * self._given

    def _slice(self) -> float:
        return max(_PROGRAM, self._grown / _TREE - self._programs)

    def _whole(self, tree: ValueTree) -> None:
        self._given = min(self._slice(), self._state.remaining)
        bound = self._solve(self._model, self._given)
        tree.cap(bound)
        self._rise()

    def _leaf(self, tree: ValueTree) -> None:
        """The program of a node with nothing left to split."""
        item = tree.leaves[-1]  # it stays there until it is known what becomes of it
        bound = self._solve(node_model(tree.frame, self._model, item.node), math.inf) if self._able else math.inf
        self._rise()
        tree.give_up(item, bound)

    def _solve(self, model: TargetModel, seconds: float) -> float:
        """A proved upper bound of the values of a model; the point that it finds is tried."""
        state = self._state
        with state.stage("build"):
            problem = model.decision()
        solution = state.solve(problem, seconds)
        if solution.x is not None:
            state.accept(model.point(solution.x)[None])
        if solution.status.proves_empty:
            return 0.0
        return max(-solution.bound, 0.0) + model.slack if math.isfinite(solution.bound) else math.inf
