r"""Cuts over pairs of Relus: two units together can do less than each of them alone.

The lines of two unstable units treat their pre-activations `(z_i, z_j)` as a box, though both are functions of the same inputs.
Linear bounds of `p + q` and `p - q` in both directions, with `p = w_i z_i` and `q = w_j z_j`, make the box an octagon P, on which

    w_i y_i + w_j y_j = phi(p, q) = max(0, p) + max(0, q)  <=  m . (p, q) + d,    d = max over the corners v of P of phi(v) - m . v,

for every m, since phi is convex. (Joint relaxations of several units: Singh et al. 2019, kPoly; Mueller et al. 2022, PRIMA. Cuts in
a backward pass, with a multiplier each: Zhang et al. 2022, GCP-CROWN, theorem 3.1.) Here m is the plane of the upper hull of phi
over P at the point at which a node's bound is attained, and the weights are the coefficients that its backward pass brings
to the units; the root is one such node, the hardest open one the other. Multipliers of 1 for all cuts of a unit together take
up the whole of its coefficient.

A cut holds at every point of the frame at which the target is reached, so it serves the whole tree. Units are in many cuts; what
each is worth is left to the multipliers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.device import ieee_float32
from onnxsub.ops.base import Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.ops.relu import Relu
from onnxsub.propagate.backward import flattened
from onnxsub.propagate.bounds import slack
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.cuts.octagon import hull_plane, octagon
from onnxsub.verifiers.bab.cuts.planes import Cuts
from onnxsub.verifiers.bab.cuts.rows import Fronts
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.line import Line
from onnxsub.verifiers.bab.narrow import cut_box
from onnxsub.verifiers.bab.nodes import Nodes

__all__ = ["paired"]

_UNITS = 400  # of one activation that pairs are sought among, the heaviest ones
_EACH = 20  # pairs that a unit may be in
_BLOCK = 100  # units that are compared with all later ones at once
_VALUES = 2**22  # of one block of rows
_WORTH = 1e-3  # share of what both units' lines lose that a cut must save
_SLICES = 6  # that the pairs are made in: time may end after any of them
_LOOKING = 0.7  # share of the time that looking for pairs may take


def paired(
    bounder: Bounder, root: Bounded, hardest: Bounded, most: int, budget: Budget | None = None
) -> tuple[dict[str, Cuts], float]:
    """Cuts by the tensor that the operator writes, as many as the time allows, the most promising ones first.

    Where looking for pairs takes most of the time there are none, and the second number says how many seconds are enough; else 0.

    Args:
        root: the roots of `bounder`, bounded: what is drawn from their lines holds everywhere.
        hardest: one node of each target that is to have cuts: they are made for its coefficients and its point.
        most: pairs per target and source, of all activations together.
        budget: its time is what this may take.
    """
    frame, budget = bounder.frame, budget or Budget()
    made: list[dict[int, Cuts]] = [{} for _ in frame.targets]
    with torch.no_grad(), ieee_float32(frame.device):
        fronts = Fronts(frame.network, frame.x0)
        # what the root loses most with, and what is left to lose where splits are made
        targets = hardest.nodes.target.tolist()
        nodes = [(t, *s) for k, t in enumerate(targets) for s in ((root, t), (hardest, k))]
        sources, slices = [], []
        for t, node, k in nodes:
            sources.append(_Root.of(bounder, root, t, node, k, fronts))
            slices.append(sources[-1].chosen(most))
            # the first one tells what all will take
            need = budget.worked * len(nodes) / len(sources) / _LOOKING
            if need > budget.deadline - budget.began:
                return {}, need
        planes: list[dict[int, list[_Planes]]] = [{} for _ in nodes]
        for number in range(_SLICES):
            for source, pairs, part in zip(sources, slices, planes, strict=True):
                if budget.remaining > 0:
                    for p in pairs[number]:
                        part.setdefault(p.number, []).extend(source.planes(p))
        for (t, _, _), part in zip(nodes, planes, strict=True):
            for n in [n for n, found in part.items() if found]:
                cuts = _Planes.joined(part[n]).cuts(bounder.splits[n])
                made[t][n] = Cuts.joined([made[t][n], cuts]) if n in made[t] else cuts
    empty = _none(frame)
    numbers = sorted({n for part in made for n in part})
    return {bounder.splits[n].output: Cuts.stacked([part.get(n, empty) for part in made]) for n in numbers}, 0.0


def _none(frame: Frame) -> Cuts:
    empty = torch.zeros((1, 0, 2), dtype=torch.float64, device=frame.device)
    return Cuts(empty.long(), empty, empty, empty[..., 0])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of one activation: flat positions and weights `(P, 2)` each, and what their inputs share both ways `(P,)`."""

    number: int
    units: Tensor
    weights: Tensor
    worth: Tensor

    def take(self, rows: Tensor) -> _Pairs:
        return _Pairs(self.number, self.units[rows], self.weights[rows], self.worth[rows])


@dataclass(frozen=True, eq=False)
class _Planes:
    """`w_i y_i + w_j y_j <= slope . (w_i z_i, w_j z_j) + offset` for pairs of one activation: `(P, 2)` and `(P,)`."""

    units: Tensor
    weights: Tensor
    slope: Tensor
    offset: Tensor

    @staticmethod
    def joined(parts: list[_Planes]) -> _Planes:
        return _Planes(*(torch.cat([getattr(p, n) for p in parts]) for n in ("units", "weights", "slope", "offset")))

    def cuts(self, op: Nonlinear) -> Cuts:
        """Scaled so that multipliers of 1 for all cuts of a unit from one source take up its coefficient: `(1, C, 2)`."""
        share = 1 / torch.bincount(self.units.flatten(), minlength=op.out_size)[self.units].amax(1).double()
        weights = self.weights * share[:, None]
        return Cuts(self.units[None], weights[None], (self.slope * weights)[None], (self.offset * share)[None])


@dataclass(frozen=True, eq=False)
class _Root:
    """One target's root, and what one of its nodes looks like.

    Attributes:
        low, high: the box of offsets, cut by the root's line, `(1, n)`.
        seen: coefficients of `f_y - f_t` at every activation's output, flat, of the node.
        values: pre-activations at the point at which the node's bound is attained, flat.
    """

    bounder: Bounder
    nodes: Nodes
    line: Line
    low: Tensor
    high: Tensor
    seen: list[Tensor]
    values: list[Tensor]
    relaxations: dict[str, Relaxation]
    fronts: Fronts

    @staticmethod
    def of(bounder: Bounder, root: Bounded, t: int, node: Bounded, k: int, fronts: Fronts) -> _Root:
        nodes = root.nodes.take(torch.tensor([t], device=bounder.frame.device))
        line = Line(root.line.c[t : t + 1], root.line.k[t : t + 1])
        x = (bounder.frame.x0 + node.point[k]).reshape(1, *bounder.frame.network.input_shape)
        values = [flattened(v, 1)[0] for v in bounder.frame.values(x)]
        relaxations = bounder.relaxations(nodes, nodes.alpha, nodes.beta, nodes.gamma, torch.float64)
        seen = [flattened(s[k : k + 1], 1)[0] for s in node.seen]
        return _Root(bounder, nodes, line, *cut_box(nodes.low, nodes.high, line), seen, values, relaxations, fronts)

    def chosen(self, most: int) -> list[list[_Pairs]]:
        """The most promising pairs of this target, by activation, in slices of falling worth."""
        relus = [n for n, op in enumerate(self.bounder.splits) if isinstance(op, Relu)]
        parts = [p for n in relus if (p := self._promising(n)) is not None]
        if not parts:
            return [[] for _ in range(_SLICES)]
        worth = torch.cat([p.worth for p in parts]).sort(descending=True).values[:most]
        ends = [math.inf, *worth[torch.linspace(0, len(worth) - 1, _SLICES + 1, dtype=torch.long)[1:]].tolist()]
        between = pairwise(ends)
        return [[p.take(torch.nonzero((p.worth < high) & (p.worth >= low))[:, 0]) for p in parts] for high, low in between]

    def _ends(self, number: int) -> tuple[Tensor, Tensor]:
        lower, upper = (flattened(e[number], 1)[0] for e in (self.nodes.lower, self.nodes.upper))
        return lower, upper

    @property
    def _step(self) -> int:
        """Rows that are pulled back at once."""
        return max(1, _VALUES // max(math.prod(shape) for shape in self.bounder.frame.network.shapes.values()))

    def _rows(self, op: Nonlinear, units: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Linear lower bounds of `sum_k factors_k z_k`: `(1, R, n)` and `(1, R)`."""
        return self.fronts.lines(op, units, factors, self.relaxations, self.bounder.frame.x0)

    def _promising(self, number: int) -> _Pairs | None:
        """Pairs whose octagon cuts corners off both diagonals of their box: what is common to both inputs must pull both ways."""
        op = self.bounder.splits[number]
        lower, upper = self._ends(number)
        weight = -self.seen[number]
        height = torch.where((lower < 0) & (upper > 0), weight * -lower * upper / (upper - lower).clamp(min=1e-300), 0 * weight)
        units = height.topk(min(_UNITS, len(height))).indices
        units = units[height[units] > 0]
        if len(units) < 2:
            return None
        parts = zip(*(torch.split(t[:, None], self._step) for t in (units, weight[units])), strict=True)
        a = torch.cat([self._rows(op, *part)[0] for part in parts], 1)
        reach = (a[0] * (self.high - self.low) / 2).float()
        # what two rows share, with equal and with opposite signs: sqrt(ab) in place of min(a, b) makes it products of matrices
        up, down = (reach.clamp(min=0).sqrt(), (-reach).clamp(min=0).sqrt())
        same, other = up @ up.T + down @ down.T, up @ down.T
        shared = torch.minimum(same, other + other.T).triu(1)
        worth, place = shared.flatten().sort(descending=True)
        place = place[: max(1, _EACH * len(units))]
        used = [0] * len(units)
        kept = []
        for k, flat in enumerate(place.tolist()):
            i, j = divmod(flat, len(units))
            if worth[k] > 0 and max(used[i], used[j]) < _EACH:
                used[i] += 1
                used[j] += 1
                kept.append(k)
        if not kept:
            return None
        flat = place[kept]
        pairs = torch.stack([units[flat // len(units)], units[flat % len(units)]], 1)
        return _Pairs(number, pairs, weight[pairs], worth[kept].double())

    def planes(self, pairs: _Pairs) -> list[_Planes]:
        """The planes that say more than both units' own lines."""
        if not len(pairs.units):
            return []
        op = self.bounder.splits[pairs.number]
        lower, upper = (e[pairs.units] * pairs.weights for e in self._ends(pairs.number))
        diagonals = torch.stack([self._largest(op, pairs, s, t) for s, t in ((1, 1), (-1, -1), (1, -1), (-1, 1))], 1)
        corners = octagon(lower, upper, diagonals)
        at = torch.minimum(torch.maximum(self.values[pairs.number][pairs.units] * pairs.weights, lower), upper)
        slope, offset = hull_plane(corners, at)
        alone = (upper * (at - lower) / (upper - lower)).sum(1)
        saved = alone - (slope * at).sum(1) - offset
        good = torch.nonzero(saved > _WORTH * (-upper * lower / (upper - lower)).sum(1))[:, 0]
        return [_Planes(pairs.units[good], pairs.weights[good], slope[good], offset[good])] if len(good) else []

    def _largest(self, op: Nonlinear, pairs: _Pairs, s: int, t: int) -> Tensor:
        """Upper bounds of `s p + t q` at the points of the root where the target is reached: `(P,)`."""
        found = []
        scale = (torch.maximum(*(e.abs() for e in self._ends(pairs.number)))[pairs.units] * pairs.weights.abs()).sum(1)
        factors = -pairs.weights * torch.tensor([s, t], device=self.low.device)
        for units, part, size in zip(*(torch.split(t, self._step) for t in (pairs.units, factors, scale)), strict=True):
            a, b = self._rows(op, units, part)
            value = cut_minimum(a, b, self.line.c, self.line.k, self.low, self.high)[0]
            found.append(slack(value, value, size) - value)
        return torch.cat(found)
