"""One decision about a VNN-LIB property: by an engine of ours, or by another tool."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnxsub.budget import Budget, OutOfTime
from onnxsub.lattice import whole_ends
from onnxsub.lower import lower
from onnxsub.model import Model
from onnxsub.properties.fit import check_fits, logit_clause
from onnxsub.properties.load import load_property
from onnxsub.properties.property import Property
from onnxsub.properties.rows import RowSet, row_set
from onnxsub.quantised import with_room
from onnxsub.query import check_execution
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
    model: Model,
    question: Property | str | os.PathLike[str],
    options: VerifyOptions | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> VerifyResult:
    """`proved` where no input satisfies the property, `violated` with a point that onnxruntime confirmed, else `unknown`.

    Proofs are about the network over the real numbers and the closed clauses (a strict row counts as satisfied at its boundary);
    a witness satisfies the property as it stands, strict rows strictly, with no tolerance. `proved` by another tool is its
    claim, and `reason` says so. Ctrl-C and the limits end the search with what is known.

    Args:
        question: or the file that it is read from, which is on the clock too.

    Raises:
        InputError: the property does not fit the model, or its file cannot be read.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows, or the tool does not read it.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    options = options or VerifyOptions()
    tool = external_tool(options.verifier)
    budget = options.limits.budget(tell=tell)
    head: dict[str, Any] = {"model": {"path": None if model.path is None else str(model.path), "sha256": model.sha256}}
    spec = None
    try:
        with budget.stage("read"):
            question = question if isinstance(question, Property) else load_property(question, budget=budget)
            check_fits(question, model)
            if tool is None:
                spec = property_spec(model, question, budget)
    except OutOfTime:
        return _unread(question, options, budget, head)
    head["property"] = {"path": question.where, "version": question.version, "clauses": question.clauses}
    if tool is not None:
        return replace(decide_by_tool(model, question, tool, budget), head=head)
    engine = engine_of(options.verifier)
    assert engine is not None
    assert spec is not None
    decision = Decision(spec, Session(options.exact, budget))
    work(decision, engine, options.attack)
    return concluded(decision, options.verifier, question=question, head=head)


def _unread(question: object, options: VerifyOptions, budget: Budget, head: Mapping[str, Any]) -> VerifyResult:
    """The answer where the budget ended before the question was read, or before it was put to the network."""
    read = question if isinstance(question, Property) else None
    where = str(question) if read is None else read.where
    what = "the property was not read" if read is None else f"{read.clauses} of {read.clauses} clauses are undecided"
    marks = () if read is None else tuple(("unknown",) * len(case.clauses) for case in read.cases)
    return VerifyResult(
        status="unknown", reason=f"{what}: {budget.why}", witness=None, clauses=marks, verifier=options.verifier, question=read,
        solver=options.milp.solver if external_tool(options.verifier) is None else None, nodes=0, runs=0,
        timed_out=not budget.stop.is_set(), interrupted=budget.stop.is_set(), time_s=budget.times,
        settings=options.exact.to_json(options.verifier),
        head={**head, "property": {"path": where, "version": read and read.version, "clauses": read and read.clauses}},
    )  # fmt: skip


def property_spec(model: Model, question: Property, budget: Budget | None = None) -> Spec:
    """The boxes and clauses of a property over the logits of a model, judged by onnxruntime on the file.

    Raises:
        UnsupportedOperatorError: an operator is not in the table.
        OutOfTime: the budget ended.
    """
    network = lower(model)  # what is not supported is refused before onnxruntime runs it
    runtime = Runtime(model, threads=1)
    boxes: list[SpecBox] = []
    held: list[SpecBox] = []  # those that an input of the file may lie in
    for number, case in enumerate(question.cases):
        if budget is not None:
            budget.check()
        ends = case.lower, case.upper
        rows = row_set(tuple(logit_clause(c, model, question.where) for c in case.clauses))
        whole = whole_ends(*ends, model.feed.dtype) if model.whole else ends
        holds = bool((whole[0] <= whole[1]).all())
        lower_end, upper_end = (end.reshape(model.input_shape) for end in (whole if holds else ends))
        judge = CaseJudge(runtime, case, number)
        boxes.append(SpecBox(lower_end, upper_end, rows if holds else _nowhere(rows), judge, judge.margins, whole=model.whole))
        held += boxes[-1:] if holds else []
    for box in held[:1]:
        with np.errstate(over="ignore"):
            middle = (box.lower / 2 + box.upper / 2).astype(np.float32)
        fed = bool(np.isfinite(middle).all())  # no float32 lies that far out
        if model.whole:
            middle = np.rint(middle)
            fed = fed and bool(((box.lower <= middle) & (middle <= box.upper)).all())
        if fed:
            check_execution(model, network, middle, runtime.logits(middle[None]), "the middle of the first box")
    low, high = np.minimum.reduce([b.lower for b in boxes]), np.maximum.reduce([b.upper for b in boxes])
    return Spec(with_room(network, low, high), tuple(boxes))


def _nowhere(rows: RowSet) -> RowSet:
    """As many clauses, which no output satisfies: of a box without a whole number, where the file takes no others."""
    return RowSet(np.zeros((1, rows.A.shape[1])), np.full(1, -1.0), ((0,),) * len(rows.clauses))
