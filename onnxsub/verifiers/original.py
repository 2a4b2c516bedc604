"""What an answer on a substitute proves about the model: certificates, one function on a ball, and a search on the model itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnxsub.budget import Budget, OutOfTime
from onnxsub.instance import Instance
from onnxsub.ops.base import Array
from onnxsub.passes.attack.walk import walk_back
from onnxsub.passes.certify import certified_radius, keeps_its_pieces
from onnxsub.pruning.prune import Substitute
from onnxsub.query import Query
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import ExactOptions
from onnxsub.verifiers.proof import Claims
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import DistanceResult, Original, Progress
from onnxsub.verifiers.witness import Witness, rounding

__all__ = ["Known", "balls", "nearest", "proved_of_original", "searched"]


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the model apart from its substitute.

    Attributes:
        best: the nearest confirmed point.
        proved: a radius that plain bounds certify.
        direct: the answer of a search on the model; None: there was none.
    """

    best: Witness | None
    proved: float
    direct: DistanceResult | None = None


def balls(query: Query) -> Callable[[float], tuple[Array, Array]]:
    """Radius to the box of the anchor's ball inside the domain."""
    return lambda radius: query.space.ball(query.x0, radius)


def nearest(query: Query, referee: Referee, best: Witness | None, hint: Witness | None, budget: Budget) -> Witness | None:
    """The nearest confirmed point of the original: the best so far, the substitute's witness, or where a walk from that leads."""
    candidates = [] if best is None else [best]
    if hint is not None:
        candidates.append(referee.settle(hint.x, tol=rounding(hint, query.x0, query.space)))
        near = walk_back(
            query.network, query.x0, query.label, query.space, hint.x[None], query.margins, budget=budget, target=query.target
        )
        candidates += [] if near is None else referee.judge(near.x[None])
    return min((w for w in candidates if w.confirmed), key=lambda w: w.radius, default=None)


def searched(
    query: Query,
    exact: ExactOptions,
    verifier: str,
    best: Witness | None,
    budget: Budget,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket that an engine of ours finds on the model itself within a budget, from the best point that the substitute led to.

    Raises:
        ContradictionError: a point was replayed nearer than what is proved.
    """
    start = None if best is None else best.x
    return measure(Instance.of(query), exact, verifier, budget, start=start, progress=progress)


def proved_of_original(
    query: Query, g: Substitute, result: DistanceResult, known: Known, budget: Budget, *, claimed: bool, tol: float
) -> Original:
    """What the substitute's answer, and a search on the model where there was one, prove about the original.

    Lower end: the largest radius that bounds of the original certify, the substitute's lines and error intervals being a second
    chance; the substitute's own lower end where both are provably one function on that ball; what the
    search on the model proved.

    Args:
        claimed: the substitute's answer is another tool's word, which is no certificate.
        tol: of the question.

    Raises:
        ContradictionError: a point was replayed nearer than what is proved.
    """
    best, direct = known.best, known.direct
    upper = math.inf if best is None else best.radius
    ball = balls(query)
    referee = Referee(Instance.of(query))
    claims: Claims[int] = Claims(query.targets, referee.over_reals, lambda w: rounding(w, query.x0, query.space), tol)
    certain = not claimed and math.isfinite(result.upper) and result.status in ("exact", "bracket")
    exact = certain and _one_function(query, g, ball(result.upper), budget)
    reach = min(upper, query.space.reach(query.x0))
    again = certified_radius(
        query.network, ball, query.label, reach, target=query.target, budget=budget, substitute=g.network, start=known.proved
    )
    found = [] if best is None else [best]
    # not the lower ends of its targets: where float32 execution differs, its own lower end alone says so
    own = 0.0 if direct is None else direct.lower
    for t in claims.lowers:
        claims.prove(t, max(known.proved, again, own, result.lower if exact else 0.0))
    if direct is not None and direct.witness is not None:
        found.append(direct.witness)
    for witness in found:
        claims.reach(witness.label, witness, witness.radius)
    point = claims.best
    upper = math.inf if point is None else point.radius
    if claims.diverged is not None:
        return Original(0.0, upper, False, point)
    return Original(min(claims.lower, upper), upper, exact, point, 0 if direct is None else direct.nodes)


def _one_function(query: Query, g: Substitute, box: tuple[Array, Array], budget: Budget) -> bool:
    """Whether the substitute provably equals the model on a box, as far as the time allows to tell."""
    try:
        budget.check()
        return keeps_its_pieces(query.network, g.network, box, anchor=query.x0, budget=budget)
    except OutOfTime:
        return False
