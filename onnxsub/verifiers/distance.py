"""The distance of an anchor to the decision boundary: of the model itself, or by way of a local substitute."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

from onnxsub.errors import InputError, OptionError
from onnxsub.instance import Instance
from onnxsub.passes.attack import Attacker, AttackOptions, AttackResult
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.registry import check_verifier, external_tool
from onnxsub.verifiers.result import DistanceResult, Original, Progress
from onnxsub.verifiers.via import distance_via
from onnxsub.verifiers.whole import coarser, next_whole
from onnxsub.verifiers.witness import Witness

__all__ = ["DistanceOptions", "DistanceResult", "distance", "without_substitute"]


@dataclass(frozen=True)
class DistanceOptions:
    """How the distance is found.

    Attributes:
        limits: time, nodes, threads, seed and tolerance, for everything.
        milp: options of bounds and programs.
        bab: options of branch and bound.
        via: the substitute to answer on instead of the model; None: the model itself.
        attack: how the first upper bound is searched.
        verifier: `bab` (branch and bound), `milp`, or another tool as `onnxsub.verifiers.registry` names it.
        refine: with `via`, re-anchor the substitute at the better point that it led to, until nothing improves.
        rounds: how often at most.
        certify: with `via`, seconds that the search goes on for on the model itself, from the point that the substitute led to: it
            raises the certified lower end of `original`; None: bounds alone certify.
    """

    limits: Limits = field(default_factory=Limits)
    milp: MilpOptions = field(default_factory=MilpOptions)
    bab: BabOptions = field(default_factory=BabOptions)
    via: PruneOptions | None = None
    attack: AttackOptions = field(default_factory=AttackOptions)
    verifier: str = "bab"
    refine: bool = False
    rounds: int = 10
    certify: float | None = None

    def __post_init__(self) -> None:
        check_verifier(self.verifier)
        if self.refine and self.via is None:
            raise OptionError("--refine re-anchors a substitute; say which one with --via METHOD:GAMMA")
        if self.certify is not None:
            if self.via is None:
                raise OptionError("--certify goes on on the model after its substitute; say which one with --via METHOD:GAMMA")
            if not (math.isfinite(self.certify) and self.certify > 0):
                raise OptionError(f"--certify {self.certify:g} must be a positive number of seconds")
        if self.rounds < 1:
            raise InputError(f"rounds {self.rounds} must be at least 1")

    @property
    def exact(self) -> ExactOptions:
        """What an engine of ours is told."""
        return ExactOptions(self.limits, self.milp, self.bab)


def distance(
    query: Query,
    options: DistanceOptions | None = None,
    *,
    found: AttackResult | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """`d_bnd` of the query's model at its anchor as a bracket; with `via`, `d_hat` of the substitute and what it proves.

    The bracket holds at every moment: a limit or Ctrl-C ends the search with what is proved so far.

    Args:
        found: what an attack on this query found, in place of one of our own; so several distances share one attack.

    Raises:
        ContradictionError: a point was replayed nearer than what is proved.
    """
    options = options or DistanceOptions()
    if query.space.whole and not query.misclassified:
        options = replace(options, limits=coarser(options.limits))
        return next_whole(_distance(query, options, found, progress))
    return _distance(query, options, found, progress)


def _distance(
    query: Query, options: DistanceOptions, found: AttackResult | None, progress: Progress | None
) -> DistanceResult:
    """`distance` over the box of the domain."""
    tool = external_tool(options.verifier)
    if query.misclassified:
        return _misclassified(query, options)
    budget = options.limits.budget(tell=None if progress is None else partial(progress, 0.0, math.inf))
    if options.via is not None:
        answer = distance_via(query, options, budget, progress, tool, found)
        if answer is not None:
            return answer
    if tool is not None:
        check_readable(query.model, tool.reader)  # before the attack: it must not be for nothing
    if found is None:
        with budget.stage("attack"):
            part = budget.part(budget.remaining / 3)
            attacker = Attacker.of(query, options.attack, budget=part, progress=lambda share, text: budget.tell(text))
            try:
                found = attacker.run()
            except KeyboardInterrupt:
                budget.stop.set()
                found = attacker.result()
    if tool is not None:
        limits = options.limits.within(budget)
        result = distance_external(query.model, query, tool, limits, start=found.x_adv, progress=progress)
        result = replace(result, time_s={**result.time_s, **budget.times, "tool": result.time_s["tool"]})
    else:
        result = measure(Instance.of(query), options.exact, options.verifier, budget, start=found.x_adv, progress=progress)
    result = replace(result, head=query.json_head())
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
        options.exact.to_json(options.verifier), query.json_head(),
    )  # fmt: skip
