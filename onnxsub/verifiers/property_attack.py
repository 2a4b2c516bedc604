"""The search for a counterexample of a property: projected gradient ascent on the smallest row of a clause, in batches.

A counterexample counts only after onnxruntime confirmed it on the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties.property import Case
from onnxsub.runtime import Runtime

__all__ = ["AttackPlan", "Judge", "PropertyWitness", "ascend"]


@dataclass(frozen=True, eq=False)
class PropertyWitness:
    """A point and what onnxruntime says of it.

    Attributes:
        x: `(inputs,)`, float64, inside the box; the file is fed its cast to the model's input type.
        y: `(outputs,)`: the file's own output there.
        clause: the clause that is nearest to holding.
        margin: its smallest row `b - A y`.
        confirmed: whether it holds.
        path: where it was saved.
    """

    x: Array = field(repr=False)
    y: Array
    clause: int
    margin: float
    confirmed: bool
    path: str | None = None

    @property
    def kind(self) -> str:
        """`strict`, `tie` (a row is exactly 0) or `rejected`."""
        return "rejected" if not self.confirmed else "strict" if self.margin > 0 else "tie"


class Judge:
    """Replays points of one case on the file."""

    def __init__(self, runtime: Runtime, case: Case) -> None:
        self._runtime = runtime
        self._case = case
        self._dtype = runtime.model.input_dtype
        self.lower, self.upper = _inside(case, self._dtype)

    def judge(self, x: Array) -> PropertyWitness:
        """The verdict on a point of any shape, moved into the box and onto the model's number grid first."""
        fed = np.clip(np.asarray(x, dtype=np.float64).reshape(-1).astype(self._dtype), self.lower, self.upper)
        model = self._runtime.model
        y = self._runtime.raw(fed.reshape(1, *model.input_shape), one_by_one=True).reshape(-1).astype(np.float64)
        # where a side is narrower than the grid, the point named is the end of the box that is cast to `fed`
        point = np.clip(fed.astype(np.float64), self._case.lower, self._case.upper)
        least = [float(np.min(clause.margins(y))) for clause in self._case.clauses]
        holding = [k for k, clause in enumerate(self._case.clauses) if clause.holds(y)]
        best = max(holding or range(len(least)), key=lambda k: -math.inf if math.isnan(least[k]) else least[k])
        return PropertyWitness(point, y, best, least[best], bool(holding) and self._case.contains(point))


def _inside(case: Case, dtype: np.dtype[np.generic]) -> tuple[Array, Array]:
    """The smallest and the largest number of a type inside each side of the box; twice the nearest where there is none."""
    low, high = case.lower.astype(dtype), case.upper.astype(dtype)
    low = np.where(low.astype(np.float64) < case.lower, np.nextafter(low, dtype.type(np.inf)), low)
    high = np.where(high.astype(np.float64) > case.upper, np.nextafter(high, dtype.type(-np.inf)), high)
    none = low > high
    nearest = case.lower.astype(dtype)
    return np.where(none, nearest, low), np.where(none, nearest, high)


@dataclass(frozen=True)
class AttackPlan:
    """How hard to search.

    Attributes:
        rounds: batches at most, each with other starts.
        restarts: starts per clause and round.
        steps: gradient steps of a round.
        first, last: step length at the start and at the end of a round, as shares of half the box.
        momentum: of the running gradient sum.
        seed: of the starts.
    """

    rounds: int = 3
    restarts: int = 24
    steps: int = 60
    first: float = 0.6
    last: float = 0.005
    momentum: float = 0.7
    seed: int = 0


def ascend(
    network: Network,
    clauses: tuple[tuple[int, ...], ...],
    judge: Judge,
    plan: AttackPlan,
    *,
    start: Array | None = None,
    late: Callable[[], bool] = lambda: False,
) -> PropertyWitness | None:
    r"""Looks for a point at which all rows of one clause are `>= 0`; returns the first that is confirmed.

    Rounds with an even number climb the smallest row, the others the sum of the negative rows, which moves all of them at once.

    Args:
        network: from the input to the rows, as `as_margin_network` makes it.
        clauses: row numbers.
        start: a point to search round, instead of all over the box.
        late: asked at every step; True ends the search.
    """
    rows = network.classes
    shape = network.input_shape
    member = torch.zeros((len(clauses), rows), dtype=torch.bool)
    for k, clause in enumerate(clauses):
        member[k, list(clause)] = True
    low, high = (torch.as_tensor(np.array(e), dtype=torch.float32).reshape(shape) for e in (judge.lower, judge.upper))
    half = (high - low) / 2
    generator = torch.Generator().manual_seed(plan.seed)
    tried: set[bytes] = set()
    for number in range(plan.rounds):
        owner = torch.arange(len(clauses)).repeat_interleave(plan.restarts)
        x = _starts(len(owner), low, high, generator) if start is None else _near(len(owner), start, low, high, half, generator)
        running = torch.zeros_like(x)
        for step in range(plan.steps + 1):
            if late():
                return None
            x = x.detach().requires_grad_()
            values = network.forward(x)
            least = torch.where(member[owner], values, torch.inf).amin(1)
            found = _try_best(x.detach(), least.detach(), judge, tried)
            if found is not None or step == plan.steps:
                break
            goal = least if number % 2 == 0 else torch.where(member[owner], values.clamp(max=0), 0.0).sum(1)
            if not goal.requires_grad:
                return None  # the rows do not depend on the input
            (gradient,) = torch.autograd.grad(goal.sum(), x)
            size = gradient.flatten(1).abs().sum(1).clamp(min=1e-30).reshape(-1, *[1] * len(shape))
            running = plan.momentum * running + gradient / size
            length = plan.last + (plan.first - plan.last) * (1 + math.cos(math.pi * step / plan.steps)) / 2
            if start is not None:
                length *= 0.1
            x = torch.minimum(torch.maximum(x.detach() + length * half * running.sign(), low), high)
        if found is not None:
            return found
    return None


def _starts(count: int, low: Tensor, high: Tensor, generator: torch.Generator) -> Tensor:
    """The centre, uniform points and corners in turn."""
    share = torch.rand((count, *low.shape), generator=generator)
    share[1::3] = share[1::3].round()
    share[0] = 0.5
    return low + share * (high - low)


def _near(count: int, start: Array, low: Tensor, high: Tensor, half: Tensor, generator: torch.Generator) -> Tensor:
    """The given point, and points in a cloud round it."""
    centre = torch.as_tensor(np.asarray(start).reshape(low.shape), dtype=torch.float32)
    cloud = (torch.rand((count, *low.shape), generator=generator) * 2 - 1) * 0.1
    cloud[0] = 0.0
    return torch.minimum(torch.maximum(centre + cloud * half, low), high)


def _try_best(x: Tensor, least: Tensor, judge: Judge, tried: set[bytes]) -> PropertyWitness | None:
    """Has the point with the largest smallest row confirmed, where that row is not negative and the point is new."""
    best = int(least.argmax())
    if not float(least[best]) >= 0:
        return None
    point = x[best].numpy()
    key = point.tobytes()
    if key in tried:
        return None
    tried.add(key)
    witness = judge.judge(point)
    return witness if witness.confirmed else None
