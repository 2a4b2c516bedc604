"""The rows of a network over one box: bounded, excluded where bounds allow it, folded. What every question begins with.

A *row* is an output that is `>= 0` where something of interest happens (another class is reached, a row of a clause holds). Rows
stand beside one output that is the constant 0, so that each is a margin against one and the same class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Nonlinear, Shape
from onnxsub.ops.base import Box as TensorBox
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten
from onnxsub.ops.windows import Windows, choices, contenders
from onnxsub.passes.fold import fold
from onnxsub.passes.windows import original_windows
from onnxsub.propagate import Bounds, compute_bounds
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.halfspaces import GAIN, MOST_UNITS, tighten
from onnxsub.verifiers.options import BabOptions, ExactOptions
from onnxsub.verifiers.proof import excludes

__all__ = ["SLACK", "Box", "BoxModel", "Building", "Rows", "margins_of"]

SLACK = 1e-7
"""A row is relaxed to `row >= -SLACK * (1 + max |bound of the row|)`, so that no rounding can hide a point at which it is 0. Rows
are in units of the margin at the anchor, so this moves a proved distance by about 1e-7 of itself."""


def margins_of(network: Network, label: int) -> Network:
    """The network with `f_t - f_y` in place of every logit `f_t`; output y is the constant 0."""
    flat = flatten(network.output, network.output_shape, "margins:logits")
    k = network.classes
    weight = np.eye(k)
    weight[:, label] -= 1.0
    last = Dense(
        op_type="Margins", node="f_t - f_y", inputs=(flat.output,), output="margins", in_shapes=((k,),), out_shape=(k,),
        weight=weight,
    )  # fmt: skip
    return network.then((flat, last))


@dataclass(frozen=True, eq=False)
class Box:
    """A box of inputs and a point in it that distances are measured from.

    Attributes:
        x0: `(*input_shape)`, float64.
        lower, upper: `(*input_shape)`, float64.
        radius: what is proved over the box is claimed for the points within this distance of `x0`.
    """

    x0: Array
    lower: Array
    upper: Array
    radius: float

    @staticmethod
    def whole(lower: Array, upper: Array) -> Box:
        """The box with its centre, and as far as it reaches."""
        centre = lower + (upper - lower) / 2
        return Box(centre, lower, upper, float(np.maximum(centre - lower, upper - centre).max(initial=0.0)))


@dataclass(frozen=True, eq=False)
class Rows:
    """What is asked of a network's outputs.

    Attributes:
        network: from the input to the rows and the zero.
        zero: which output is the constant 0.
        clauses: rows of each clause that must all be `>= 0`, by its key; None: every row is a clause of its own.
    """

    network: Network
    zero: int
    clauses: dict[int, tuple[int, ...]] | None = None

    @property
    def members(self) -> dict[int, tuple[int, ...]]:
        """The rows of every clause."""
        if self.clauses is not None:
            return self.clauses
        return {t: (t,) for t in range(self.network.classes) if t != self.zero}


@dataclass(frozen=True, eq=False)
class Building:
    """How a box is bounded.

    Attributes:
        method: of `onnxsub.propagate`.
        fold: `auto`, `always` or `never`.
        tight: whether units are bounded where a clause holds, not on the whole box.
        dense: coefficients that the folded form may have; a network that would have more stays as it is.
        device: where bounds are computed; they are kept on the processor.
        budget: the clock of the bounds.
    """

    method: str = "crown"
    fold: str = "auto"
    tight: bool = True
    dense: float = math.inf
    device: str = "cpu"
    budget: Budget = field(default_factory=Budget)

    @staticmethod
    def of(options: ExactOptions, budget: Budget, *, branching: bool = False) -> Building:
        """As the options of an engine say.

        Args:
            branching: for branch and bound, which works on a device and on networks whose folded form would be too large.
        """
        m, b = options.milp, options.bab
        dense, device = (b.dense, b.device) if branching else (math.inf, "cpu")
        return Building(m.bounds_method, m.fold, m.tighten != "none", dense, device, budget)


@dataclass(frozen=True, eq=False)
class BoxModel:
    """Rows over a box.

    Attributes:
        rows: what is asked; its network is the folded form where it could be folded.
        box: where.
        bounds: of that network.
        lowest, highest: proved interval of every output; `-inf` for the zero.
        how: how it was bounded, and is again.
        folds_further: whether the network is not the folded form.
    """

    rows: Rows
    box: Box
    bounds: Bounds
    lowest: Array
    highest: Array
    how: Building
    folds_further: bool = True

    @staticmethod
    def over(rows: Rows, box: Box, how: Building) -> BoxModel:
        """Bounds first; the folded form only where a clause is left.

        Raises:
            UnsupportedOperatorError: an operator has no bounds, or no folded form when `how.fold` is `always`.
            OutOfTime: the budget ended.
        """
        # optimised slopes cost seconds: they are for the network that the questions are asked of
        first = "crown" if how.method == "alpha-crown" else how.method
        bounds = compute_bounds(rows.network, *_ends(box, how.device), first, budget=how.budget)
        lowest, highest = _margins(rows, bounds)
        found = BoxModel(rows, box, bounds.on_cpu(rows.network), lowest, highest, how)
        if not found.open:
            return found
        if how.fold != "never" and _folded_size(rows.network, bounds) <= how.dense:
            try:
                return found.folded(how.method)
            except UnsupportedOperatorError:
                if how.fold == "always":
                    raise
        return found if first == how.method else found.bounded(how.method)

    def folded(self, method: str | None = None) -> BoxModel:
        """The same with stable units and affine stretches folded, and bounded again.

        Raises:
            UnsupportedOperatorError: it cannot be folded.
        """
        rows = replace(self.rows, network=fold(self.rows.network, self.bounds, budget=self.how.budget))
        return replace(self, rows=rows, folds_further=False).bounded(method or self.how.method)

    def bounded(self, method: str, steps: int = 20) -> BoxModel:
        """The same with the network bounded again by another method.

        Args:
            steps: of `alpha-crown`.
        """
        network = self.network
        bounds = compute_bounds(
            network, *_ends(self.box, self.how.device), method, steps=steps, only_unstable=method == "alpha-crown",
            budget=self.how.budget,
        )  # fmt: skip
        low, high = _margins(self.rows, bounds)
        return replace(
            self, bounds=bounds.on_cpu(network), lowest=np.fmax(self.lowest, low), highest=np.fmin(self.highest, high)
        )

    @property
    def network(self) -> Network:
        return self.rows.network

    @property
    def able(self) -> bool:
        """Whether every operator has MILP rows."""
        return all("milp" not in op.unsupported for op in self.network.ops)

    def promise(self, key: int) -> float:
        """An upper bound of the smallest row of a clause; below zero no point of the box satisfies it."""
        return float(np.min(self.highest[list(self.rows.members[key])]))

    @property
    def open(self) -> tuple[int, ...]:
        """The clauses that bounds do not exclude, the most promising first."""
        promises = {k: self.promise(k) for k in self.rows.members}
        left = [k for k, p in promises.items() if not excludes(p)]
        return tuple(sorted(left, key=lambda k: -promises[k] if not math.isnan(promises[k]) else -math.inf))

    @property
    def unstable(self) -> int:
        """Units that are not one affine piece on the box, and choices that its windows have (`ops.windows.choices`)."""
        count = sum(int((~op.affine_on(*self.bounds.pre[op.output])).sum()) for op in self.network.activations)
        return count + sum(choices(original_windows(op).table, *self.bounds.arrays(op.output)) for op in self.network.windowed)

    def few(self, bab: BabOptions, *, programs: bool) -> bool:
        """Whether so few units are unstable that linear programs search; without these, that the first bounds are good enough."""
        return self.unstable <= bab.searched(windows=bool(self.network.windows), whole=not programs)

    def slack(self, row: int) -> float:
        """How far a row is relaxed, so that no rounding can hide a point: proofs are about `row >= -slack`."""
        return SLACK * (1.0 + max(abs(float(self.lowest[row])), abs(float(self.highest[row]))))

    def arrays(self) -> dict[str, tuple[Array, Array]]:
        """Intervals of the whole box, flattened, by the tensor that each operator writes."""
        return {name: self.bounds.arrays(name) for name in self.bounds.pre}

    def clause(self, key: int, most: int = MOST_UNITS, gain: float = GAIN, tight: bool | None = None) -> ClauseModel | None:
        """What the points of the box look like at which a clause holds; None: bounds prove that there is none.

        Args:
            most: unstable units beyond which the intervals of the box are taken as they are.
            gain: share of the intervals' width that a pass of tightening must bring.
            tight: whether to bound units where the clause holds; default: as the box was made.
        """
        members = self.rows.members[key]
        plain = ClauseModel(self, key, members, self.box.lower, self.box.upper, self.arrays(), {})
        if not (self.how.tight if tight is None else tight) or self.unstable > most:
            return plain
        bounds, budget = self.bounds, self.how.budget
        # what one row leaves of the box and of the intervals is where the next one begins
        for row in sorted(members, key=lambda r: float(self.highest[r])):
            if budget.over:
                break
            found = tighten(self.network, bounds, row, self.rows.zero, self.slack(row), lambda: budget.over, gain)
            if found is None:
                return None
            pre = {op.output: _shaped(found.pre[op.output], op.in_shapes[0]) for op in self.network.nonlinear}
            bounds = replace(bounds, lower=found.lower.unsqueeze(0), upper=found.upper.unsqueeze(0), pre=pre)
        enforced = {op.output: _decided(op, self.bounds.pre[op.output], bounds.pre[op.output]) for op in self.network.nonlinear}
        lower, upper = (end[0].numpy() for end in (bounds.lower, bounds.upper))
        intervals = {name: bounds.arrays(name) for name in bounds.pre}
        return ClauseModel(self, key, members, lower, upper, intervals, enforced)


def _decided(op: Nonlinear, before: TensorBox, after: TensorBox) -> Array:
    """Inputs (flat) that an operator's pieces are decided by on the better one of two intervals only."""
    if isinstance(op, Activation):
        return torch.nonzero((op.affine_on(*after) & ~op.affine_on(*before)).flatten()).flatten().numpy()
    if not isinstance(op, Windows):
        return np.zeros(0, dtype=np.int64)
    one, other = (contenders(op.table, *(e.flatten().double().numpy() for e in ends)) for ends in (before, after))
    return np.unique(op.table[one & (one != other).any(axis=1, keepdims=True)])


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


def _ends(box: Box, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(np.array(box.lower), device=device), torch.as_tensor(np.array(box.upper), device=device)


def _shaped(interval: tuple[torch.Tensor, torch.Tensor], shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    return interval[0].reshape(1, *shape), interval[1].reshape(1, *shape)


def _margins(rows: Rows, bounds: Bounds) -> tuple[Array, Array]:
    low, high = (end[0].double().cpu().numpy().copy() for end in bounds.output)
    low[rows.zero] = high[rows.zero] = -np.inf
    return low, high
