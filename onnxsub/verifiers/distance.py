"""The distance of an anchor to the decision boundary: of the model itself, or by way of a local substitute."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from onnxsub.errors import InputError
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.prune import PruneOptions
from onnxsub.query import Query
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.registry import check_verifier, external_tool
from onnxsub.verifiers.result import DistanceResult, Original, Progress, Witness
from onnxsub.verifiers.via import distance_via, own_distance

__all__ = ["DistanceOptions", "DistanceResult", "distance", "without_substitute"]


@dataclass(frozen=True)
class DistanceOptions:
    """How the distance is found.

    Attributes:
        milp: options of the verifier, the time limit for everything among them.
        via: the substitute to answer on instead of the model; None: the model itself.
        attack: how the first upper bound is searched.
        verifier: `bab` (branch and bound), `milp`, or another tool as `onnxsub.verifiers.registry` names it.
        bab: options of branch and bound; what is common to both of our verifiers stands in `milp`.
        refine: with `via`, re-anchor the substitute at the better point that it led to, until nothing improves.
        rounds: how often at most.
    """

    milp: MilpOptions = field(default_factory=MilpOptions)
    via: PruneOptions | None = None
    attack: AttackOptions = field(default_factory=AttackOptions)
    verifier: str = "bab"
    bab: BabOptions = field(default_factory=BabOptions)
    refine: bool = False
    rounds: int = 10

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.refine and self.via is None:
            raise InputError("--refine re-anchors a substitute; say which one with --via METHOD:GAMMA")
        if self.rounds < 1:
            raise InputError(f"rounds {self.rounds} must be at least 1")


def distance(
    query: Query,
    options: DistanceOptions | None = None,
    *,
    found: AttackResult | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """`d_bnd` of the query's model at its anchor as a bracket; with `via`, `d_hat` of the substitute and what it proves.

    The bracket holds at every moment: a time limit or Ctrl-C ends the search with what is proved so far.

    Args:
        found: what an attack on this query found, in place of one of our own; so several distances share one attack.
    """
    options = options or DistanceOptions()
    start = time.perf_counter()
    tool = external_tool(options.verifier)
    if query.misclassified:
        return _misclassified(query, options)
    limit = options.milp.timeout

    def clock() -> float:
        return math.inf if limit is None else limit - (time.perf_counter() - start)

    if options.via is not None:
        answer = distance_via(query, options, options.via, clock, progress, tool, found)
        if answer is not None:
            return answer
    if tool is not None:
        check_readable(query.model, tool.reader)  # before the attack: it must not be for nothing
    attacking = options.attack if limit is None else replace(options.attack, timeout=max(limit / 3, 0.01))
    found = attack(query, attacking) if found is None else found
    attacked = time.perf_counter() - start
    milp = options.milp if limit is None else replace(options.milp, timeout=max(clock(), 0.01))
    if tool is not None:
        result = distance_external(
            query.model, query, tool, milp.timeout, tol=milp.tol, start=found.x_adv, seed=milp.seed, progress=progress
        )
    else:
        result = own_distance(
            options, query.network, query.x0, query.label, query.space, milp, start=found.x_adv, replay=query.judged,
            progress=progress,
        )  # fmt: skip
    times = {**result.time_s, "attack": attacked, "total": time.perf_counter() - start}
    result = replace(result, head=query.json_head(), time_s=times)
    return result if options.via is None else without_substitute(result, proved=tool is None)


def without_substitute(result: DistanceResult, *, proved: bool) -> DistanceResult:
    """The model's own answer where a substitute was asked for and none could be built: the attack gave no radius to prune for.

    Args:
        proved: whether the lower end was proved here; the claim of another tool does not count for the original.
    """
    witness = result.witness if result.witness is not None and result.witness.confirmed else None
    exact = proved and result.status in ("exact", "none")
    original = Original(result.lower if proved else 0.0, result.upper, exact, witness)
    why = "the attack found no adversarial point: answered on the model itself"
    return replace(result, original=original, reason=why if result.reason is None else f"{why}; {result.reason}")


def _misclassified(query: Query, options: DistanceOptions) -> DistanceResult:
    margin, label = query.margins(query.x0[None])
    witness = Witness(query.x0, 0.0, int(label[0]), float(margin[0]), "strict" if margin[0] > 0 else "tie")
    return DistanceResult(
        "misclassified", 0.0, 0.0, witness, options.verifier, options.milp.solver, {}, 0, 0, False, {"total": 0.0},
        options.milp.to_json(), query.json_head(),
    )  # fmt: skip
