"""One decision: does the model keep its class on the ball of a given radius?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.bounds import check_eps
from onnxsub.query import Query
from onnxsub.verifiers.bab.decide import bab_decide
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.milp.decide import decide
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.registry import check_verifier, external_tool
from onnxsub.verifiers.result import Progress, VerifyResult, Witness

__all__ = ["VerifyOptions", "VerifyResult", "verify"]


@dataclass(frozen=True)
class VerifyOptions:
    """How the decision is made.

    Attributes:
        milp: options of the verifier, the time limit for everything among them.
        attack: how a counterexample is searched first.
        verifier: `bab` (branch and bound), `milp`, or another tool as `onnxsub.verifiers.registry` names it
            (neither bounds nor an attack of ours first).
        bab: options of branch and bound.
    """

    milp: MilpOptions = field(default_factory=MilpOptions)
    attack: AttackOptions = field(default_factory=AttackOptions)
    verifier: str = "bab"
    bab: BabOptions = field(default_factory=BabOptions)

    def __post_init__(self) -> None:
        check_verifier(self.verifier)


def verify(query: Query, eps: float, options: VerifyOptions | None = None, *, progress: Progress | None = None) -> VerifyResult:
    """`proved` where no point of `B(eps)` has another class or a tie, `violated` with a replayed point, else `unknown`.

    Bounds come first, then an attack limited to the ball, then the exact verifier per class that is left.

    Raises:
        InputError: `eps` is no radius.
    """
    check_eps(eps)
    options = options or VerifyOptions()
    start = time.perf_counter()
    tool = external_tool(options.verifier)
    if query.misclassified:
        margin, label = query.margins(query.x0[None])
        witness = Witness(query.x0, 0.0, int(label[0]), float(margin[0]), "strict" if margin[0] > 0 else "tie")
        return VerifyResult(
            "violated", f"the anchor itself is predicted as class {query.predicted}", eps, witness, options.verifier,
            options.milp.solver, {}, 0, 0, False, {"total": time.perf_counter() - start}, options.milp.to_json(), query.json_head(),
        )  # fmt: skip

    radius = query.space.within_reach(query.x0, eps)
    if tool is not None:
        result = decide_external(query.model, query, radius, tool, options.milp.timeout, progress=progress)
        return replace(result, eps=eps)

    def look(seconds: float | None) -> Array | None:
        return attack(query, replace(options.attack, upper=radius, timeout=seconds)).x_adv if eps > 0 else None

    asked = (query.network, query.x0, query.label, query.space, radius, options.milp)
    if options.verifier == "milp":
        result = decide(*asked, attack=look, replay=query.judged, progress=progress)
    else:
        result = bab_decide(*asked, options.bab, attack=look, replay=query.judged, progress=progress)
    return replace(result, eps=eps, head=query.json_head(), time_s={**result.time_s, "total": time.perf_counter() - start})
