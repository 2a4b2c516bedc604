"""Bounds of nodes of networks of Relus, by matrices; what each number means, and why it holds, is said in `bab/bound.py`."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.relu import Relu
from onnxsub.propagate.backward import flattened
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.line import Line, Rates
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu.ascent import Ascent, Batch, Search
from onnxsub.verifiers.bab.relu.lines import Pulled, Slopes
from onnxsub.verifiers.bab.relu.matrices import Matrices
from onnxsub.verifiers.bab.relu.multipliers import Joined, Sides
from onnxsub.verifiers.bab.relu.nearest import reached

__all__ = ["ReluBounder"]

_AT_ONCE = 2**17  # numbers of one matrix of nodes by inputs: what stays in a core's cache

_WIDER, _SHARE = 4, 8  # times as many nodes in one step, and which share of the waiting ones they are at most


class ReluBounder(Bounder):
    """Bounds nodes of one frame through its matrices."""

    def __init__(self, frame: Frame, m: Matrices, budget: Budget | None = None) -> None:
        super().__init__(frame, budget)
        self.m = m
        relu = self.splits[0]
        assert isinstance(relu, Relu)
        self.relu = relu
        self.cut_list = [(k, frame.cuts[op.output]) for k, op in enumerate(self.splits) if op.output in frame.cuts]

    def width(self, usual: int, waiting: int) -> int:
        """More of them where many wait: most of the first ones must be split whatever comes first."""
        if self.frame.device.type != "cpu":
            return usual  # as many as memory holds
        return max(usual, min(_WIDER * usual, waiting // _SHARE))

    def batch(self, nodes: Nodes, dtype: torch.dtype) -> Batch:
        """Nodes as matrices."""
        ends = (self.m.gathered(e).to(dtype) for e in (nodes.lower, nodes.upper))
        lines, parts = Slopes.of(self.relu, *ends), self.m.of(dtype)
        cuts = Joined.of(self.m, self.cut_list, nodes.target, dtype)
        sides = Sides.of(self.m, nodes)
        return Batch(self.m, parts, nodes.target, lines, sides, cuts, nodes.low.to(dtype), nodes.high.to(dtype))

    def _bounded(self, nodes: Nodes, steps: int, close: float, rate: float) -> Bounded:
        size = max(16, _AT_ONCE // max(nodes.low.shape[1], 2 * self.m.count, sum(self.cut_counts) * 4))
        whole = torch.arange(len(nodes), device=nodes.low.device)
        if len(whole) <= size:
            return self._piece(nodes, steps, close, rate)
        parts = [self._piece(nodes.take(rows), steps, close, rate) for rows in torch.split(whole, size)]
        line = Line(torch.cat([p.line.c for p in parts]), torch.cat([p.line.k for p in parts]))
        seen = tuple(torch.cat(t) for t in zip(*(p.seen for p in parts), strict=True))
        return Bounded(Nodes.joined([p.nodes for p in parts]), line, torch.cat([p.point for p in parts]), seen)

    def _piece(self, nodes: Nodes, steps: int, close: float, rate: float) -> Bounded:
        with torch.no_grad():
            alpha, beta, gamma = self.m.gathered(nodes.alpha), nodes.beta, nodes.gamma
            if steps:
                alpha, beta, gamma = self._improved(nodes, (alpha, beta, gamma), steps, close, rate)
            b = self.batch(nodes, torch.float64)
            self.evaluations += len(nodes)
            push = b.push(beta, gamma)
            found = b.pulled(b.lines.low(alpha.double()), push)
            line, radius, point = self._claims(nodes, found)
            # before cuts take their share
            lam = found.lam if push.outer is None else found.lam + push.outer
        empty = tuple(lam.new_zeros((len(nodes), *s)) for s in self.shapes)
        better = replace(
            nodes, alpha=self.m.spread(alpha, nodes.alpha) if steps else nodes.alpha, beta=beta, gamma=gamma,
            radius=torch.maximum(radius, nodes.radius),
        )  # fmt: skip
        return Bounded(better, line, point, self.m.spread(-lam, empty))

    def _improved(
        self, nodes: Nodes, free: tuple[Tensor, Tensor, Tensor], steps: int, close: float, rate: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        begin = nodes.radius.clamp(max=self.frame.radius).float()
        rates = (rate, Rates.split * rate, Rates.cut * rate)
        search = Search(steps, close, self.frame.whole, rates, Rates.gain, Rates.slow, self.budget)
        return Ascent(self.batch(nodes, torch.float32), free, begin, self.pace(nodes, close), search).run()

    def _claims(self, nodes: Nodes, found: Pulled) -> tuple[Line, Tensor, Tensor]:
        """Line, distance and the point at which it is attained, as `Bounder` has them."""
        low, high = nodes.low, nodes.high
        empty = torch.gt(low, high).any(1)
        for l, u in zip(nodes.lower, nodes.upper, strict=True):
            empty = empty | flattened(l > u, 1).any(1)
        # rounding of the pass itself
        size = found.k.abs() + (found.c.abs() * torch.maximum(low.abs(), high.abs())).sum(1)
        line = Line(found.c, found.k + 1e-10 * (1 + size))
        at = reached((line.c, line.k), (low, high), self.frame.radius)
        sane = line.k.isfinite() & at.size.isfinite()
        radius = torch.where(sane, at.radius, torch.zeros_like(at.radius))
        radius = torch.where(empty, torch.full_like(radius, math.inf), radius.nan_to_num(nan=0.0, posinf=math.inf))
        return line, radius, at.point.nan_to_num(nan=0.0)
