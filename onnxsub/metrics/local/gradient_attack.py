r"""FGSM and PGD on a property: one step, or many, along the sign of the gradient from the anchor.

    fgsm   x = P(x0 + eps sign grad g(x0))                                     (Goodfellow et al. 2015)
    pgd    x <- P(x + eps / 16 sign grad g(x)), 40 steps, from x0 and from a random point of the ball  (Madry et al. 2018)

P projects into the ball and the domain. The goals g whose growth makes the property worse:

    cr, scr      log sum_{t != y} exp f_t - f_y      sr, lr   f_k and -f_k      confidence   log p_k and -log p_k

over the 32 classes k that lead at the anchor. lr is attacked at the radii eps, eps / 2, ..., eps / 128, since its worst point
may lie anywhere in the ball. What the steps come to is replayed with onnxruntime on the file; that none is found proves nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.errors import OptionError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.confidence import ConfidenceRobustness
from onnxsub.metrics.local.decide import settled_at_anchor
from onnxsub.metrics.local.extreme import Extreme, with_bound
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.search import BallJudge
from onnxsub.metrics.local.standard import StandardRobustness
from onnxsub.metrics.local.strong import StrongClassificationRobustness
from onnxsub.metrics.local.verdict import STOOD, LocalVerdict
from onnxsub.ops.base import Array
from onnxsub.query import Query

__all__ = ["GRADIENT_ATTACKS", "approximate_local", "check_gradient_attack", "gradient_attack"]

GRADIENT_ATTACKS = ("fgsm", "pgd")

_CLASSES = 32
_STEPS = 40
_STEP = 1 / 16  # of the radius
_RADII = 8  # of lr
_BLOCK = 2**24  # numbers of one forward pass
_WORK = 4e9  # multiplications of one forward pass: about half a second of one core in float64


def check_gradient_attack(option: str, method: str) -> None:
    """Raises OptionError for a name that is none."""
    if method not in GRADIENT_ATTACKS:
        raise OptionError(f"{option} {method!r} is unknown; choose one of {', '.join(GRADIENT_ATTACKS)}")


def gradient_attack(
    query: Query, prop: LocalProperty, method: str, *, seed: int = 0, budget: Budget | None = None
) -> LocalVerdict:
    """`violated` with a replayed point, `misclassified`, or `undecided` where the attack failed, as `attack_local` says it.

    Args:
        method: `fgsm` or `pgd`. seed: of the random points of `pgd`. budget: looked at before every step.

    Raises:
        OptionError: an unknown method.
        UnsupportedOperatorError: an operator of the model is not in the table.
    """
    check_gradient_attack("--attack", method)
    query.refuse_whole(f"property {prop.name}")
    clock, near = budget or Budget(), replace(prop, eps=query.space.within_reach(query.x0, prop.eps))
    early = settled_at_anchor(query, near, method, proves=False)
    if early is not None:
        return replace(early, prop=prop)
    began = time.perf_counter()
    best = BallJudge(query, near).best(_points(query, near, method, seed, clock))
    confirmed = best.confirmed
    why = "a point of the ball that the attack found" if confirmed else STOOD
    if not confirmed and clock.over:
        why = clock.why
    witness = best.x.reshape(query.x0.shape).astype(np.float32) if confirmed else None
    times = {"total": time.perf_counter() - began}
    status = "violated" if confirmed else "undecided"
    return replace(LocalVerdict.of(query, near, status, why, verifier=method, time_s=times, witness=witness), prop=prop)


def approximate_local(
    query: Query, prop: LocalProperty, method: str, *, seed: int = 0, budget: Budget | None = None
) -> Extreme:
    """The end of the extreme of a property's quantity that an attack gives; of the other end nothing is known.

    The quantities are those of `extreme_local`. Of `sr`, `lr` and `confidence` the point bounds the largest value from below, of
    `scr` the smallest from above.

    Returns:
        status `approximate` or `misclassified`; the end that is not known is infinite.

    Raises:
        OptionError: an unknown method. InputError: a property without a bound to move.
    """
    check_gradient_attack("--approximate", method)
    query.refuse_whole(f"property {prop.name}")
    with_bound(prop, prop.bound)  # refuses what `extreme_local` refuses
    if prop.needs_label and query.misclassified:
        return Extreme("misclassified", -math.inf, math.inf, math.nan, None, 0, False, query.wrong, {"total": 0.0})
    began, clock = time.perf_counter(), budget or Budget()
    near = replace(prop, eps=query.space.within_reach(query.x0, prop.eps))
    judge = BallJudge(query, near)
    points = np.concatenate([query.x0[None], _points(query, near, method, seed, clock)])
    fed = np.clip(points.reshape(len(points), -1), judge.lower, judge.upper).astype(np.float32).reshape(points.shape)
    reached = near.reached(query, fed)
    at = int(np.nan_to_num(-reached if near.smallest else reached, nan=-math.inf).argmax())
    end, value = float(reached[at]), float(near.measure(query, fed[at : at + 1]).quantity[0])
    lower, upper = (-math.inf, end) if near.smallest else (end, math.inf)
    why = f"{method} alone: {'at most' if near.smallest else 'at least'} this; nothing is proved of the other end"
    if clock.over:
        why += f" ({clock.why})"
    return Extreme("approximate", lower, upper, value, fed[at], 1, False, why, {"total": time.perf_counter() - began})


@dataclass(frozen=True, eq=False)
class _Climb:
    """What the steps go by.

    Attributes:
        lead: the classes that goals are about. budget: looked at before every step.
    """

    query: Query
    prop: LocalProperty
    lead: Tensor
    budget: Budget

    def goals(self, x: Tensor) -> Tensor:
        """Of points `(N, *shape)`: `(N, goals)`."""
        return _goals(self.prop, self.query.network.forward(x), self.query.label, self.lead)

    def run(self, x: Tensor, which: Tensor, ends: tuple[Tensor, Tensor], size: float, steps: int) -> Tensor:
        """The points at which the goals `which`, one for each row of `x`, were largest on the way; of one step, where it ended."""
        best, top = x.clone(), torch.full((len(x),), -math.inf, dtype=x.dtype)
        for step in range(steps + 1):
            with torch.enable_grad():
                leaf = x.clone().requires_grad_()
                goals = self.goals(leaf)[torch.arange(len(which)), which]
            values = goals.detach().nan_to_num(nan=-math.inf)
            better = (values > top) | (steps == 1)
            best[better], top[better] = x[better], values[better]
            if step == steps or self.budget.over or not goals.requires_grad:
                break
            (gradient,) = torch.autograd.grad(goals.sum(), leaf)
            x = torch.minimum(torch.maximum(x + size * gradient.nan_to_num().sign(), ends[0]), ends[1])
        return best


def _points(query: Query, prop: LocalProperty, method: str, seed: int, budget: Budget) -> Array:
    """What the steps come to, `(N, *shape)`, float64; at least the anchor."""
    network = query.network
    low, high = (torch.as_tensor(np.asarray(end, dtype=np.float64)) for end in query.space.ball(query.x0, prop.eps))
    x0 = torch.as_tensor(query.x0.astype(np.float64))
    with torch.no_grad():
        lead = network.forward(x0[None])[0].argsort(descending=True)[:_CLASSES]
        climb = _Climb(query, prop, lead, budget)
        count = climb.goals(x0[None]).shape[1]
    block = max(1, min(_BLOCK // sum(math.prod(s) for s in network.shapes.values()), int(_WORK // max(network.multiplications, 1))))
    generator = torch.Generator().manual_seed(seed)
    found = [x0[None]]
    for which in torch.split(torch.arange(count), block):
        for k in range(_RADII if isinstance(prop, LipschitzRobustness) else 1):
            if budget.over:
                break
            radius = prop.eps * 0.5**k
            ends = torch.maximum(x0 - radius, low), torch.minimum(x0 + radius, high)
            start = x0.expand(len(which), *x0.shape)
            found.append(climb.run(start, which, ends, radius, 1))
            if method == "pgd":
                cloud = ends[0] + (ends[1] - ends[0]) * torch.rand(start.shape, generator=generator, dtype=x0.dtype)
                found += [climb.run(begin, which, ends, radius * _STEP, _STEPS) for begin in (start, cloud)]
    return torch.cat(found).numpy()


def _goals(prop: LocalProperty, f: Tensor, label: int, lead: Tensor) -> Tensor:
    """What grows as the property gets worse, `(N, goals)`, of logits `(N, classes)`."""
    match prop:
        case ClassificationRobustness() | StrongClassificationRobustness():
            others = torch.arange(f.shape[1]) != label
            return (f[:, others].logsumexp(1) - f[:, label])[:, None]
        case StandardRobustness() | LipschitzRobustness():
            return torch.cat([f[:, lead], -f[:, lead]], dim=1)
        case ConfidenceRobustness():
            p = f.log_softmax(1)[:, lead]
            return torch.cat([p, -p], dim=1)
        case _:
            raise ValueError(f"nothing says what an attack on property {prop.name} climbs; add it here")
