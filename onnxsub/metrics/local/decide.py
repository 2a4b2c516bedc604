"""One decision about a local property at one anchor, or one attack on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.metrics.local.base import Counterexamples, LocalProperty
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.lipschitz_attack import attack_ratio
from onnxsub.metrics.local.lipschitz_decide import decide_lipschitz
from onnxsub.metrics.local.search import BallJudge, Found, hunt, search
from onnxsub.metrics.local.verdict import STOOD, LocalOptions, LocalVerdict
from onnxsub.ops.base import Array
from onnxsub.passes.attack import attack
from onnxsub.query import Query
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.registry import external_tool
from onnxsub.verifiers.verify import VerifyOptions, verify

__all__ = ["attack_local", "check_able", "decide_local", "settled_at_anchor"]


def decide_local(
    query: Query, prop: LocalProperty, options: LocalOptions | None = None, *, budget: Budget | None = None
) -> LocalVerdict:
    """Whether a property holds at the anchor of a query.

    `proved`: by bounds, branch and bound or programs, for the network over the real numbers (another tool's claim is named so
    in `reason`). `violated`: a float32 point of the ball that onnxruntime confirmed on the original file. `misclassified`:
    the property speaks of the class of the anchor, which is not of that class. Else `undecided`, and `reason` says why.

    Args:
        budget: of what the decision belongs to; `options.timeout` is a part of it.

    Raises:
        InputError: the verifier cannot decide this property.
        UnsupportedOperatorError: an operator has no bounds.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    query.refuse_whole(f"property {prop.name}")
    options = options or LocalOptions()
    clock = options.budget(budget)
    return _within_reach(query, prop, lambda near: _decide(query, near, options, clock))


def _within_reach(query: Query, prop: LocalProperty, answer: Callable[[LocalProperty], LocalVerdict]) -> LocalVerdict:
    """The answer about the same ball with a radius that does not go beyond the domain, under the radius that was asked for."""
    near = replace(prop, eps=query.space.within_reach(query.x0, prop.eps))
    return replace(answer(near), prop=prop)


def _decide(query: Query, prop: LocalProperty, options: LocalOptions, budget: Budget) -> LocalVerdict:
    early = settled_at_anchor(query, prop, options.verifier)
    if early is not None:
        return early
    if isinstance(prop, ClassificationRobustness):
        return _by_verify(query, prop, options, budget)
    if external_tool(options.verifier) is not None:
        return _by_tool(query, prop, options, budget)
    if isinstance(prop, LipschitzRobustness):
        return decide_lipschitz(query, prop, options, budget)
    what = prop.counterexamples(query)
    assert what is not None
    check_able(prop, what, options)
    return _answer(query, prop, options, lambda: search(query, prop, what, options, budget))


def attack_local(
    query: Query, prop: LocalProperty, options: LocalOptions | None = None, *, budget: Budget | None = None
) -> LocalVerdict:
    """The attack alone: `violated` with a replayed point, `misclassified`, or `undecided` where it failed (constraint security)."""
    query.refuse_whole(f"property {prop.name}")
    options = options or LocalOptions()
    clock = options.budget(budget)
    return _within_reach(query, prop, lambda near: _attack(query, near, options, clock))


def _attack(query: Query, prop: LocalProperty, options: LocalOptions, clock: Budget) -> LocalVerdict:
    early = settled_at_anchor(query, prop, "attack", proves=False)
    if early is not None:
        return early
    began = time.perf_counter()

    def look() -> Found:
        point: Array | None
        if isinstance(prop, ClassificationRobustness):
            point = _class_attack(query, prop, options, clock)
        elif isinstance(prop, LipschitzRobustness):
            point = attack_ratio(query, prop, seed=options.seed, budget=clock)
        else:
            what = prop.counterexamples(query)
            assert what is not None
            point = hunt(query, prop, what, options, clock).witness
        missed = clock.why if clock.over else STOOD
        reason = missed if point is None else "a point of the ball that the attack found"
        return Found(False, point, reason, False, {"attack": time.perf_counter() - began})

    return _answer(query, prop, options, look, "attack")


def settled_at_anchor(query: Query, prop: LocalProperty, verifier: str, *, proves: bool = True) -> LocalVerdict | None:
    """What the anchor alone decides; None: nothing.

    Args:
        proves: whether `proved` is an answer.

    Raises:
        InputError: the property speaks of scores, and the file's last tensor holds some.
    """
    prop.check_logits(query)
    if prop.needs_label and query.misclassified:
        return LocalVerdict.of(query, prop, "misclassified", query.wrong, verifier=verifier, time_s={"total": 0.0})
    if prop.measure(query, query.x0[None]).violated[0]:
        why = "the anchor itself violates it"
        return LocalVerdict.of(query, prop, "violated", why, verifier=verifier, time_s={"total": 0.0}, witness=query.x0)
    if prop.eps == 0 and proves:
        why = "the ball is the anchor alone, which satisfies it"
        return LocalVerdict.of(query, prop, "proved", why, verifier=verifier, time_s={"total": 0.0})
    return None


def _answer(
    query: Query, prop: LocalProperty, options: LocalOptions, work: Callable[[], Found], verifier: str | None = None
) -> LocalVerdict:
    began = time.perf_counter()
    found = work()
    status = "violated" if found.witness is not None else "proved" if found.proved else "undecided"
    times = {**found.times, "total": time.perf_counter() - began}
    return LocalVerdict.of(
        query, prop, status, found.reason, verifier=verifier or options.verifier, time_s=times, witness=found.witness,
        interrupted=found.interrupted,
    )  # fmt: skip


def check_able(prop: LocalProperty, what: Counterexamples, options: LocalOptions) -> None:
    """Raises InputError where the verifier is not up to the network behind the logits."""
    if options.verifier == "milp" and any(not op.piecewise_linear for op in what.network.activations):
        raise InputError(
            f"property {prop.name} of this network is not piecewise linear, so milp cannot decide it; choose --verifier bab"
        )


def _by_verify(query: Query, prop: LocalProperty, options: LocalOptions, budget: Budget) -> LocalVerdict:
    """CR, as `onnxsub verify --eps` decides it."""
    exact = options.exact
    chosen = VerifyOptions(exact.limits.within(budget), exact.milp, exact.bab, options.attack, options.verifier)
    result = verify(query, prop.eps, chosen)
    witness = None
    if result.status == "violated":
        assert result.witness is not None
        witness = result.witness.x
        # other tools and solvers may stand on the rim of the ball
        point = BallJudge(query, prop).judge(witness)
        witness = point.x.reshape(query.x0.shape).astype(np.float32) if point.confirmed else None
    status = {"proved": "proved", "violated": "violated"}.get(result.status, "undecided")
    reason = result.reason
    if result.status == "violated" and witness is None:
        status, reason = "undecided", "a point that violates it was found just outside of the ball only"
    return LocalVerdict.of(
        query, prop, status, reason, verifier=options.verifier, time_s=result.time_s, witness=witness,
        interrupted=result.interrupted,
    )  # fmt: skip


def _by_tool(query: Query, prop: LocalProperty, options: LocalOptions, budget: Budget) -> LocalVerdict:
    """Asks another tool about the VNN-LIB form; its point is taken back to un-normalised units and replayed."""
    began = time.perf_counter()
    limits = options.exact.limits.within(budget)
    result = decide_property(query.model, prop.to_property(query), VerifyOptions(limits, verifier=options.verifier))
    status, witness, reason = {"proved": "proved"}.get(result.status, "undecided"), None, result.reason
    if result.witness is not None:
        x = result.witness.x.reshape(query.x0.shape)
        ms = query.space.mean_std(query.model.input_shape)
        point = BallJudge(query, prop).judge(x if ms is None else x * ms[1] + ms[0])
        if point.confirmed:
            status, witness = "violated", point.x.reshape(query.x0.shape).astype(np.float32)
        elif status == "proved" or result.status == "violated":
            status, reason = "undecided", f"its point does not violate the property by replay ({reason})"
    times = {**result.time_s, "total": time.perf_counter() - began}
    return LocalVerdict.of(
        query, prop, status, reason, verifier=options.verifier, time_s=times, witness=witness, interrupted=result.interrupted
    )


def _class_attack(query: Query, prop: LocalProperty, options: LocalOptions, budget: Budget) -> Array | None:
    if prop.eps == 0:
        return None
    found = attack(query, replace(options.search(), upper=prop.eps), budget=budget).x_adv
    if found is None:
        return None
    point = BallJudge(query, prop).judge(found)
    return point.x.reshape(query.x0.shape).astype(np.float32) if point.confirmed else None
