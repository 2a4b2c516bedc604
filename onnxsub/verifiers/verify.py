"""One decision: does the model keep its class on the ball of a given radius?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from onnxsub.instance import Instance
from onnxsub.passes.bounds import check_eps
from onnxsub.query import Query
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.conclude import concluded, work
from onnxsub.verifiers.decision import Decision, ball_spec
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.registry import check_verifier, engine_of, external_tool
from onnxsub.verifiers.result import Progress, VerifyResult
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness

__all__ = ["VerifyOptions", "VerifyResult", "decide_ball", "verify"]


@dataclass(frozen=True)
class VerifyOptions:
    """How a decision is made.

    Attributes:
        limits: time, nodes, threads, seed.
        milp: options of bounds and programs.
        bab: options of branch and bound.
        attack: how a counterexample is searched, beside the attack that is free to go beyond the ball.
        verifier: `bab` (branch and bound), `milp`, or another tool as `onnxsub.verifiers.registry` names it
            (neither bounds nor an attack of ours first).
    """

    limits: Limits = field(default_factory=Limits)
    milp: MilpOptions = field(default_factory=MilpOptions)
    bab: BabOptions = field(default_factory=BabOptions)
    attack: AttackPlan = field(default_factory=AttackPlan)
    verifier: str = "bab"

    def __post_init__(self) -> None:
        check_verifier(self.verifier)

    @property
    def exact(self) -> ExactOptions:
        """What an engine of ours is told."""
        return ExactOptions(self.limits, self.milp, self.bab)


def verify(query: Query, eps: float, options: VerifyOptions | None = None, *, progress: Progress | None = None) -> VerifyResult:
    """`proved` where no point of `B(eps)` has another class or a tie, `violated` with a replayed point, else `unknown`.

    The proof is about the network over the real numbers. Before it is told, points of the ball are replayed by onnxruntime: one of
    another class among them makes the answer `violated`.

    Raises:
        InputError: `eps` is no radius.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    check_eps(eps)
    options = options or VerifyOptions()
    tool = external_tool(options.verifier)
    if query.misclassified:
        margin, label = query.margins(query.x0[None])
        kind = "strict" if margin[0] > 0 else "tie"
        witness = Witness(query.x0, 0.0, int(label[0]), float(margin[0]), kind)
        result = _at_anchor(witness, eps, options, query.wrong, query.targets)
    elif tool is not None:
        radius = query.space.within_reach(query.x0, eps)
        result = decide_external(query.model, query, radius, tool, options.limits.timeout, progress=progress)
        result = replace(result, eps=eps)
    else:
        result = decide_ball(Instance.of(query), eps, options, progress=progress)
    return replace(result, head=query.json_head())


def decide_ball(
    instance: Instance, eps: float, options: VerifyOptions | None = None, *, progress: Progress | None = None
) -> VerifyResult:
    """`verify` for a network in memory, by an engine of ours.

    Args:
        instance: without a `replay`, the network itself in float32 judges.
        progress: told 0, the radius and a line of text.

    Raises:
        InputError: `eps` is no radius.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    check_eps(eps)
    options = options or VerifyOptions()
    instance = instance.judged
    spec = ball_spec(instance, instance.space.within_reach(instance.x0, eps))
    at_anchor = spec.boxes[0].judge.judge(instance.x0)
    if at_anchor.confirmed:
        return _at_anchor(replace(at_anchor, radius=0.0), eps, options, "the anchor itself is not of that class", instance.targets)
    tell = None if progress is None else partial(progress, 0.0, eps)
    session = Session(options.exact, options.limits.budget(tell=tell))
    decision = Decision(spec, session)
    engine = engine_of(options.verifier)
    assert engine is not None
    work(decision, engine, options.attack)
    result = concluded(decision, options.verifier, eps=eps)
    targets = dict(zip(instance.targets, result.clauses[0], strict=True))
    return replace(result, targets=targets)


def _at_anchor(
    witness: Witness, eps: float, options: VerifyOptions, reason: str, targets: tuple[int, ...]
) -> VerifyResult:
    """The answer that the anchor alone gives."""
    words: dict[int, str] = dict.fromkeys(targets, "unknown")
    words[witness.label] = "violated"
    more: dict[str, Any] = {"eps": eps, "targets": words}
    return VerifyResult(
        "violated", reason, witness, (tuple(words.values()),), options.verifier,
        options.milp.solver, 0, 0, False, False, {"total": 0.0}, options.exact.to_json(options.verifier), **more,
    )  # fmt: skip
