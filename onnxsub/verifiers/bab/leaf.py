"""Nodes that are closed exactly, by a program over what is left of them: linear where every unit is decided."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.nodes import Waiting
from onnxsub.verifiers.milp.distance import decision_options
from onnxsub.verifiers.milp.local import ROOM, TargetModel
from onnxsub.verifiers.milp.search import OUTWARD, Search
from onnxsub.verifiers.milp.solvers import SolverOptions, SolverStatus
from onnxsub.verifiers.milp.tighten import no_sliver
from onnxsub.verifiers.result import Witness

__all__ = ["Closer", "node_model", "region_model"]


class Closer:
    """Solves the programs of nodes.

    Attributes:
        able: whether every operator has MILP rows.
        seconds: spent so far.
    """

    def __init__(self, search: Search, frame: Frame, models: list[TargetModel]) -> None:
        self._search = search
        self._frame = frame
        self._models = models
        self.able = all("milp" not in op.unsupported for op in frame.network.ops)
        self.seconds = 0.0

    def open_units(self, node: Waiting) -> int:
        """Units of the node that are not stable."""
        count = 0
        for op, (lower, upper) in zip(self._frame.activations, _node_ends(self._frame, node).values(), strict=True):
            shape = op.in_shapes[0]
            count += int((~op.affine_on(torch.as_tensor(lower).reshape(shape), torch.as_tensor(upper).reshape(shape))).sum())
        return count

    def close(self, node: Waiting, radius: float, until: float) -> float:
        """A proved distance bound of the node, infinite where nothing of interest lies within `radius`; points found are kept."""
        return max(node.radius, self._solve(node_model(self._frame, self._models[node.target], node), radius, until))

    def close_target(self, row: int, radius: float, until: float) -> float:
        """The same for all of a target, `row` its number in the frame."""
        return self._solve(self._models[row], radius, until)

    def nearest(self, witness: Witness) -> None:
        """The nearest point with the pieces that a witness has: a linear program, whose solution is tried."""
        search, frame = self._search, self._frame
        if witness.label not in frame.targets:
            return
        row = frame.targets.index(witness.label)
        region = region_model(frame, self._models[row], witness.x)
        if region is None:
            return  # the point lies outside of what is proved of points of interest: rounding
        began = time.perf_counter()
        with search.stage("build"):
            problem = region.minimum()
        solution = search.solve(problem, SolverOptions(), share=0.5)
        if solution.x is not None:
            search.accept(self._models[row].point(solution.x))
        self.seconds += time.perf_counter() - began

    def _solve(self, model: TargetModel, radius: float, until: float) -> float:
        """First whether anything lies within the radius, which is the cheaper question; if so, the nearest point."""
        search = self._search
        began = time.perf_counter()
        bound = 0.0
        inner = self._within(model, radius)
        with search.stage("build"):
            problem = inner.decision()
        solution = search.solve(problem, decision_options(inner.local), limit=max(until - began, 0.05))
        if solution.status.proves_empty:
            bound = math.inf
        elif solution.x is not None:
            search.accept(inner.point(solution.x))
            with search.stage("build"):
                problem = model.minimum()
            limit = max(until - time.perf_counter(), 0.05)
            solution = search.solve(problem, SolverOptions(abs_gap=search.options.tol / 8), limit=limit)
            if solution.status.proves_empty:
                bound = math.inf
            elif solution.status is not SolverStatus.UNBOUNDED and solution.bound > 0:
                bound = solution.bound - OUTWARD * self._frame.radius
            if solution.x is not None:
                witness = search.accept(model.point(solution.x))
                if not witness.confirmed:
                    self._strict(model, witness.radius, until)
        self.seconds += time.perf_counter() - began
        return bound

    def _strict(self, model: TargetModel, radius: float, until: float) -> None:
        """Looks for a point with the largest margin a hair beyond the nearest one, which no replay can tell from the boundary."""
        search = self._search
        inner = self._within(model, radius + search.options.tol / 2)
        with search.stage("build"):
            problem = inner.decision()
        limit = max(until - time.perf_counter(), 0.05)
        solution = search.solve(problem, SolverOptions(abs_gap=1e-9), limit=limit)
        if solution.x is not None:
            search.accept(inner.point(solution.x))

    def _within(self, model: TargetModel, radius: float) -> TargetModel:
        """The programs on a smaller ball (and a little more, as every ball that something is claimed for)."""
        x0, r = model.local.x0, radius * (1 + ROOM)
        lower, upper = np.maximum(model.lower, x0 - r), np.minimum(model.upper, x0 + r)
        return replace(model, lower=lower, upper=np.maximum(lower, upper))


def _node_ends(frame: Frame, node: Waiting) -> dict[str, tuple[Array, Array]]:
    """Intervals of the node, float64."""
    found, at = {}, 0
    for op in frame.activations:
        size = int(np.prod(op.in_shapes[0]))
        lower, upper = (node.ends[k, at : at + size].astype(np.float64) for k in (0, 1))
        # the stored ends are rounded outward; the frame's are not
        whole = (ends[op.output][node.target].reshape(-1).cpu().numpy() for ends in (frame.lower, frame.upper))
        lower, upper = np.maximum(lower, next(whole)), np.minimum(upper, next(whole))
        found[op.output] = lower, np.maximum(lower, upper)
        at += size
    return found


def node_model(frame: Frame, model: TargetModel, node: Waiting) -> TargetModel:
    """The programs of a node: those of its target, `model`, with the node's box, intervals and splits."""
    shape = frame.network.input_shape
    x0 = frame.x0.cpu().numpy()
    low, high = (node.box[k].astype(np.float64) + x0 for k in (0, 1))
    low, high = np.maximum(low, model.lower.reshape(-1)), np.minimum(high, model.upper.reshape(-1))
    return _restricted(
        frame, replace(model, lower=low.reshape(shape), upper=np.maximum(low, high).reshape(shape)), _node_ends(frame, node)
    )


def region_model(frame: Frame, model: TargetModel, point: Array) -> TargetModel | None:
    """The programs of the linear region that a point lies in, linear themselves; None: it lies outside of the frame's intervals."""
    row = frame.targets.index(model.target)
    x = torch.as_tensor(np.asarray(point, dtype=np.float64)).reshape(1, *frame.network.input_shape)
    with torch.no_grad():
        values = frame.network.preactivations(x)
    ends = {}
    for op, z in zip(frame.activations, values, strict=True):
        lower, upper = (e[op.output][row : row + 1].clone().cpu() for e in (frame.lower, frame.upper))
        for kink in op.kinks(z):
            lower = torch.where(z >= kink, torch.maximum(lower, kink), lower)
            upper = torch.where(z < kink, torch.minimum(upper, kink), upper)
        if bool((lower > upper).any()):
            return None
        ends[op.output] = lower.reshape(-1).numpy(), upper.reshape(-1).numpy()
    return _restricted(frame, model, ends)


def _no_sliver(ends: tuple[Array, Array], before: tuple[Array, Array]) -> tuple[Array, Array]:
    lower, upper = no_sliver(*((torch.as_tensor(np.array(a)), torch.as_tensor(np.array(b))) for a, b in (ends, before)))
    return lower.numpy(), upper.numpy()


def _restricted(frame: Frame, model: TargetModel, ends: dict[str, tuple[Array, Array]]) -> TargetModel:
    """A model with narrower intervals, as rows where they decide a unit that the ball leaves open."""
    enforced = {}
    ends = {name: _no_sliver(new, model.intervals[name]) for name, new in ends.items()}
    for op in frame.activations:
        lower, upper = (torch.as_tensor(e).reshape(op.in_shapes[0]) for e in ends[op.output])
        on_ball = op.affine_on(*(e[0] for e in model.local.bounds.pre[op.output]))
        enforced[op.output] = torch.nonzero((op.affine_on(lower, upper) & ~on_ball).flatten())[:, 0].numpy()
    return replace(model, intervals=dict(model.intervals) | ends, enforced=enforced)
