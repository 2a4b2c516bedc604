"""The state of one search: what is proved of each target, the best confirmed point, the clock, and the solver."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.passes.attack.tangent import tangent_steps
from onnxsub.passes.certify import certified_radius
from onnxsub.passes.fold import fold
from onnxsub.query import worst_margin
from onnxsub.region import InputSpace
from onnxsub.verifiers.milp.local import LocalModel, TargetModel
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.solvers import Problem, Solution, SolverOptions, get_solver
from onnxsub.verifiers.milp.tighten import GAIN, MOST_UNITS
from onnxsub.verifiers.milp.tighten_lp import LP_SHARE
from onnxsub.verifiers.referee import Referee, Replay
from onnxsub.verifiers.result import DistanceResult, Progress, TargetResult, Witness

__all__ = ["OUTWARD", "Search"]

_MOSTLY_AFFINE = 4  # a network with fewer than one unit in four left is folded once and for all

_BEYOND = np.geomspace(1.02, 8.0, 60)  # how far past a point another class is looked for, as shares of its offset
_TANGENTS = 8  # steps from there to a nearer point, which will be improved anyway
_QUICK: dict[str, Any] = {"steps": 15, "restarts": 8, "rounds": 1}  # of an attack whose point will be improved anyway

OUTWARD = 1e-7
"""A solver's dual bound is lowered by this share of the radius: a hundred times its tolerance, which is relative to it."""


def normalised(network: Network, x0: Array, label: int) -> Network:
    """The network with its logits divided by the size of the margin at the anchor: the same classes, the same boundary.

    Tolerances of rows and solvers are absolute; so they mean the same for logits of 1e-6 and of 1e6.
    """
    with torch.no_grad():
        logits = network.forward(torch.as_tensor(x0).unsqueeze(0)).numpy()
    margin = abs(float(worst_margin(logits, label)[0][0]))
    size = max(margin, 1e-3 * float(np.abs(logits).max()))
    if not (np.isfinite(size) and size > 0):
        return network
    shape = network.output_shape
    factor = np.full(shape, 1.0 / min(max(size, 1e-12), 1e12))
    last = Scale(
        op_type="Normalise", node="logits / margin", inputs=(network.output,), output=f"{network.output}:normalised",
        in_shapes=(shape,), out_shape=shape, scale=factor,
    )  # fmt: skip
    return network.then((last,))


class Search:
    """One anchor's question. `lowers[t] <= d_t` and, with `best`, `d_bnd <= best.radius` hold at every moment.

    Attributes:
        limit: points farther than this do not count.
        enough: a point as near as this ends the search.
    """

    def __init__(
        self,
        network: Network,
        x0: Array,
        label: int,
        space: InputSpace,
        options: MilpOptions,
        replay: Replay | None,
        progress: Progress | None,
    ) -> None:
        self.began = time.perf_counter()
        self.x0 = np.asarray(x0, dtype=np.float64)
        network = normalised(network, self.x0, label)
        self.network = _folded(network) if options.fold != "never" else network
        self.label = label
        self.space = space
        # a witness is float32: nothing nearer to the proved end than two steps of it can be told apart
        step = 2 * float(np.spacing(np.float32(max(abs(space.lower), abs(space.upper)))))
        self.options = replace(options, tol=max(options.tol, step))
        self.solver = get_solver(options.solver)
        self.referee = Referee(self.network, self.x0, label, space, replay)
        self.reach = space.reach(self.x0)
        self.stop = threading.Event()
        self.lowers = {t: 0.0 for t in range(network.classes) if t != label}
        self.uppers = dict.fromkeys(self.lowers, math.inf)
        self.excluded: set[int] = set()
        self.best: Witness | None = None
        self.rejected: Witness | None = None
        self.limit = math.inf
        self.enough = -math.inf
        self.nodes = 0
        self.runs = 0
        self.times: dict[str, float] = {}
        self._progress = progress

    @property
    def upper(self) -> float:
        return self.best.radius if self.best is not None else math.inf

    @property
    def lower(self) -> float:
        return min(min(self.lowers.values(), default=math.inf), self.upper)

    @property
    def remaining(self) -> float:
        """Seconds left."""
        if self.options.timeout is None:
            return math.inf
        return self.options.timeout - (time.perf_counter() - self.began)

    @property
    def running(self) -> bool:
        return not self.stop.is_set() and self.remaining > 0

    @property
    def settled(self) -> bool:
        return self.upper - self.lower <= self.options.tol

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books the seconds of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def prove(self, target: int, radius: float, *, by_bounds: bool = False) -> None:
        """Notes `d_target >= radius`."""
        if by_bounds and self.lowers[target] < radius:
            self.excluded.add(target)
        elif not by_bounds:
            self.excluded.discard(target)
        self.lowers[target] = max(self.lowers[target], radius)

    def certify(self) -> None:
        """A first lower end from bounds alone."""
        with self.stage("bounds"):
            radius = certified_radius(
                self.network, lambda r: self.space.ball(self.x0, r), self.label, min(self.upper, self.reach),
                tol=0.05, stop=lambda: not self.running,
            )  # fmt: skip
        for t in self.lowers:
            self.lowers[t] = max(self.lowers[t], radius)
        self.tell("bounds")

    def find_start(self, start: Array | None, *, quick: bool = False) -> None:
        """A first upper end: the given point, else a short attack.

        Args:
            quick: any point that is not far off will do; a small attack is tried first.
        """
        with self.stage("attack"):
            if start is not None:
                self.accept(np.asarray(start))
            if start is not None and quick and self.best is None and self.running:
                self._go_beyond(np.asarray(start, dtype=np.float64))
            if self.best is not None or not self.options.attack or not self.running:
                return
            limit = None if math.isinf(self.remaining) else max(self.remaining / 3, 1e-3)
            whole = AttackOptions(seed=self.options.seed, timeout=limit, threads=self.options.threads)
            for options in (replace(whole, **_QUICK), whole) if quick else (whole,):
                anchor = self.x0.astype(np.float32)
                found = attack_network(self.network, anchor, self.label, self.space, options, self.referee.margins)
                if found.x_adv is not None:
                    self.accept(found.x_adv)
                if math.isfinite(self.upper):
                    break
        self.tell("attack")

    def _go_beyond(self, x: Array) -> None:
        """Goes on past a point that is not adversarial here, and steps from the first point behind it that is to nearer ones."""
        box = self.space.ball(self.x0, self.reach)
        line = np.stack([np.clip(self.x0 + s * (x - self.x0), *box) for s in _BEYOND])
        with torch.no_grad():
            margins, _ = worst_margin(self.network.forward(torch.as_tensor(line)).numpy(), self.label)
        found = np.flatnonzero(margins > 0)
        if len(found) == 0:
            return
        near = tangent_steps(self.network, self.x0, self.label, self.space, line[int(found[0])], _TANGENTS)
        if near is not None:
            self.accept(near)

    def accept(self, x: Array, limit: float = math.inf) -> Witness:
        """Has a point confirmed, as it is or pushed a little; the best point so far is kept."""
        witness = self.referee.settle(x, tol=self.options.tol / 4, limit=min(limit, self.limit))
        if not witness.confirmed:
            if self.rejected is None or witness.radius < self.rejected.radius:
                self.rejected = witness
            return witness
        self.uppers[witness.label] = min(self.uppers[witness.label], witness.radius)
        if witness.radius < self.upper:
            self.best = witness
        return witness

    def local(self, radius: float, dense: float = math.inf, device: str = "cpu") -> LocalModel:
        """The network over `B(radius)`; targets that bounds exclude there are noted.

        Args:
            dense: coefficients that the folded form may have.
            device: where bounds are computed.
        """
        with self.stage("bounds"):
            model = LocalModel.over(self.network, self.x0, self.label, self.space, radius, self.options, dense, device)
        for t in self.lowers:
            if t not in model.open:
                self.prove(t, radius, by_bounds=True)
        return model

    def target(self, local: LocalModel, target: int, most: int = MOST_UNITS, gain: float = GAIN) -> TargetModel | None:
        """The programs of one target on a ball; None when bounds exclude it, which is noted."""
        with self.stage("tighten"):
            model = local.target(target, most, lambda: not self.running, gain)
            if model is not None and self.options.tighten == "lp" and local.tight and model.binaries <= most:
                until = time.perf_counter() + LP_SHARE * self.remaining
                model = model.tightened(lambda: not self.running or time.perf_counter() > until)
        if model is None:
            self.prove(target, local.radius, by_bounds=True)
        return model

    def solve(self, problem: Problem, options: SolverOptions, share: float = 1.0, limit: float | None = None) -> Solution:
        """One solver run within `share` of the remaining time, and within `limit` seconds."""
        if math.isfinite(self.remaining):
            limit = max(min(share * self.remaining, math.inf if limit is None else limit), 1e-3)
        options = replace(
            options,
            time_limit=limit,
            threads=self.options.threads,
            seed=self.options.seed,
            feasibility=self.options.feasibility,
            integrality=self.options.integrality,
        )
        with self.stage("solve"):
            solution = self.solver.solve(problem, options, self.stop)
        self.nodes += solution.nodes
        self.runs += 1
        return solution

    def result(self) -> DistanceResult:
        """The bracket as it stands."""
        tol = self.options.tol
        lower, upper = self.lower, self.upper
        if upper - lower <= tol:
            status = "exact"
        elif math.isinf(upper) and lower >= self.reach:
            status, lower = "none", math.inf
        else:
            status = "bracket"
        targets = {}
        for t in self.lowers:
            low = math.inf if status == "none" else min(self.lowers[t], self.uppers[t])
            if self.uppers[t] - low <= tol:
                word = "exact"
            elif t in self.excluded and low >= min(upper, self.reach) - tol:
                word = "excluded"
            elif low >= min(upper, self.reach) - tol:
                word = "cutoff"
            else:
                word = "bracket"
            targets[t] = TargetResult(low, self.uppers[t], word)
        times = {**self.times, "total": time.perf_counter() - self.began}
        return DistanceResult(
            status, lower, upper, self.best or self.rejected, "milp", self.solver.name, targets, self.nodes, self.runs,
            self.stop.is_set(), times, self.options.to_json(),
        )  # fmt: skip


def _folded(network: Network) -> Network:
    """The folded form of a substitute with few units left: everything after it costs a fraction."""
    kept = sum(int(op.kept.sum()) if isinstance(op, Substituted) else op.out_size for op in network.activations)
    return fold(network) if kept * _MOSTLY_AFFINE < network.units else network
