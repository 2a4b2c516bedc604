"""The network on one ball: bounded, targets excluded, folded, encoded. What every question of the MILP verifier starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.passes.fold import fold
from onnxsub.propagate import Bounds, compute_bounds, margin_bounds
from onnxsub.region import InputSpace
from onnxsub.verifiers.milp.build import Encoding, encode_network
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.solvers import Problem
from onnxsub.verifiers.milp.tighten import GAIN, MOST_UNITS, tighten
from onnxsub.verifiers.milp.tighten_lp import Question, tighten_by_programs

__all__ = ["ROOM", "SLACK", "LocalModel", "TargetModel"]

SLACK = 1e-7
"""The row `f_t >= f_y` is relaxed to `f_t - f_y >= -SLACK * (1 + max |margin bound|)`, so that no rounding of the rows can
hide a boundary point. Logits are in units of the margin at the anchor (`search.normalised`), so this moves the proved distance by
about 1e-7 of itself."""


ROOM = 1e-6
"""What is claimed for `B(r)` is asked of `B((1 + ROOM) r)`: whatever lies in the smaller ball has room round it in the larger one,
and a solver that calls a sliver empty does not hide it."""


@dataclass(frozen=True, eq=False)
class LocalModel:
    """`network` over `[lower, upper]`, which is `B(radius)` and a little more (`ROOM`).

    Attributes:
        network: the folded form where it could be folded.
        bounds: of that network.
        margins: upper bound of `f_t - f_y` per class; `-inf` for y.
        lowest: lower bound of the same.
        label: y.
        radius: what is proved over the box is claimed for this ball.
        tight: whether the programs use bounds that hold where their target is reached.
        device: where bounds are computed; they are kept on the processor.
    """

    network: Network
    x0: Array
    lower: Array
    upper: Array
    bounds: Bounds
    margins: Array
    lowest: Array
    label: int
    radius: float
    tight: bool
    device: str = "cpu"

    @staticmethod
    def over(
        network: Network,
        x0: Array,
        label: int,
        space: InputSpace,
        radius: float,
        options: MilpOptions,
        dense: float = math.inf,
        device: str = "cpu",
    ) -> LocalModel:
        """Bounds first; the folded form only where a target is left.

        Args:
            dense: coefficients that the folded form may have; a network that would have more stays as it is.
            device: where bounds are computed.

        Raises:
            UnsupportedOperatorError: an operator has no bounds, or none of folded form when `fold` is `always`.
        """
        lower, upper = space.ball(x0, radius * (1 + ROOM))
        return LocalModel.on_box(network, x0, label, lower, upper, radius, options, dense, device)

    @staticmethod
    def on_box(
        network: Network,
        x0: Array,
        label: int,
        lower: Array,
        upper: Array,
        radius: float,
        options: MilpOptions,
        dense: float = math.inf,
        device: str = "cpu",
    ) -> LocalModel:
        """The same over any box; `radius` is how far it reaches from `x0`, which need not be an anchor."""
        # optimised slopes cost seconds: they are for the network that the questions are asked of
        first = "crown" if options.bounds_method == "alpha-crown" else options.bounds_method
        bounds = compute_bounds(network, *_ends(lower, upper, device), first)
        lowest, margins = _margins(network, bounds, label)
        tight = options.tighten != "none"
        found = LocalModel(network, x0, lower, upper, bounds.on_cpu(network), margins, lowest, label, radius, tight, device)
        if not (margins >= 0).any():
            return found
        if options.fold != "never" and _folded_size(network, bounds) <= dense:
            try:
                return found.folded(options.bounds_method)
            except UnsupportedOperatorError:
                if options.fold == "always":
                    raise
        return found if first == options.bounds_method else found.bounded(options.bounds_method)

    def folded(self, method: str) -> LocalModel:
        """The same with stable units and affine stretches folded, and bounded again.

        Raises:
            UnsupportedOperatorError: it cannot be folded.
        """
        return replace(self, network=fold(self.network, self.bounds)).bounded(method)

    def bounded(self, method: str, steps: int = 20) -> LocalModel:
        """The same with the network bounded again by another method.

        Args:
            steps: of `alpha-crown`.
        """
        ends = _ends(self.lower, self.upper, self.device)
        bounds = compute_bounds(self.network, *ends, method, steps=steps, only_unstable=method == "alpha-crown")
        low, high = _margins(self.network, bounds, self.label)
        bounds = bounds.on_cpu(self.network)
        return replace(self, bounds=bounds, lowest=np.maximum(self.lowest, low), margins=np.minimum(self.margins, high))

    @property
    def open(self) -> tuple[int, ...]:
        """The targets that bounds do not exclude, the most promising first."""
        return tuple(int(t) for t in np.argsort(-self.margins, kind="stable") if self.margins[t] >= 0)

    @property
    def unstable(self) -> int:
        """Units that cost a binary."""
        count = 0
        for op in self.network.activations:
            l, u = self.bounds.pre[op.output]
            count += int((~op.affine_on(l, u)).sum())
        return count

    def slack(self, target: int) -> float:
        """How far the row of `target` is relaxed."""
        return SLACK * (1.0 + max(abs(float(self.margins[target])), abs(float(self.lowest[target]))))

    def target(
        self, target: int, most: int = MOST_UNITS, stop: Callable[[], bool] | None = None, gain: float = GAIN
    ) -> TargetModel | None:
        """What the points of the ball with `f_t >= f_y` look like; None: bounds prove that there is none.

        Args:
            most: unstable units beyond which the intervals of the ball are taken as they are.
            stop: asked between passes of tightening.
            gain: share that such a pass must bring (`tighten`).
        """
        slack = self.slack(target)
        intervals = {name: self.bounds.arrays(name) for name in self.bounds.pre}
        lower, upper = self.lower, self.upper
        enforced: dict[str, Array] = {}
        if self.tight and self.unstable <= most:
            tightened = tighten(self.network, self.bounds, target, self.label, slack, stop, gain)
            if tightened is None:
                return None
            lower, upper = tightened.lower.numpy(), tightened.upper.numpy()
            for op in self.network.activations:
                after = (t.reshape(op.in_shapes[0]) for t in tightened.pre[op.output])
                on_ball = op.affine_on(*(b[0] for b in self.bounds.pre[op.output]))
                enforced[op.output] = torch.nonzero((op.affine_on(*after) & ~on_ball).flatten()).flatten().numpy()
            intervals = {name: (l.numpy(), u.numpy()) for name, (l, u) in tightened.pre.items()}
        return TargetModel(self, target, slack, lower, upper, intervals, enforced)


@dataclass(frozen=True, eq=False)
class TargetModel:
    """The points of a ball at which one target is reached, as mixed-integer programs.

    Attributes:
        lower, upper, intervals: hold at these points.
        enforced: units that are stable at these points only: their intervals become rows.
    """

    local: LocalModel
    target: int
    slack: float
    lower: Array
    upper: Array
    intervals: Mapping[str, tuple[Array, Array]]
    enforced: Mapping[str, Array]

    @property
    def binaries(self) -> int:
        """Units that cost a binary."""
        count = 0
        for op in self.local.network.activations:
            ends = (torch.as_tensor(np.array(e)).reshape(op.in_shapes[0]) for e in self.intervals[op.output])
            count += int((~op.affine_on(*ends)).sum())
        return count

    def _encode(self) -> Encoding:
        local = self.local
        unit = local.radius * (1 + ROOM)
        return encode_network(
            local.network, local.x0, self.lower, self.upper, self.intervals, radius=unit, enforced=self.enforced
        )

    @cached_property
    def _ball(self) -> Encoding:
        return self._encode()

    @cached_property
    def _measured(self) -> tuple[Encoding, LinExpr]:
        encoding = self._encode()
        return encoding, encoding.add_distance()

    def tightened(self, late: Callable[[], bool]) -> TargetModel | None:
        """The same with units bounded by linear programs; None: these prove that the target is not reached.

        Args:
            late: asked before every program.
        """

        def encode(intervals: Mapping[str, tuple[Array, Array]], enforced: Mapping[str, Array]) -> Encoding:
            return replace(self, intervals=intervals, enforced=enforced)._encode()

        def rows(encoding: Encoding) -> list[tuple[LinExpr, float]]:
            return [(encoding.margin(self.target, self.local.label), -self.slack)]

        whole = {name: self.local.bounds.arrays(name) for name in self.local.bounds.pre}
        found = tighten_by_programs(Question(self.local.network, whole, encode, rows), self.intervals, late)
        return None if found is None else replace(self, intervals=found[0], enforced=found[1])

    def decision(self) -> Problem:
        """`max f_t - f_y` over the points of the ball where it is not negative; a point exists unless infeasible."""
        margin = self._ball.margin(self.target, self.local.label)
        return self._ball.model.problem(-margin, (margin, -self.slack, np.inf))

    def relaxed(self) -> tuple[Problem, Array, float]:
        """`max f_t - f_y` over the points of the ball, whatever its sign; the columns of `(x - x0) / R`, and R."""
        ball = self._ball
        margin = ball.margin(self.target, self.local.label)
        return ball.model.problem(-margin), ball.steps.matrix.indices, ball.radius

    def minimum(self) -> Problem:
        """`min |x - x0|_inf` over the points of the ball with `f_t >= f_y`; the columns of `decision` come first."""
        encoding, distance = self._measured
        return encoding.model.problem(distance, (encoding.margin(self.target, self.local.label), -self.slack, np.inf))

    def point(self, solution: Array) -> Array:
        """The input of a solution of `decision` or `minimum`."""
        return self._ball.point(solution)


def _folded_size(network: Network, bounds: Bounds) -> int:
    """Coefficients of the folded form: every unstable unit is a row over the input and the unstable units before it."""
    before, size = network.input_size, 0
    for op in network.nonlinear:
        units = op.out_size
        if isinstance(op, Activation):
            units = int((~op.affine_on(*bounds.pre[op.output])).sum())
        size += units * before
        before += units
    return size + network.classes * before


def _ends(lower: Array, upper: Array, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(np.array(lower), device=device), torch.as_tensor(np.array(upper), device=device)


def _margins(network: Network, bounds: Bounds, label: int) -> tuple[Array, Array]:
    rows = np.eye(network.classes) - np.eye(network.classes)[label]
    low, high = (b[0].double().cpu().numpy().copy() for b in margin_bounds(network, bounds, rows))
    low[label] = high[label] = -np.inf
    return low, high
