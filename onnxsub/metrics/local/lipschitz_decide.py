r"""LR(eps, L), decided shell by shell.

With `V(r) = max { |f(x) - f(x0)|_inf : x in B(r) }`, which does not fall as r grows,

    LR(eps, L)  <=>  V(r) <= L r  for all r <= eps  <=>  SR(r, L r)  for all r <= eps:

a point of B(r) that moves the output by more than `L r` moves it by more than L times its own distance. So `SR(r, L r')` with
`r' < r` proves the shell `r' <= |x - x0| <= r`, and what is left is a smaller ball. Shells come from linear bounds, where these do
not get on, from branch and bound; the ball round the anchor from a bound of the Jacobian.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.metrics.local.jacobian import lipschitz_bound
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.lipschitz_attack import attack_ratio
from onnxsub.metrics.local.search import BallJudge, Found, search
from onnxsub.metrics.local.standard import StandardRobustness
from onnxsub.metrics.local.verdict import LocalOptions, LocalVerdict
from onnxsub.ops.base import Array
from onnxsub.propagate import Bounds, Coefficients, compute_bounds, pull_back
from onnxsub.query import Query

__all__ = ["decide_lipschitz"]

_SHELL = 0.95  # linear bounds that leave more of a radius than this make way for branch and bound
_FIRST = 0.9  # inner radius, as a share of the outer one, of the first shell that branch and bound is asked about
_THINNEST = 0.999  # the largest such share
_ROOM = 0.3  # of what is left between a ratio that was reached and L, by which the next shell is to stay clear of it
_LEAST = 1e-9  # of eps: what is left of the radius when the search is given up
_SHELLS = 1000


def decide_lipschitz(query: Query, prop: LipschitzRobustness, options: LocalOptions, budget: Budget) -> LocalVerdict:
    """`proved`, `violated` with a replayed point whose ratio exceeds L beyond rounding, or `undecided`.

    Args:
        budget: in place of the time limit of `options`.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    began = time.perf_counter()
    times: dict[str, float] = {}
    witness: Array | None = None
    interrupted, proved, reason = False, False, ""
    try:
        witness = attack_ratio(query, prop, seed=options.seed, budget=budget.part(budget.remaining / 3))
        times["attack"] = time.perf_counter() - began
        if witness is None:
            proved, witness, reason = _shells(query, prop, options, budget)
    except KeyboardInterrupt:
        interrupted, reason = True, "interrupted before everything was decided"
    if witness is not None:
        reason = "a point of the ball, replayed with onnxruntime on the file"
    times["total"] = time.perf_counter() - began
    status = "violated" if witness is not None else "proved" if proved else "undecided"
    return LocalVerdict.of(
        query, prop, status, reason, verifier=options.verifier, time_s=times, witness=witness, interrupted=interrupted
    )


def _shells(query: Query, prop: LipschitzRobustness, options: LocalOptions, budget: Budget) -> tuple[bool, Array | None, str]:
    """Whether it is proved, a point that violates it, and why."""
    r, most, share = prop.eps, prop.lipschitz, _FIRST
    for shells in range(_SHELLS):
        low, high = query.space.ball(query.x0, r)
        try:
            budget.check()
            bounds = compute_bounds(query.network, low, high, budget=budget)
            bound = lipschitz_bound(query.network, query.x0.astype(np.float64), low, high, bounds, budget=budget)
        except OutOfTime:
            return False, None, _left(r, prop.eps, budget.why)
        if bound <= most:
            return True, None, f"the Jacobian on a ball of radius {r:.3g}, and {shells} shells outside of it"
        if r <= _LEAST * prop.eps:
            return False, None, _left(r, prop.eps, "the Jacobian's bound there exceeds L; a unit may be at its kink")
        inner = _inner(query, bounds, low, high, r, most)
        if inner <= _SHELL * r:
            r = inner
            continue
        share, found = _thinnest(query, prop, r, share, options, budget)
        if found.witness is not None:
            return False, found.witness, ""
        if not found.proved:
            return False, None, _left(r, prop.eps, found.reason)
        r = share * r
    return False, None, _left(r, prop.eps, f"{_SHELLS} shells")


def _left(r: float, eps: float, why: str) -> str:
    if r == eps:
        return f"nothing is proved: {why}"
    return f"proved for points farther than {r:.3g} from the anchor only: {why}"


def _inner(query: Query, bounds: Bounds, low: Array, high: Array, r: float, most: float) -> float:
    r"""A radius beyond which linear bounds on `B(r)` prove the property: per output and sign, `s (f - f(x0)) <= c \cdot d + k` with

    max over |d| = q of that <= k + n q,  n = sum of |c_i| over the inputs that can move that way.
    """
    network, m = query.network, query.network.classes
    rows = torch.cat([torch.eye(m), -torch.eye(m)]).double()
    with torch.no_grad():
        start = Coefficients(-rows.reshape(1, 2 * m, *network.output_shape))
        bound = pull_back(network, network.output, start, bounds.relaxations)
        c = -bound.coefficients.full(network.input_shape).flatten(2)[0].numpy()
        x0 = torch.as_tensor(query.x0.astype(np.float64))
        f0 = rows @ network.forward(x0[None])[0]
        at = -bound.lower_bias[0].numpy() + c @ x0.reshape(-1).numpy()
        size = np.abs(bound.lower_bias[0].numpy()) + np.abs(c) @ np.abs(x0.reshape(-1).numpy()) + np.abs(f0.numpy())
        k = np.maximum(at - f0.numpy(), 0.0) + 1e-10 * (1 + size)
        up, down = ((high - query.x0).reshape(-1) > 0), ((query.x0 - low).reshape(-1) > 0)
    n = np.where(c > 0, c * up, -c * down).sum(axis=1) * (1 + 1e-9)
    largest = np.maximum(k + n * r, 0.0)  # of s (f - f(x0)) on B(r)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_line = np.where(n < most, k / (most - n), math.inf)
        by_value = np.where(largest > 0, largest / most, 0.0)
    return float(np.minimum(by_line, by_value).max()) * (1 + 1e-9)


def _thinnest(
    query: Query, prop: LipschitzRobustness, r: float, share: float, options: LocalOptions, budget: Budget
) -> tuple[float, Found]:
    """A share t for which `SR(r, t L r)` is proved, and that proof; or what else was found: a point that violates the property.

    Args:
        share: to begin with.
    """
    judge = BallJudge(query, prop)
    while True:
        shell = StandardRobustness(r, share * prop.lipschitz * r)
        found = search(query, shell, shell.counterexamples(query), options, budget)
        if found.interrupted:
            raise KeyboardInterrupt
        if found.witness is None or judge.judge(found.witness).confirmed:
            return share, found
        moved, allowed = float(shell.measure(query, found.witness[None]).quantity[0]), prop.lipschitz * r
        reached = moved / allowed if allowed > 0 else math.inf
        if not reached < _THINNEST:
            what = f"a ratio of {reached:.4g} L is reached" if allowed > 0 else f"the output moves by {moved:.3g}"
            why = f"{what}, too near to L for what float32 inference can tell"
            return share, replace(found, witness=None, proved=False, reason=why)
        share = min(max(reached + _ROOM * (1 - reached), share), _THINNEST)
