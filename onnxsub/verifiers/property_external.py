"""A property by another verifier: one question per box, every point replayed, every proof a claim."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.model import save_model
from onnxsub.ops.base import Array
from onnxsub.properties.property import Property
from onnxsub.properties.rows import as_margin_network
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.external.tool import SAT, UNSAT, Job, Tool
from onnxsub.verifiers.property_state import PropertyState

__all__ = ["decide_by_tool"]


def decide_by_tool(state: PropertyState, tool: Tool) -> str:
    """Marks what the tool claims and keeps what replays; neither bounds nor a search of ours come first.

    Returns:
        What was said last, for the reason of the answer.

    Raises:
        UnsupportedOperatorError: the tool does not read the file.
    """
    check_readable(state.model, tool.reader)
    said = f"{tool.name} was not asked"
    with tempfile.TemporaryDirectory(prefix="onnxsub-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        path = folder / "model.onnx"
        # a copy, so that what is read is what was checked
        save_model(state.model.source, path)
        for number in range(len(state.question.cases)):
            if not state.running():
                break
            state.tell(f"{tool.name}: box {number + 1} of {len(state.question.cases)}")
            job = Job(path, _one_box(state.question, number), folder, None if math.isinf(state.remaining) else state.remaining)
            with state.stage("tool"):
                claim = tool.ask(job)
            state.runs += 1
            said = claim.reason
            for clause, word in enumerate(claim.clauses):
                if word == UNSAT:
                    state.prove(number, clause)
            if claim.word == SAT and claim.x is None:
                said += " without a point, rejected"
            elif claim.word == SAT and claim.x is not None:
                if _confirmed(state, number, claim.x):
                    return f"{said}, replayed on the file"
                said += ", rejected: its point does not satisfy the property on the file"
    return said


def _one_box(question: Property, number: int) -> Property:
    return replace(question, cases=(question.cases[number],))


def _confirmed(state: PropertyState, number: int, point: Array) -> bool:
    """Whether a point, or one near it, satisfies the property by replay.

    A solver's point lies on the boundary, where float32 may see either side: hence the short search from it.
    """
    if state.replay(number, point):
        return True
    rejected = state.rejected
    assert rejected is not None
    try:
        network = as_margin_network(state.network, state.rows[number])
    except UnsupportedOperatorError:
        return False  # a network that only the tool reads: nothing of ours can search it
    return state.confirm(number, network, state.rows[number].clauses[rejected.clause], point)
