"""One decision by another verifier, about the query's own model or about a substitute of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from onnxsub.errors import OptionError
from onnxsub.instance import Instance
from onnxsub.model import Model
from onnxsub.passes.bounds import check_eps
from onnxsub.query import Query
from onnxsub.verifiers.external.inquiry import Answer, Inquiry, inquire
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Tool
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.result import Progress, VerifyResult
from onnxsub.verifiers.witness import Witness

__all__ = ["decide_external"]

_STATUS = {UNSAT: "proved", SAT: "violated", UNKNOWN: "unknown"}


def decide_external(
    file: Model | str | Path,
    query: Query,
    eps: float,
    tool: Tool,
    timeout: float | None = None,
    *,
    progress: Progress | None = None,
) -> VerifyResult:
    """Whether the file keeps the class on `B(eps)`, as the tool says: no bounds and no attack of ours come first.

    `proved` is the tool's claim, and the result's `verifier` says whose. `violated` is a point that onnxruntime confirmed on the
    file; where that is a substitute, `original` says what the point is worth on the query's model.

    Args:
        file: what the tool is given.
        timeout: seconds for everything; None for none.

    Raises:
        InputError: `eps` is no radius, or the file is not one of that anchor.
        UnsupportedOperatorError: the tool does not read the file.
    """
    check_eps(eps)
    if timeout is not None and not timeout > 0:
        raise OptionError(f"--timeout {timeout} must be positive seconds")
    began = time.perf_counter()
    interrupted = False
    with inquire(file, query, tool) as inquiry:
        asked = time.perf_counter()
        if progress is not None:
            progress(0.0, eps, f"{tool.name}: is another class reached within {eps:.6g}?")
        try:
            answer = _at_anchor(inquiry) or inquiry.ask(eps, None if timeout is None else max(timeout - (asked - began), 0.01))
        except KeyboardInterrupt:
            interrupted = True
            answer = Answer(UNKNOWN, "interrupted before the answer", None, dict.fromkeys(query.targets, UNKNOWN))
        answered = time.perf_counter()
        witness, word, reason = answer.witness, answer.word, answer.reason
        if word == SAT and witness is not None and witness.margin < 0:
            # within rounding of a tie is not reached
            word = UNKNOWN
            reason += f": margin {witness.margin:.2g}, a tie within rounding; the radius is the distance itself, up to float32"
        own = inquiry.query is query
    original = None
    if witness is not None:
        witness = replace(witness, x=witness.x.reshape(query.x0.shape))
        if not own:
            original = Referee(Instance.of(query)).judge(witness.x[None])[0]
    targets = {t: _STATUS[w] if w != SAT or word == SAT else "unknown" for t, w in answer.targets.items()}
    end = time.perf_counter()
    return VerifyResult(
        _STATUS[word], reason, witness, (tuple(targets[t] for t in sorted(targets)),), tool.name, None, 0, inquiry.runs, False,
        interrupted, {"tool": answered - asked, "total": end - began}, {**tool.settings, "timeout": timeout}, targets=targets,
        eps=eps, head=query.json_head(), original=original,
    )  # fmt: skip


def _at_anchor(inquiry: Inquiry) -> Answer | None:
    """Where the file does not have that class at the anchor itself, nothing need be asked."""
    found: Witness = inquiry.referee.judge(inquiry.query.x0[None])[0]
    if found.margin < 0:
        return None
    targets = {t: SAT if t == found.label else UNKNOWN for t in inquiry.query.targets}
    return Answer(SAT, "the anchor itself is not of that class", replace(found, radius=0.0), targets)
