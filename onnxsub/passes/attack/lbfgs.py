r"""The attack by box-constrained L-BFGS of Szegedy et al. 2014, section 4.1: a baseline, weaker than the attack of this package.

    min  c |r|_2^2 - log p_t(x0 + r),   x0 + r in the domain,   t the class with the second largest logit

by L-BFGS-B. c is bisected on a logarithmic scale for the largest one whose minimum has class t; every end is replayed on the file,
and the nearest confirmed point on the ray through it counts (`settle`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import Bounds, minimize

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import OptionError
from onnxsub.ops.base import Array
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.polish import AdversarialPoint, settle
from onnxsub.query import Query

__all__ = ["LbfgsOptions", "lbfgs_attack"]


@dataclass(frozen=True)
class LbfgsOptions:
    """How long it searches.

    Attributes:
        steps: of L-BFGS for one c. searches: values of c, each a tenth of the one before until one succeeds, the first a tenth of
            `largest`; then the middle of what is left.
    """

    steps: int = 50
    searches: int = 8
    largest: float = 100.0

    def __post_init__(self) -> None:
        if min(self.steps, self.searches) < 1 or not self.largest > 0:
            raise OptionError("the L-BFGS attack wants steps, searches and a largest c above 0; change them")


def lbfgs_attack(query: Query, options: LbfgsOptions | None = None, *, budget: Budget | None = None) -> AdversarialPoint | None:
    """The nearest confirmed point that it finds; None: it found none, or there was no time for one."""
    options, budget = options or LbfgsOptions(), budget or Budget()
    objective = Objective(query.network, query.x0, query.label, query.space, device="cpu", dtype=torch.float64, target=query.target)
    with torch.no_grad():
        start = objective.logits(torch.zeros((1, objective.n), dtype=torch.float64))[0]
    start[query.label] = -torch.inf
    target = int(start.argmax()) if query.target is None else query.target
    bounds = Bounds(objective.low.numpy(), objective.high.numpy())

    def cost(r: Array, c: float) -> tuple[float, Array]:
        budget.check()
        with torch.enable_grad():
            d = torch.from_numpy(r)[None].requires_grad_(True)
            value = c * (d**2).sum() - objective.logits(d).log_softmax(1)[0, target]
            (gradient,) = torch.autograd.grad(value, d)
        return value.item(), gradient[0].numpy()

    best: AdversarialPoint | None = None

    def search(c: float) -> bool:
        nonlocal best
        options_ = {"maxiter": options.steps, "maxfun": 4 * options.steps}
        zero = np.zeros(objective.n)
        r = minimize(cost, zero, args=(c,), jac=True, method="L-BFGS-B", bounds=bounds, options=options_).x
        found = settle(query.x0, r[None], query.space, query.margins, np.inf, budget)
        if found is not None and (best is None or found.radius < best.radius):
            best = found
        with torch.no_grad():
            return int(objective.logits(torch.from_numpy(r)[None])[0].argmax()) == target

    try:
        high, low = options.largest, None
        for _ in range(options.searches):
            c = high / 10 if low is None else float(np.sqrt(low * high))
            if search(c):
                low = c
            else:
                high = c
    except OutOfTime:
        pass  # what was found before counts
    return best
