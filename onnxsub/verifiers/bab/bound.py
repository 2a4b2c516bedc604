r"""The bound of a node: a linear function above `f_t - f_y` on the node, and the distance of the anchor to where it reaches zero.

On a node (a ball, a target t and signs `side (z_i - theta_i) >= 0` of some units) every choice of lower slopes alpha in [0, 1]
and multipliers beta >= 0 gives, by one backward pass (Wang et al. 2021, beta-CROWN, theorem 3.1),

    f_t(x) - f_y(x) <= c \cdot (x - x0) + k    for all x of the node.

So no point of the node with `f_t >= f_y` is nearer than

    r(c, k) = min { |x - x0|_inf : x in the box, c \cdot (x - x0) + k >= 0 }

which is one sort. Alpha and beta are improved by a few steps of Adam on the largest value of the line within that radius, in
float32; the gradient goes through the line only, since the point at which the value is attained may be held (envelope theorem).
The bound that counts is one pass in float64 with the multipliers found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.device import ieee_float32
from onnxsub.ops.base import Activation
from onnxsub.ops.relaxation import Elementwise, Relaxation
from onnxsub.ops.splitting import Splittable
from onnxsub.propagate.adam import Adam
from onnxsub.propagate.backward import Coefficients, flattened, pull_back
from onnxsub.verifiers.bab.cuts.planes import Cuts
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.line import Line, Rates, box_radius, farthest, sizes_of, smoothed
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.pushed import Pushed, split_push

__all__ = ["Bounded", "Bounder"]


@dataclass(frozen=True, eq=False)
class Turning:
    """`relax` as a function of alpha: each of its four parts is `still + alpha * moved` (None: it does not depend on alpha)."""

    still: tuple[Tensor, Tensor, Tensor, Tensor]
    moved: tuple[Tensor | None, ...]

    @staticmethod
    def of(op: Activation, lower: Tensor, upper: Tensor) -> Turning:
        """Two calls of `relax` instead of one per step."""
        if not op.takes_alpha:
            return Turning(_parts(op.relax(lower, upper, "crown")), (None,) * 4)
        zero, one = (_parts(op.relax(lower, upper, "crown", torch.full_like(lower, v))) for v in (0.0, 1.0))
        differences = [b - a for a, b in zip(zero, one, strict=True)]
        return Turning(zero, tuple(d if bool(d.any()) else None for d in differences))

    def at(self, alpha: Tensor) -> Elementwise:
        """The lines for these slopes, differentiable."""
        return Elementwise(*(s if m is None else s + alpha * m for s, m in zip(self.still, self.moved, strict=True)))


def _parts(lines: Elementwise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return lines.lower_slope, lines.lower_offset, lines.upper_slope, lines.upper_offset


@dataclass(frozen=True, eq=False)
class Bounded:
    """Nodes with their bounds.

    Attributes:
        nodes: with the best slopes and multipliers.
        line: of these, float64.
        point: offsets of the nearest point of the line, or of the farthest in the ball where it does not reach zero, `(B, n)`.
        seen: coefficients of `f_y - f_t` at every activation's output before cuts take their share, `(B, *shape)`: scores of splits
            by what cuts leave were far worse (`PERFORMANCE.md`).
    """

    nodes: Nodes
    line: Line
    point: Tensor
    seen: tuple[Tensor, ...]


class Bounder:
    """Bounds nodes of one frame.

    Args:
        budget: when it ends, multipliers stay as they are; the bound itself is always finished.
    """

    def __init__(self, frame: Frame, budget: Budget | None = None) -> None:
        self.frame = frame
        self.budget = budget
        self.splits = frame.splits
        self.shapes = [op.in_shapes[0] for op in self.splits]
        self.cut_counts = [len(frame.cuts[op.output]) if op.output in frame.cuts else 0 for op in self.splits]
        self.evaluations = 0
        self._open = [flattened(frame.unstable(op), 1).any(0) for op in self.splits]
        rows = torch.zeros((len(frame.targets), frame.network.classes), dtype=torch.float64)  # put together on the processor
        rows[:, frame.label] = 1.0
        rows[torch.arange(len(frame.targets)), torch.tensor(frame.targets)] = -1.0
        self._rows = rows.reshape(len(frame.targets), 1, *frame.network.output_shape).to(frame.device)

    def width(self, usual: int, waiting: int) -> int:
        """How many nodes a step splits."""
        return usual

    def roots(self) -> Nodes:
        """One node per target."""
        f = self.frame
        count = len(f.targets)
        alpha = tuple((f.upper[op.output] > -f.lower[op.output]).float() for op in self.splits)
        empty = torch.zeros((count, 0), dtype=torch.long, device=f.device)
        return Nodes(
            torch.arange(count, device=f.device), empty, empty, empty, empty.double(), alpha, empty.float(),
            torch.zeros((count, sum(self.cut_counts)), device=f.device),
            torch.zeros(count, dtype=torch.float64, device=f.device), f.low, f.high,
            tuple(f.lower[op.output] for op in self.splits), tuple(f.upper[op.output] for op in self.splits),
        )  # fmt: skip

    def relaxations(
        self,
        nodes: Nodes,
        alpha: tuple[Tensor, ...],
        beta: Tensor,
        gamma: Tensor,
        dtype: torch.dtype,
        turning: Mapping[str, Turning | Relaxation] | None = None,
        cuts: Mapping[str, Cuts] | None = None,
    ) -> dict[str, Relaxation]:
        """Lines on the intervals of the nodes.

        Args:
            turning: what `relax` gives on these intervals for any alpha, of operators for which it is known already.
            cuts: of the nodes, where they are picked already.
        """
        cuts = self._cuts(nodes, dtype) if cuts is None else cuts
        shares = torch.split(gamma.to(dtype), self.cut_counts, 1) if cuts else ()
        found: dict[str, Relaxation] = {}
        number = 0
        for op in self.frame.network.nonlinear:
            if not isinstance(op, Activation | Splittable):
                ends = (self.frame.lower[op.output], self.frame.upper[op.output])
                l, u = (e[nodes.target].to(dtype) for e in ends)
                found[op.output] = op.relax(l, u, "crown")
                continue
            turned = None if turning is None else turning.get(op.output)
            if turned is not None:
                inner = turned.at(alpha[number]) if isinstance(turned, Turning) else turned
            else:
                ends = (nodes.lower[number].to(dtype), nodes.upper[number].to(dtype))
                inner = op.relax(*ends, "crown", alpha[number].to(dtype) if op.takes_alpha else None)
            pushes = [split_push(nodes, number, beta.to(dtype), op)] if nodes.depth else []
            if op.output in cuts:
                pushes.append(cuts[op.output].push(shares[number], op.in_shapes[0]))
            found[op.output] = Pushed(inner, pushes)
            number += 1
        return found

    def _cuts(self, nodes: Nodes, dtype: torch.dtype) -> dict[str, Cuts]:
        return {name: cuts.of(nodes.target, dtype) for name, cuts in self.frame.cuts.items()}

    def line(self, nodes: Nodes, relaxations: dict[str, Relaxation], dtype: torch.dtype) -> Line:
        """The linear upper bound of `f_t - f_y`."""
        self.evaluations += len(nodes)
        start = Coefficients(self._rows[nodes.target].to(dtype))
        bound = pull_back(self.frame.network, self.frame.network.output, start, relaxations)
        a = bound.coefficients.full(self.frame.network.input_shape)[:, 0]
        a = flattened(a, 1)
        if a.shape[0] != len(nodes):
            a = a.expand(len(nodes), -1)
        return Line(-a, -bound.lower_bias[:, 0] - a @ self.frame.x0.to(dtype))

    def bound(self, nodes: Nodes, steps: int, close: float, rate: float = 0.2) -> Bounded:
        """Bounds of the nodes after `steps` steps of Adam; nodes whose radius reaches `close` rest.

        Args:
            close: the radius at which a node needs no further work.
        """
        with ieee_float32(self.frame.device):
            return self._bounded(nodes, steps, close, rate)

    def _bounded(self, nodes: Nodes, steps: int, close: float, rate: float) -> Bounded:
        f = self.frame
        low, high = nodes.low, nodes.high
        ends = zip(nodes.lower, nodes.upper, strict=True)
        empty = (low > high).any(1)
        for l, u in ends:
            empty = empty | flattened(l > u, 1).any(1)
        alpha, beta, gamma = nodes.alpha, nodes.beta, nodes.gamma
        if steps:
            alpha, beta, gamma = self._optimise(nodes, steps, close, rate)
        with torch.no_grad():
            found = self.relaxations(nodes, alpha, beta, gamma, torch.float64)
            line = self.line(nodes, found, torch.float64)
            # rounding of the pass itself
            size = line.k.abs() + (line.c.abs() * torch.maximum(low.abs(), high.abs())).sum(1)
            line = Line(line.c, line.k + 1e-10 * (1 + size))
            # a line that is no number proves nothing
            sane = line.k.isfinite() & line.c.isfinite().all(1)
            radius = torch.where(sane, box_radius(line, low, high), torch.zeros_like(line.k))
            radius = torch.where(empty, torch.full_like(radius, math.inf), radius.nan_to_num(nan=0.0, posinf=math.inf))
            # a line that is no number is attained nowhere: its point is the anchor
            point = farthest(line.c, low, high, torch.minimum(radius, torch.full_like(radius, f.radius))).nan_to_num(nan=0.0)
        seen = []
        for op, l in zip(self.splits, nodes.lower, strict=True):
            split = found[op.output]
            assert isinstance(split, Pushed)
            # nothing comes back to an activation that the output does not depend on
            shape = (len(l), *op.out_shape)
            seen.append(l.new_zeros(shape) if split.seen is None else split.seen[:, 0].expand(shape))
        better = replace(nodes, alpha=alpha, beta=beta, gamma=gamma, radius=torch.maximum(radius, nodes.radius))
        return Bounded(better, line, point, tuple(seen))

    def _optimise(self, nodes: Nodes, steps: int, close: float, rate: float) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        dtype = torch.float32
        low, high = nodes.low.to(dtype), nodes.high.to(dtype)
        turning: dict[str, Turning | Relaxation] = {}
        for op, l, u in zip(self.splits, nodes.lower, nodes.upper, strict=True):
            ends = (l.to(dtype), u.to(dtype))
            turning[op.output] = Turning.of(op, *ends) if isinstance(op, Activation) else op.relax(*ends, "crown")
        free = [a.clone().requires_grad_() for a in nodes.alpha]
        beta, gamma = (t.clone().requires_grad_() for t in (nodes.beta, nodes.gamma))
        cuts = self._cuts(nodes, dtype)
        best_of = [*(a.detach().clone() for a in free), nodes.beta.clone(), nodes.gamma.clone()]
        best = torch.full((len(nodes),), -math.inf, device=low.device)
        slow = 0
        adam: Adam | None = None
        for step in range(steps + 1):
            with torch.enable_grad():
                found = self.relaxations(nodes, tuple(free), beta, gamma, dtype, turning, cuts)
                line = self.line(nodes, found, dtype)
                c = line.c.detach()
                radius = box_radius(Line(c, line.k.detach()), low, high)
                at = torch.full_like(radius, close) if self.frame.whole else radius.clamp(max=close)
                point = farthest(c, low, high, at)
                value = line.k + (line.c * point).sum(1)
                climbed = value
                if self.frame.whole:
                    climbed = line.k + (line.c * smoothed(c, low, high, close, value.detach())).sum(1)
            if adam is None:
                rates = Rates.split * rate * self._sizes(nodes, found)
                adam = Adam([*free, beta, gamma], [*(rate for _ in free), rates, Rates.cut * rate], self.pace(nodes, close))
            size = c.abs().sum(1).clamp(min=1e-12)
            held = value.detach() / size
            aim = -value.detach() if self.frame.whole else radius - held.clamp(min=0)
            score = torch.where(radius < close, aim, close + (-held).clamp(min=0))
            up = score > best
            gained = torch.where(up, score - best, torch.zeros_like(best)).clamp(max=1)
            slow = 0 if bool((gained > Rates.gain * score.abs()).any()) else slow + 1
            best = torch.where(up, score, best)
            for kept, now in zip(best_of, [*free, beta, gamma], strict=True):
                kept.copy_(torch.where(up.reshape(-1, *[1] * (now.dim() - 1)), now.detach(), kept))
            # a line without slopes or multipliers cannot get better
            late = self.budget is not None and self.budget.over
            if late or step == steps or slow >= Rates.slow or not value.requires_grad or bool((best >= close).all()):
                break
            gradients = torch.autograd.grad(climbed[radius < close].sum(), [*free, beta, gamma], allow_unused=True)
            adam.step(gradients)
            with torch.no_grad():
                for a in free:
                    a.clamp_(0, 1)
                beta.clamp_(min=0)
                gamma.clamp_(min=0)
        return tuple(best_of[:-2]), best_of[-2], best_of[-1]

    def pace(self, nodes: Nodes, close: float) -> Tensor:
        """Factor of the step sizes of nodes, `(B,)` float32."""
        gap = 1 - (nodes.radius / close).clamp(max=1) if math.isfinite(close) else torch.ones_like(nodes.radius)
        pace = Rates.pace(gap).float()
        if self.frame.whole:
            # a search that leads nowhere with one size of step mostly ends with the other, a level below
            pace = pace * torch.where((nodes.layer >= 0).sum(1) % 2 == 0, Rates.whole, 1.0)
        return pace

    def _sizes(self, nodes: Nodes, found: Mapping[str, Relaxation]) -> Tensor:
        """What the multipliers of splits step by: `(B, D)`."""
        means = []
        for op, open_ in zip(self.splits, self._open, strict=True):
            lines = found[op.output]
            seen = lines.seen if isinstance(lines, Pushed) else None
            size = nodes.beta.new_zeros((1, 1)) if seen is None else flattened(seen.detach(), 2)[:, 0].abs()
            if size.shape[1] == len(open_):  # of what is no function of each element, by all that is read
                size = size[:, open_]
            means.append((size.sum(1) / max(size.shape[1], 1)).expand(len(nodes)))
        return sizes_of(torch.stack(means, 1), nodes.layer.clamp(min=0)) if means else torch.ones_like(nodes.beta)
