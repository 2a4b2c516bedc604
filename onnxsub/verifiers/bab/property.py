"""One box of a property by branch and bound: is any of its clauses satisfied anywhere in it?

The network is that of `as_least_network`: one output per clause, its smallest row, against the constant 0. So a clause is a class
that is reached where its output is not negative, and everything that serves distances serves here: x0 is the centre of the
box, and a node is done when its line does not reach zero in the box at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.properties.least import as_least_network
from onnxsub.properties.rows import as_margin_network
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.leaf import node_model
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.tree import Tree
from onnxsub.verifiers.milp.local import LocalModel, TargetModel
from onnxsub.verifiers.property_attack import AttackPlan, ascend
from onnxsub.verifiers.property_state import PropertyState

__all__ = ["BoxSearch"]

_BEYOND = 1.000001  # of the reach of the box: the radius that only nodes without any point reach
_PATIENT = 4.0  # seconds that a box must be worth before slopes are optimised for its intervals
_DEARER = 20.0  # and as many times what its first bounds took
_CUTS = 0.25  # share of the reach that a root's line must leave for its clause's intervals to be cut
_STUCK = 0.97  # nodes this near to being done: multipliers will not get there soon, a program may
_FIRST_PROGRAM = 0.4  # seconds of the tree before a program is tried
_FAR = 10.0  # times as long where bounds are not near
_LARGEST = 600  # most binaries of a program
_PROGRAM = 3.0  # seconds that a program gets at least
_ASCEND_EVERY = 16  # steps of a tree between two searches from its points; the first ones come sooner
_STARTS = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=4, steps=20)
_TELL = 0.5  # seconds between two lines of progress


class BoxSearch:
    """One case of a property. What is proved and found goes to `state`.

    Attributes:
        promise: an upper bound of the smallest row of its clauses; below 0 nothing is left.
    """

    def __init__(self, state: PropertyState, number: int, options: BabOptions) -> None:
        self.number = number
        self.promise = math.inf
        self._state = state
        self._options = options
        self._rows = state.rows[number]
        self._network = as_margin_network(state.network, self._rows)
        self._least = as_least_network(state.network, self._rows)
        self._local: LocalModel | None = None
        self._open: dict[int, float] = {}
        self._bounding = 0.0  # seconds
        self._close = math.inf
        self._tree: Tree | None = None
        self._models: list[TargetModel] = []
        self._able = False
        self._ready = False
        self._looks = 0
        # seconds of the tree and of its programs
        self._grown = self._programs = 0.0
        self._given: list[float] = []
        self._compact: dict[int, TargetModel | None] = {}
        self._told = 0.0
        self._counted = 0

    @property
    def settled(self) -> bool:
        """Whether no clause is open, or nothing more can be done about those that are."""
        state = self._state
        if not state.unknown(self.number):
            return True
        tree = self._tree
        return self._ready and (tree is None or not (tree.open or tree.leaves))

    def roots(self) -> None:
        """Bounds, and one root per clause that these leave."""
        state, number = self._state, self.number
        lower, upper = state.box(number)
        centre = (lower + upper) / 2
        reach = float(np.maximum(centre - lower, upper - centre).max(initial=0.0))
        began = time.perf_counter()
        with state.stage("bounds"):
            label = self._least.classes - 1
            self._local = LocalModel.on_box(
                self._least, centre, label, lower, upper, reach, state.options, self._options.dense, self._options.device
            )
        self._bounding = time.perf_counter() - began
        self._close = reach * _BEYOND if reach > 0 else 1.0
        self._keep(self._local)
        self.promise = float(self._local.margins[:-1].max())
        self._open = self._left(self._local)

    def _keep(self, local: LocalModel) -> None:
        """Marks the clauses that bounds exclude."""
        for k in self._state.unknown(self.number):
            if k not in local.open:
                self._state.prove(self.number, k)

    def _left(self, local: LocalModel) -> dict[int, float]:
        """Clauses that one root each does not settle, and the distance of its line from the centre."""
        state, options = self._state, self._options
        with state.stage("tree"):
            plain = replace(local, tight=False)
            models = [m for m in (plain.target(k) for k in state.unknown(self.number)) if m is not None]
            if not models:
                return {}
            frame = Frame.of(models, whole=True, device=options.device)
            bounder = Bounder(frame)
            found = bounder.bound(bounder.roots(), options.root_steps, self._close, options.rate)
            state.nodes += len(models)
            left = {}
            for m, radius in zip(models, found.nodes.radius.tolist(), strict=True):
                if radius >= self._close:
                    state.prove(self.number, m.target)
                else:
                    left[m.target] = radius
            self._try(found.point, frame)
            return left

    def attack(self, plan: AttackPlan, late: Callable[[], bool]) -> None:
        """Searches for a counterexample of the open clauses."""
        state = self._state
        members = tuple(self._rows.clauses[k] for k in state.unknown(self.number))
        if not members or not state.running():
            return
        with state.stage("attack"):
            found = ascend(self._network, members, state.judges[self.number], plan, late=late)
        if found is not None:
            state.accept(self.number, found)

    def run(self, seconds: float) -> None:
        """Goes on for at most about that long, or until a counterexample is confirmed."""
        until = time.perf_counter() + min(seconds, self._state.remaining)
        if not self._ready:
            self._prepare(until)
        if self._tree is not None and self._state.running():
            with self._state.stage("tree"):
                self._go(until)

    def _prepare(self, until: float) -> None:
        """Better slopes for what roots leave open, then intervals that are cut by each clause, and the tree."""
        state, options, local = self._state, self._options, self._local
        assert local is not None
        if state.remaining > max(_PATIENT, _DEARER * self._bounding) and local.unstable > options.narrow:
            state.tell("better slopes for the bounds of the box")
            with state.stage("bounds"):
                local = local.bounded("alpha-crown", options.slopes)
            self._keep(local)
            self._open = self._left(local)
        models = []
        for k, reached in self._open.items():
            if state.marks[self.number][k] != "unknown" or not state.running():
                continue
            tight = local.tight and reached > _CUTS * self._close
            state.tell(f"clause {k + 1}: tightening the bounds")
            with state.stage("tighten"):
                model = replace(local, tight=tight).target(k, options.tighten, partial(_past, until))
            if model is None:
                state.prove(self.number, k)
            else:
                models.append(model)
        self._ready = True
        self._models = models
        if models:
            frame = Frame.of(models, whole=True, device=options.device)
            self._tree = Tree(frame, options, self._close)
            self._able = all("milp" not in op.unsupported for op in frame.network.ops)
            self._given = [0.0] * len(models)

    def _go(self, until: float) -> None:
        state, tree = self._state, self._tree
        assert tree is not None
        look = partial(self._try, frame=tree.frame)
        try:
            if tree.visited == 0:
                look(tree.start())
            while (tree.open or tree.leaves) and state.running() and time.perf_counter() < until:
                began = time.perf_counter()
                row = self._stubborn(tree)
                if row is not None:
                    self._program(tree, row, until)
                    continue
                if tree.leaves:
                    self._leaf(tree, until)
                else:
                    tree.step(look, until)
                self._grown += time.perf_counter() - began
                self._tell(tree)
        finally:
            state.nodes += tree.visited - self._counted
            self._counted = tree.visited
            lowers = tree.lowers()
            for k in state.unknown(self.number):
                if lowers.get(k, 0.0) >= self._close:
                    state.prove(self.number, k)

    def _tell(self, tree: Tree) -> None:
        now = time.perf_counter()
        if now - self._told > _TELL:
            self._told = now
            left = len(self._state.unknown(self.number))
            self._state.tell(f"{left} clauses are open, {len(tree)} nodes, the widest at {tree.lower / self._close:.3f} of the box")

    def _try(self, offsets: Tensor, frame: Frame) -> None:
        """Tries the points at which bounds are attained, and searches on from the best of them."""
        state = self._state
        if not state.running():
            return
        x = (frame.x0 + offsets).reshape(-1, *frame.network.input_shape)
        with torch.no_grad():
            least = frame.network.forward(x)[:, :-1]
        least[:, [k for k, mark in enumerate(state.marks[self.number]) if mark == "proved"]] = -math.inf
        value, clause = least.max(1)
        best = int(value.argmax())
        point, members = x[best].cpu().numpy(), self._rows.clauses[int(clause[best])]
        self._looks += 1
        if float(value[best]) >= 0 and state.replay(self.number, point):
            return
        # the first points come from the widest bounds and change most
        if self._looks % _ASCEND_EVERY == 0 or self._looks in (1, 2, 4, 8):
            state.search_round(self.number, self._network, members, point, replace(_STARTS, device=self._options.device))

    def _stubborn(self, tree: Tree) -> int | None:
        """The clause whose program may go on now: the one that had least, the hardest first; programs get half of the time."""
        if not self._able or not self._options.leaf or not tree.open or self._programs > self._grown:
            return None
        first = tree.first
        near = first is not None and tree.lower >= _STUCK * tree.close and self._models[first.target].binaries <= self._options.leaf
        if self._grown < (_FIRST_PROGRAM if near else _FAR * _FIRST_PROGRAM):
            return None
        open_ = {k for k, radius in tree.lowers().items() if radius < tree.close}
        rows = [r for r, m in enumerate(self._models) if m.target in open_ and m.binaries <= _LARGEST]
        row = min(rows, key=lambda r: (self._given[r], -self._models[r].binaries), default=None)
        # a run that is not longer than the last one would end where that did
        return row if row is not None and self._slice() > 2 * self._given[row] else None

    def _slice(self) -> float:
        return max(_PROGRAM, self._grown - self._programs)

    def _program(self, tree: Tree, row: int, until: float) -> None:
        """The program of a whole clause, for as long as the tree has taken since the last one and a little more."""
        began = time.perf_counter()
        model = self._folded(row, until)
        self._given[row] = min(self._slice(), until - began)
        if model is None or self._solve(model, self._given[row]):
            tree.raise_target(row, math.inf)
        self._programs += time.perf_counter() - began

    def _folded(self, row: int, until: float) -> TargetModel | None:
        """The programs of a clause on the folded network, which a solver takes half as long for; None: bounds refute the clause."""
        if row not in self._compact:
            state, model = self._state, self._models[row]
            local = model.local
            found: TargetModel | None = model
            if state.options.fold != "never" and local.network is self._least:
                try:
                    with state.stage("bounds"):
                        local = local.folded(state.options.bounds_method)
                except UnsupportedOperatorError:
                    if state.options.fold == "always":
                        raise
                else:
                    with state.stage("tighten"):
                        found = local.target(model.target, self._options.tighten, partial(_past, until))
            self._compact[row] = found
        return self._compact[row]

    def _leaf(self, tree: Tree, until: float) -> None:
        """The program of a node with nothing left to split."""
        node = tree.leaves[-1]  # it stays there until it is known what becomes of it
        done = self._able and self._solve(node_model(tree.frame, self._models[node.target], node), until - time.perf_counter())
        if done or time.perf_counter() < until:
            tree.leaves.pop()
        if not done and node not in tree.leaves:
            tree.given_up.append(node)

    def _solve(self, model: TargetModel, limit: float) -> bool:
        """Whether a program proves that its clause is not satisfied; a point that it finds is replayed."""
        state = self._state
        with state.stage("build"):
            problem = model.decision()
        scale = 1.0 + max(abs(float(model.local.margins[model.target])), abs(float(model.local.lowest[model.target])))
        solution = state.solve(problem, scale, max(min(limit, state.remaining), 0.05))
        if solution.x is not None and not solution.status.proves_empty:
            state.confirm(self.number, self._network, self._rows.clauses[model.target], model.point(solution.x))
        return solution.status.proves_empty


def _past(until: float) -> bool:
    return time.perf_counter() > until
