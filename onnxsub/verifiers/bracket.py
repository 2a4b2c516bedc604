"""One anchor's distance in the making: what is proved of each target, and the nearest confirmed point."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.passes.attack.tangent import tangent_steps
from onnxsub.passes.certify import certified_radius
from onnxsub.passes.rescale import rescaled
from onnxsub.query import worst_margin
from onnxsub.verifiers.box.by_programs import LP_SHARE
from onnxsub.verifiers.box.clause import ROOM, ClauseModel
from onnxsub.verifiers.box.halfspaces import GAIN, MOST_UNITS
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows, margins_of
from onnxsub.verifiers.few_units import folded_once
from onnxsub.verifiers.proof import Claims
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import DistanceResult, Progress, TargetResult
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness, grid_step, points_within, rounding

__all__ = ["OUTWARD", "Bracket", "in_margin_units"]

_BEYOND = np.geomspace(1.02, 8.0, 60)  # how far past a point another class is looked for, as shares of its offset
_TANGENTS = 8  # steps from there to a nearer point, which will be improved anyway
_QUICK: dict[str, Any] = {"steps": 15, "restarts": 8, "rounds": 1}  # of an attack whose point will be improved anyway

OUTWARD = 1e-7
"""A solver's dual bound is lowered by this share of the radius: a hundred times its tolerance, which is relative to it."""


def in_margin_units(network: Network, x0: Array, label: int, target: int | None = None) -> Network:
    """The network with its hidden layers on one scale and its logits in units of the margin at the anchor, all by powers of two.

    The same classes, the same boundary; tolerances of rows and solvers, which are absolute, mean the same for all networks.
    """
    return rescaled(network, x0, lambda f: max(abs(float(worst_margin(f, label, target)[0][0])), 1e-3 * float(np.abs(f).max())))


class Bracket:
    """One anchor's question. `claims.lowers[t] <= d_t` and `d_bnd <= upper` hold at every moment.

    Attributes:
        instance: the question as it was asked.
        network: f in units of the margin at the anchor; rows: its margins.
        folded: few units of it are not affine, and it is folded.
        tol: the gap at which the bracket is exact.
        enough: a point as near as this ends the search. certified: whether plain bounds have had their say.
    """

    def __init__(self, instance: Instance, session: Session, progress: Progress | None = None) -> None:
        self.instance = instance
        self.session = session
        self.budget = session.budget
        plain = self.network = in_margin_units(instance.network, instance.x0, instance.label, instance.target)
        if session.milp.fold != "never":
            with contextlib.suppress(OutOfTime):  # then the network as it is serves to judge points
                self.network = folded_once(self.network, self.budget)
        self.folded = self.network is not plain
        self.rows = Rows(margins_of(self.network, instance.label), instance.label, {t: (t,) for t in instance.targets})
        self.referee = Referee(replace(instance.judged, network=self.network))
        rounded = partial(rounding, x0=instance.x0, space=instance.space)
        self.claims: Claims[int] = Claims(instance.targets, self.referee.over_reals, rounded, session.limits.tol)
        self.reach, self.tol = instance.reach, session.limits.tol
        self.enough, self.certified = -math.inf, False
        self._progress = progress

    def _room(self, witness: Witness) -> float:
        """How far the boundary over the real numbers may lie from a point that stands for it."""
        return max(self.tol, rounding(witness, self.x0, self.instance.space))

    @property
    def x0(self) -> Array:
        return self.instance.x0

    @property
    def label(self) -> int:
        return self.instance.label

    @property
    def best(self) -> Witness | None:
        return self.claims.best

    @property
    def upper(self) -> float:
        return self.claims.upper

    @property
    def lower(self) -> float:
        return min(self.claims.lower, self.upper)

    @property
    def finest(self) -> float:
        """The gap below which float32 has no point: a witness is float32, so nothing nearer to it can be told apart."""
        return 0.0 if self.best is None else 2 * grid_step(self.best.x, self.x0, self.instance.space)

    @property
    def running(self) -> bool:
        return self.claims.diverged is None and self.budget.running

    @property
    def settled(self) -> bool:
        """Whether the two ends are as near as was asked for, or as float32 allows."""
        return self.upper - self.lower <= self.gap

    @property
    def gap(self) -> float:
        """How near the two ends are brought: the tolerance, or what float32 allows."""
        return max(self.tol, self.finest)

    def tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def at_anchor(self) -> DistanceResult | None:
        """The answer where the anchor itself is not of its class; None: it is."""
        found = self.referee.judge(self.x0[None])[0]
        if not found.margin >= 0:
            return None
        self.claims.reach(found.label, replace(found, radius=0.0), 0.0)
        result = self.result()
        return replace(result, status="misclassified") if found.margin > 0 else result

    def certify(self) -> None:
        """A first lower end from bounds alone, once."""
        if self.certified:
            return
        self.certified = True
        of, top = self.instance, min(self.upper, self.reach)
        with self.budget.stage("bounds"):
            radius = certified_radius(self.network, of.ball, self.label, top, tol=0.05, target=of.target, budget=self.budget)
        for t in self.claims.lowers:
            self.claims.prove(t, radius)
        self.tell("bounds")

    def find_start(self, start: Array | None, *, quick: bool = False) -> None:
        """A first upper end: the given point, else a short attack.

        Args:
            quick: any point that is not far off will do; a small attack is tried first.
        """
        with self.budget.stage("attack"):
            if start is not None:
                self.accept(np.asarray(start))
            if start is not None and quick and self.best is None and self.running:
                self._go_beyond(np.asarray(start, dtype=np.float64))
            if self.best is not None or not (self.session.milp.attack and self.running):
                return
            limits, part = self.session.limits, self.budget.part(self.budget.remaining / 3)
            whole = AttackOptions(seed=limits.seed, threads=limits.threads)
            of, anchor = self.instance, self.x0.astype(np.float32)
            for options in (replace(whole, **_QUICK), whole) if quick else (whole,):
                found = attack_network(
                    self.network, anchor, of.label, of.space, options, self.referee.margins, target=of.target, budget=part
                )
                if found.x_adv is not None:
                    self.accept(found.x_adv)
                if math.isfinite(self.upper):
                    break
        self.tell("attack")

    def _go_beyond(self, x: Array) -> None:
        """Goes on past a point that is not adversarial here, and steps from the first point behind it that is to nearer ones."""
        box = self.instance.ball(self.reach)
        line = np.stack([np.clip(self.x0 + s * (x - self.x0), *box) for s in _BEYOND])
        with torch.no_grad():
            margins, _ = worst_margin(self.network.forward(torch.as_tensor(line)).numpy(), self.label, self.instance.target)
        found = np.flatnonzero(margins > 0)
        if len(found) == 0:
            return
        of, first = self.instance, line[int(found[0])]
        near = tangent_steps(self.network, self.x0, of.label, of.space, first, _TANGENTS, budget=self.budget, target=of.target)
        if near is not None:
            self.accept(near)

    def accept(self, x: Array) -> Witness:
        """Has a point confirmed, as it is or pushed a little; the best point so far is kept."""
        witness = self.referee.settle(x, tol=self.tol / 4)
        self.claims.reach(witness.label, witness, witness.radius)
        return witness

    def local(self, radius: float, *, branching: bool = False, budget: Budget | None = None) -> BoxModel:
        """The margins over `B(radius)`; targets that bounds exclude there are noted.

        Args:
            branching: for branch and bound (`Building.of`). budget: for the bounds, a share of the bracket's; default: all of it.
        """
        box = Box(self.x0, *self.instance.ball(radius * (1 + ROOM)), radius)
        with self.budget.stage("bounds"):
            how = Building.of(self.session.options, self.budget, branching=branching)
            model = replace(BoxModel.over(self.rows, box, replace(how, budget=budget or self.budget)), how=how)
        self.keep(model, radius)
        return model

    def keep(self, model: BoxModel, radius: float) -> None:
        """Notes the targets that bounds exclude within a radius."""
        open_ = set(model.open)
        for t in self.claims.lowers:
            if t not in open_:
                self.claims.prove(t, radius, by_bounds=True)

    def target(self, local: BoxModel, target: int, most: int = MOST_UNITS, gain: float = GAIN) -> ClauseModel | None:
        """The programs of one target on a ball; None when bounds exclude it, which is noted."""
        with self.budget.stage("tighten"):
            model = local.clause(target, most, gain)
            if model is not None and self.session.milp.tighten == "lp" and local.how.tight and model.binaries <= most:
                part = self.budget.part(LP_SHARE * self.budget.remaining)
                model = model.tightened(part)
        if model is None:
            self.claims.prove(target, local.box.radius, by_bounds=True)
        return model

    def replay_inside(self) -> None:
        """Replays points that the proof says are not there: float32 execution may differ from the network over the real numbers.

        This takes a fraction of a second, and is done also where the proof used up the time or the nodes.
        """
        radius = min(self.lower, self.reach)
        if not radius > 0 or self.claims.diverged is not None or not (self.settled or self.claims.lower >= self.reach):
            return
        with self.budget.stage("replay"):
            for witness in self.referee.judge(points_within(self.instance, radius, self.session.limits.seed)):
                if witness.margin >= 0:
                    self.claims.reach(witness.label, witness, witness.radius)

    def _by_float32(self, closed: bool) -> bool:
        """Whether the best point is one by float32 alone. Where it would be told as the distance, the boundary over the real
        numbers has to lie there, or as near as the two ends may be apart."""
        best = self.best
        if best is None or self.referee.float32_only(best):
            return best is not None
        return closed and not self.referee.on_boundary(best, self._room(best))

    @property
    def _short(self) -> bool:
        """Whether the best point is short of the boundary over the real numbers by more than the tolerance."""
        return self.best is not None and self._room(self.best) > self.tol and not self.referee.on_boundary(self.best, self.tol)

    def result(self, verifier: str = "milp", claimed: Mapping[int, float] | None = None) -> DistanceResult:
        """The bracket as it stands.

        Args:
            claimed: lower ends of the targets in place of what is proved here.
        """
        claims, upper, reason = self.claims, self.upper, None
        lowers = claims.lowers if claimed is None else claimed
        lower = min(min(lowers.values(), default=math.inf), upper)
        if claims.diverged is None and self._by_float32(claimed is None and upper - lower <= self.tol):
            claims.diverged = claims.best
        if claims.diverged is not None:
            # the bracket is about the file as it runs, of which nothing is proved
            status, lower = "bracket", 0.0
            reason = f"there no other class lies within {claims.lower:.6g} (proved), onnxruntime has one at {upper:.6g}"
            reason = f"float32 execution differs from the network over the real numbers: {reason}"
        elif upper - lower <= self.tol and not (claimed is None and self._short):
            status = "exact"
        elif math.isinf(upper) and lower >= self.reach:
            status, lower = "none", math.inf
        else:
            status, reason = "bracket", self._why(lower, upper)
        return DistanceResult(
            status, lower, upper, claims.best or claims.rejected, verifier, self.session.solver.name,
            self._targets(status, lowers, lower), self.budget.nodes, self.session.runs, self.budget.stop.is_set(),
            self.budget.times, self.session.options.to_json(verifier), reason=reason,
        )  # fmt: skip

    def _why(self, lower: float, upper: float) -> str:
        """Why a bracket stayed open."""
        if upper - lower <= self.tol:
            return f"float32 execution reaches the boundary before the real numbers do, by more than --tol {self.tol:g}"
        if upper - lower <= self.finest:
            return f"float32 numbers lie {self.finest / 2:.3g} apart there, so --tol {self.tol:g} cannot be met"
        return self.budget.why if self.budget.over else self.session.trouble or "neither bounds nor programs close what is left"

    def _targets(self, status: str, lowers: Mapping[int, float], lower: float) -> dict[int, TargetResult]:
        claims, found, top = self.claims, {}, min(self.upper, self.reach) - self.tol
        for t in lowers:
            low = math.inf if status == "none" else min(lowers[t], claims.uppers[t])
            low = min(low, lower) if claims.diverged is not None else low
            if claims.uppers[t] - low <= self.tol:
                word = "exact"
            elif t in claims.excluded and low >= top:
                word = "excluded"
            else:
                word = "cutoff" if low >= top else "bracket"
            found[t] = TargetResult(low, claims.uppers[t], word)
        return found
