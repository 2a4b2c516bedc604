"""One decision about a VNN-LIB property: by an engine of ours, or by another tool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnxsub.lower import lower
from onnxsub.model import Model
from onnxsub.properties.fit import check_fits, logit_clause
from onnxsub.properties.property import Property
from onnxsub.properties.rows import row_set
from onnxsub.quantised import with_room
from onnxsub.runtime import Runtime
from onnxsub.verifiers.conclude import concluded, work
from onnxsub.verifiers.decision import Decision, Spec, SpecBox
from onnxsub.verifiers.external.properties import decide_by_tool
from onnxsub.verifiers.judges import CaseJudge
from onnxsub.verifiers.registry import engine_of, external_tool
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.verify import VerifyOptions

__all__ = ["decide_property", "property_spec"]


def decide_property(
    model: Model, question: Property, options: VerifyOptions | None = None, *, tell: Callable[[str], None] | None = None
) -> VerifyResult:
    """`proved` where no input satisfies the property, `violated` with a point that onnxruntime confirmed, else `unknown`.

    Proofs are about the network over the real numbers and the closed clauses (a strict row counts as satisfied at its boundary);
    a witness satisfies the property as it stands, strict rows strictly, with no tolerance. `proved` by another tool is its
    claim, and `reason` says so. Ctrl-C and the limits end the search with what is known.

    Raises:
        InputError: the property does not fit the model.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows, or the tool does not read it.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    options = options or VerifyOptions()
    tool = external_tool(options.verifier)
    check_fits(question, model)
    head = {
        "model": {"path": None if model.path is None else str(model.path), "sha256": model.sha256},
        "property": {"path": question.where, "version": question.version, "clauses": question.clauses},
    }
    budget = options.limits.budget(tell=tell)
    if tool is not None:
        return replace(decide_by_tool(model, question, tool, budget), head=head)
    engine = engine_of(options.verifier)
    assert engine is not None
    decision = Decision(property_spec(model, question), Session(options.exact, budget))
    work(decision, engine, options.attack)
    return concluded(decision, options.verifier, question=question, head=head)


def property_spec(model: Model, question: Property) -> Spec:
    """The boxes and clauses of a property over the logits of a model, judged by onnxruntime on the file.

    Raises:
        UnsupportedOperatorError: an operator is not in the table.
    """
    network = lower(model)  # what is not supported is refused before onnxruntime runs it
    runtime = Runtime(model, threads=1)
    boxes = []
    for number, case in enumerate(question.cases):
        lower_end, upper_end = (end.reshape(model.input_shape) for end in (case.lower, case.upper))
        rows = row_set(tuple(logit_clause(c, model, question.where) for c in case.clauses))
        judge = CaseJudge(runtime, case, number)
        boxes.append(SpecBox(lower_end, upper_end, rows, judge, judge.margins))
    low, high = np.minimum.reduce([b.lower for b in boxes]), np.maximum.reduce([b.upper for b in boxes])
    return Spec(with_room(network, low, high), tuple(boxes))
