r"""Which units to prune: Algorithm 1.

Repeatedly remove the `gamma0` share of the *remaining* units that matter least, recomputing the bounds on the partly pruned
network, until exactly `round(gamma N)` of all N units are gone. Without recomputation the first layer loses everything
first, because widths grow with depth. After k rounds a share of `(1-gamma0)^k` remains; the loop ends when that is
`<= 1-gamma`.

| rank | what a unit costs |
|---|---|
| `width` | `u - l`, the published measure |
| `influence` | the largest error of its own line on `[l, u]` times `|d margin / d output|`; zero where the line is exact |

The derivative is the larger of the two at the anchor and at the adversarial point. Windows (MaxPool and the like) are ranked with
the units: the width is that of what a window writes, the error that of its line against the window (`windows.py`).

Ties are broken by layer, then by index, so that runs repeat.

Networks of many units are ranked on estimates (`estimate.py`): rounds that leave far more units than are kept in the end take a
quarter of the directions, and a round removes all units that cost nothing, since their lines change nothing that is estimated next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError, OptionError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Box
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.estimate import DIRECTIONS, Start, estimate_widths
from onnxsub.passes.rough import curved, rough_error
from onnxsub.passes.substitute import Lines, substitute
from onnxsub.passes.windows import original_windows, read_by, window_cost
from onnxsub.propagate import METHODS as BOUNDS
from onnxsub.propagate import compute_bounds

__all__ = ["LARGE", "RANKERS", "RANKS", "SelectOptions", "Selection", "margin_gradients", "select"]

RANKS = ("width", "influence")
RANKERS = ("auto", "estimate", *BOUNDS)
"""What units may be ranked on; `auto`: `fastlin-ibp`, and `estimate` in networks of more than `LARGE` units."""
LARGE = 20_000

_ROUGH = 8  # times as many units left as are kept in the end: until then few of the latter can fall to the error of a width


@dataclass(frozen=True)
class SelectOptions:
    """How Algorithm 1 runs.

    Attributes:
        gamma: share of all units to prune; `keep` states the number kept instead.
        gamma0: share of the remaining units that one round removes.
        rank: `width` or `influence`.
        bounds: method of `onnxsub.propagate` whose intervals rank the units, `estimate`, or `auto`.
        double: float64 bounds; float32 is enough for a ranking.
    """

    gamma: float | None = 0.99
    keep: int | None = None
    gamma0: float = 0.3
    rank: str = "influence"
    bounds: str = "auto"
    double: bool = False

    def __post_init__(self) -> None:
        if (self.gamma is None) == (self.keep is None):
            raise OptionError("give either --gamma or --keep, not both")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise OptionError(f"--gamma {self.gamma} is outside [0, 1]; it is the share of units to prune")
        if self.keep is not None and self.keep < 0:
            raise OptionError(f"--keep {self.keep} is negative; it is the number of units kept")
        if not 0 < self.gamma0 <= 1:
            raise OptionError(f"--gamma0 {self.gamma0} is outside (0, 1]; it is the share of what remains that one round prunes")
        if self.rank not in RANKS:
            raise OptionError(f"--rank {self.rank!r} is unknown; choose one of {', '.join(RANKS)}")
        if self.bounds not in RANKERS:
            raise OptionError(f"--bounds {self.bounds!r} is unknown; choose one of {', '.join(RANKERS)}")

    def bounds_for(self, units: int) -> str:
        """`bounds`, decided for a network of so many units."""
        if self.bounds != "auto":
            return self.bounds
        return "estimate" if units > LARGE else "fastlin-ibp"

    def pruned_of(self, units: int) -> int:
        """How many of `units` are pruned.

        Raises:
            InputError: more are to be kept than there are.
        """
        if self.keep is not None:
            if self.keep > units:
                raise InputError(f"--keep {self.keep} is more than the model's {units} units")
            return units - self.keep
        assert self.gamma is not None  # checked above
        return round(self.gamma * units)


@dataclass(frozen=True, eq=False)
class Selection:
    """What Algorithm 1 kept.

    Attributes:
        kept: boolean per unit, in the activation's shape, by the name of the tensor that the activation writes; windows likewise.
        rounds: how often bounds were computed.
        unstable: how many of the kept units were unstable when bounds were last computed; with `estimate` that is an estimate too.
        complete: whether as many units were pruned as was asked for; else the time ended it after `rounds` whole rounds.
    """

    kept: Mapping[str, Array]
    rounds: int
    unstable: int
    complete: bool = True

    @property
    def kept_per_layer(self) -> list[int]:
        return [int(k.sum()) for k in self.kept.values()]


def select(
    network: Network,
    ball: tuple[Array, Array],
    chosen: Lines,
    options: SelectOptions,
    *,
    gradients: Mapping[str, Array] | None = None,
    budget: Budget | None = None,
    best_effort: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> Selection:
    """Runs Algorithm 1 on f over a box of inputs.

    Args:
        ball: lower and upper end of the box, per-sample shape.
        chosen: the lines that pruned units become.
        gradients: `|d margin / d output|` of every unit, from `margin_gradients`; needed for `influence`.
        budget: looked at in every round, before every activation.
        best_effort: keep half of the time for what is done with the result: where that half begins after at least one whole round,
            hand out what the last whole round left.

    Raises:
        OutOfTime: the budget ended, and there is no round to hand out.
    """
    budget = budget or Budget()
    if options.rank == "influence" and gradients is None:
        raise InputError("--rank influence needs the margin's gradients at the anchor")
    kept = {op.output: np.ones(op.out_shape, dtype=bool) for op in network.prunable}
    remaining = network.units_and_windows
    goal = remaining - options.pruned_of(remaining)
    total = max(1, remaining - goal)
    half = budget.part(budget.remaining / 2) if best_effort else budget
    rounds = unstable = 0
    start: Start | None = None
    while remaining > goal:
        try:
            clock = half if rounds else budget
            (layer, unit, cost, is_open), start = _ranking(network, ball, kept, chosen, options, gradients, start, clock)
        except OutOfTime:
            if not (best_effort and rounds):
                raise
            return Selection(kept, rounds, unstable, complete=False)
        rounds += 1
        free = int((cost == 0).sum()) if options.bounds_for(network.units_and_windows) == "estimate" else 0
        count = min(remaining - goal, max(1, math.ceil(options.gamma0 * remaining), free))
        order = np.argsort(cost, kind="stable")  # units stand in order of layer and index: ties go to the first
        gone = order[:count]
        unstable = int(is_open[order[count:]].sum())
        for number, op in enumerate(network.prunable):
            kept[op.output].reshape(-1)[unit[gone[layer[gone] == number]]] = False
        remaining -= count
        if progress is not None:
            progress(1 - (remaining - goal) / total, f"round {rounds}: {remaining} units left")
    return Selection(kept, rounds, unstable)


def _ranking(
    network: Network,
    ball: tuple[Array, Array],
    kept: Mapping[str, Array],
    chosen: Lines,
    options: SelectOptions,
    gradients: Mapping[str, Array] | None,
    start: Start | None,
    budget: Budget,
) -> tuple[tuple[Array, Array, Array, Array], Start | None]:
    """Activation, flat position and cost of every unit that is kept, and whether it is unstable; bounds are those of one round.

    `start` is where the round before says that the estimate may begin; the next one comes with the result.
    """
    budget.check()
    pre, start = _bounds(substitute(network, chosen, kept), ball, kept, options, start, budget)
    rough = options.bounds_for(network.units_and_windows) == "estimate"
    names, index, costs, open_units = [], [], [], []
    for number, op in enumerate(network.prunable):
        budget.check()
        units = np.flatnonzero(kept[op.output])
        cost, is_open = _cost(op, pre[op.output], units, chosen, options.rank, gradients, rough=rough)
        names.append(np.full(len(units), number))
        index.append(units)
        costs.append(cost)
        open_units.append(is_open)
    return (np.concatenate(names), np.concatenate(index), np.concatenate(costs), np.concatenate(open_units)), start


def _bounds(
    network: Network,
    ball: tuple[Array, Array],
    kept: Mapping[str, Array],
    options: SelectOptions,
    start: Start | None,
    budget: Budget,
) -> tuple[Mapping[str, Box], Start | None]:
    """Input interval of every non-linear operator, by the name of the tensor that it writes: for the ranking only."""
    units = {op.output: torch.from_numpy(read_by(op, kept.get(op.output))) for op in network.prunable}
    method, total = options.bounds_for(network.units_and_windows), network.units_and_windows
    if method == "estimate":
        left, goal = sum(int(mask.sum()) for mask in kept.values()), total - options.pruned_of(total)
        directions = DIRECTIONS // 4 if left > _ROUGH * goal else DIRECTIONS
        found = estimate_widths(network, *ball, units=units, directions=directions, start=start, budget=budget)
        return found.pre, found.start
    dtype = torch.float64 if options.double else torch.float32
    return compute_bounds(network, *ball, method, dtype=dtype, units=units, output=False, budget=budget).pre, None


def _cost(
    op: Activation | Windows | SubstitutedMax,
    box: Box,
    units: Array,
    chosen: Lines,
    rank: str,
    gradients: Mapping[str, Array] | None,
    *,
    rough: bool = False,
) -> tuple[Array, Array]:
    """Cost of the units (flat positions) of one activation, and which of them are unstable."""
    l, u = box[0][0].double(), box[1][0].double()
    if not isinstance(op, Activation):
        line = chosen.windows[op.output] if rank == "influence" else None
        gradient = None if gradients is None else gradients[op.output]
        return window_cost(original_windows(op), (l.numpy(), u.numpy()), units, line, gradient)
    is_open = ~op.affine_on(l, u).numpy().reshape(-1)[units]
    if rank == "width":
        return (u - l).numpy().reshape(-1)[units], is_open
    assert gradients is not None  # checked by `select`
    slope, offset = torch.from_numpy(chosen.slope[op.output]), torch.from_numpy(chosen.offset[op.output])
    # on estimated intervals an estimate is enough
    measure = partial(rough_error, op) if rough and curved(op) else op.line_error
    low, high = measure(l, u, slope, offset)
    error = torch.maximum(low.abs(), high.abs()).numpy().reshape(-1)[units]
    # the line of a stable unit is exact but for rounding, which must not order anything
    error[error <= 1e-6 * np.maximum(l.abs().numpy(), u.abs().numpy()).reshape(-1)[units]] = 0.0
    return error * gradients[op.output].reshape(-1)[units], is_open


def margin_gradients(
    network: Network, points: Array, label: int, target: int, *, budget: Budget | None = None
) -> dict[str, Array]:
    """`max over points |d (f_target - f_label) / d h_i|` for every unit's output h_i, in the activation's shape.

    0 where rounding chooses the value of a unit at one of the points: kept, it would not be the file's there, so a line goes first.

    Args:
        points: `(N, *input_shape)`.

    Raises:
        OutOfTime: the budget ended; it is looked at before every operator.
    """
    budget = budget or Budget()
    x = torch.as_tensor(points, dtype=torch.float64).requires_grad_()
    values = network.values(x, budget=budget)
    names = [op.output for op in network.prunable]
    if not names:
        return {}
    logits = values[network.output].flatten(1)
    margin = (logits[:, target] - logits[:, label]).sum()
    budget.check()
    grads = torch.autograd.grad(margin, [values[n] for n in names], allow_unused=True)
    found = {}
    for op, g in zip(network.prunable, grads, strict=True):
        found[op.output] = np.zeros(op.out_shape) if g is None else g.abs().amax(0).numpy()
        if isinstance(op, Activation):
            unsure = op.unsure(values[op.inputs[0]].detach()).any(0).numpy()
            found[op.output] = np.where(unsure, 0.0, found[op.output])
    return found
