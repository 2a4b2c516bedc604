"""A property by another verifier: one question per box, every point replayed, every proof a claim."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from onnxsub.budget import Budget
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import Model, save_model
from onnxsub.ops.base import Array
from onnxsub.properties.fit import logit_clause
from onnxsub.properties.property import Case, Property
from onnxsub.properties.rows import as_margin_network, row_set
from onnxsub.runtime import Runtime
from onnxsub.scratch import scratch
from onnxsub.verifiers.ascend import AttackPlan, ascend
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.external.tool import SAT, UNSAT, Job, Tool
from onnxsub.verifiers.judges import CaseJudge
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.witness import Witness

__all__ = ["decide_by_tool"]

_ROUND = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=8, steps=30)
"""The search round a point that float32 does not confirm."""


def decide_by_tool(model: Model, question: Property, tool: Tool, budget: Budget) -> VerifyResult:
    """Marks what the tool claims and keeps what replays; neither bounds nor a search of ours come first.

    Raises:
        UnsupportedOperatorError: the tool does not read the file.
    """
    check_readable(model, tool.reader)
    search = _Boxes(model, question, tool, budget)
    try:
        search.run()
    except KeyboardInterrupt:
        budget.stop.set()
    return search.result()


class _Boxes:
    """The boxes of a property, one after the other."""

    def __init__(self, model: Model, question: Property, tool: Tool, budget: Budget) -> None:
        self._model, self._question, self._tool, self._budget = model, question, tool, budget
        self._marks = [["unknown"] * len(case.clauses) for case in question.cases]
        self._witness: Witness | None = None
        self._rejected: Witness | None = None
        self._said = f"{tool.name} was not asked"
        self._runs = 0

    def run(self) -> None:
        runtime = Runtime(self._model, threads=1)
        with scratch() as folder:
            path = folder / "model.onnx"
            # a copy, so that what is read is what was checked
            save_model(self._model.form, path)
            for number, case in enumerate(self._question.cases):
                if self._budget.over or self._witness is not None:
                    break
                self._ask(number, case, CaseJudge(runtime, case, number), path)

    def _ask(self, number: int, case: Case, judge: CaseJudge, path: Path) -> None:
        budget, tool = self._budget, self._tool
        budget.tell(f"{tool.name}: box {number + 1} of {len(self._question.cases)}")
        left = None if math.isinf(budget.remaining) else max(budget.remaining, 0.01)
        job = Job(path, replace(self._question, cases=(case,)), path.parent, left)
        with budget.stage("tool"):
            claim = tool.ask(job)
        self._runs += 1
        self._said = claim.reason
        for clause, word in enumerate(claim.clauses):
            if word == UNSAT:
                self._marks[number][clause] = "proved"
        if claim.word == SAT and claim.x is None:
            self._said += " without a point, rejected"
        elif claim.word == SAT and claim.x is not None:
            found = self._confirmed(case, judge, claim.x)
            if found.confirmed:
                assert found.clause is not None
                self._witness, self._marks[number][found.clause] = found, "violated"
            else:
                self._rejected = found
                self._said += ", rejected: its point does not satisfy the property on the file"

    def _confirmed(self, case: Case, judge: CaseJudge, point: Array) -> Witness:
        """A point, or one near it, that satisfies the property by replay; else the point, rejected.

        A solver's point lies on the boundary, where float32 may see either side: hence the short search from it.
        """
        first = judge.judge(point)
        if first.confirmed or first.clause is None:
            return first
        try:
            rows = row_set(tuple(logit_clause(c, self._model, self._question.where) for c in case.clauses))
            network = as_margin_network(lower(self._model), rows)
        except UnsupportedOperatorError:
            return first  # a network that only the tool reads: nothing of ours can search it
        return ascend(network, (rows.clauses[first.clause],), judge, _ROUND, start=point, budget=self._budget) or first

    def result(self) -> VerifyResult:
        budget, tool = self._budget, self._tool
        total = self._question.clauses
        left = sum(word == "unknown" for marks in self._marks for word in marks)
        interrupted, timed_out = budget.stop.is_set(), False
        if self._witness is not None:
            status, reason = "violated", f"{self._said}, replayed on the file: confirmed by onnxruntime on the file"
        elif left == 0:
            status, reason = "proved", f"{self._said}: its claim, not proved here"
        else:
            timed_out = budget.over and not interrupted
            why = "interrupted" if interrupted else self._said
            status, reason = "unknown", f"{left} of {total} clauses are undecided: {why}"
        timeout = None if math.isinf(budget.deadline) else budget.deadline - budget.began
        return VerifyResult(
            status, reason, self._witness or self._rejected, tuple(tuple(m) for m in self._marks), tool.name, None, 0, self._runs,
            timed_out, interrupted, budget.times, {**tool.settings, "timeout": timeout}, question=self._question,
        )  # fmt: skip
