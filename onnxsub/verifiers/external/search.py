"""The distance from decisions: radii are asked about until the bracket is closed.

The upper end is that of a replayed point, the first one an attack's. It is usually good, so the first question is whether anything
lies just below it; each point found is walked back to the boundary of the file and becomes the new upper end. While questions just
below it are answered `sat`, the step below grows sixteenfold, up to half the bracket. An `unsat` raises the lower end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from onnxsub.instance import Instance
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.passes.attack.walk import walk_back
from onnxsub.query import Query
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.external.inquiry import Inquiry, inquire
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Tool
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.result import DistanceResult, Progress
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness

__all__ = ["distance_external", "unanswered"]

_GROWTH = 16.0
_SHARE = 0.5  # of the remaining time that one question may take: a question nearer to the anchor is easier
_PATIENCE = 3  # questions in a row without an answer
_OURS = "the bracket is that of our bounds and the attack"


def distance_external(
    file: Model | str | Path,
    query: Query,
    tool: Tool,
    limits: Limits,
    *,
    start: Array | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket of the file's distance at the query's anchor, by decisions of a tool.

    The lower end is proved here as far as bounds go; above that it is the tool's claim, and `reason` says from where on. The upper
    end is that of a point that onnxruntime confirmed on the file. A tool that fails, or whose point does not replay, leaves a wider
    bracket.

    Args:
        file: what the tool is given: the query's own model, or a substitute of it.
        limits: time, seed and tolerance.
        start: a point to begin with, in the shape of the query's anchor; it counts only if it is confirmed on the file.

    Raises:
        InputError: an option, or a file that is not one of that anchor.
        UnsupportedOperatorError: the tool does not read the file.
    """
    with inquire(file, query, tool) as inquiry:
        bracket = Bracket(Instance.of(inquiry.query), Session(ExactOptions(limits)), progress)
        search = _Search(inquiry, bracket)
        known = bracket.at_anchor()
        if known is None:
            try:
                search.run(None if start is None else start.reshape(inquiry.query.x0.shape))
            except KeyboardInterrupt:
                bracket.budget.stop.set()
        return search.told(known or bracket.result(tool.name, search.claimed), query)


def unanswered(result: DistanceResult) -> bool:
    """Whether the tool had no part in a bracket: it was not asked, or none of its answers counted."""
    return result.reason is not None and _OURS in result.reason


class _Search:
    """Questions to a tool about an anchor.

    Attributes:
        claimed: lower ends as far as the tool can be believed, by class. No proof of ours: hence beside the bracket's own.
    """

    def __init__(self, inquiry: Inquiry, bracket: Bracket) -> None:
        self.claimed = dict.fromkeys(inquiry.query.targets, 0.0)
        self._inquiry = inquiry
        self._bracket = bracket
        self._certified = 0.0
        self._trouble = ""
        self._answers = 0

    @property
    def _lower(self) -> float:
        return min(min(self.claimed.values(), default=math.inf), self._bracket.upper)

    def run(self, start: Array | None) -> None:
        """Points first, then bounds of ours, then the tool."""
        b = self._bracket
        b.find_start(start)
        b.certify()
        self._certified = b.claims.lower
        self.claimed = {t: max(low, self._certified) for t, low in self.claimed.items()}
        self._narrow()

    def _narrow(self) -> None:
        """Questions until the bracket is closed, time is over, or the tool has nothing to say."""
        b = self._bracket
        step = b.tol / 2
        ceiling, silent = math.inf, 0
        while b.upper - self._lower > b.gap and b.running and silent < _PATIENCE:
            top = min(b.upper, b.reach)
            if math.isinf(b.upper) and self._lower >= b.reach:
                return
            radius = b.reach if math.isinf(b.upper) else max(top - step, (top + self._lower) / 2)
            if radius >= ceiling:  # no answer there, hence none is expected above
                radius = (self._lower + ceiling) / 2
            before = b.upper
            b.tell(f"{self._inquiry.tool.name}: is another class reached within {radius:.6g}?")
            word = self._ask(radius)
            if word == UNKNOWN:
                silent += 1
                ceiling = radius
                continue
            silent = 0
            if word == SAT:
                step = b.tol / 2 if before - b.upper > _GROWTH * step else step * _GROWTH

    def _ask(self, radius: float) -> str:
        """One question, its answer noted."""
        b = self._bracket
        left = b.budget.remaining
        with b.budget.stage("tool"):
            answer = self._inquiry.ask(radius, None if math.isinf(left) else max(_SHARE * left, 0.01))
        self._answers += any(word != UNKNOWN for word in (answer.word, *answer.targets.values()))
        for t, word in answer.targets.items():
            if word == UNSAT:
                self.claimed[t] = max(self.claimed[t], radius)
        if answer.witness is not None:
            self._take(answer.witness)
        if answer.word == SAT and answer.witness is not None:
            self._walk(answer.witness)
        elif answer.word == UNKNOWN:
            self._trouble = f"at radius {radius:.6g}: {answer.reason}"
        return answer.word

    def _take(self, witness: Witness) -> None:
        self._bracket.claims.reach(witness.label, witness, witness.radius)

    def _walk(self, witness: Witness) -> None:
        """From a point of the ball to the boundary."""
        q, referee = self._inquiry.query, self._inquiry.referee
        near = walk_back(
            q.network, q.x0, q.label, q.space, witness.x[None], referee.margins, budget=self._bracket.budget, target=q.target
        )
        if near is not None:
            self._take(referee.judge(near.x[None])[0])

    def _troubles(self) -> list[str]:
        """Why the bracket stayed open, as far as the tool has to do with it."""
        found = [self._trouble] if self._trouble else []
        runs = self._inquiry.runs
        if runs and not self._answers:
            found.insert(0, f"no answer in {runs} run{'s' * (runs > 1)}, {_OURS}")
        elif not runs and not self._bracket.budget.stop.is_set():
            found.insert(0, f"the time was over before {self._inquiry.tool.name} was asked, {_OURS}")
        return found

    def told(self, result: DistanceResult, query: Query) -> DistanceResult:
        """The answer with the tool's name, settings and what it has to say."""
        tool, limits = self._inquiry.tool, self._bracket.session.limits
        reasons = []
        if min(result.lower, self._bracket.reach) > self._certified:
            reasons.append(f"above {self._certified:.6g} the lower end is the claim of {tool.name}")
        if result.status == "bracket":
            reasons += self._troubles()
        witness = result.witness
        if witness is not None:
            witness = replace(witness, x=witness.x.reshape(query.x0.shape))
        settings = {**tool.settings, "timeout": limits.timeout, "tol": limits.tol}
        return replace(
            result, verifier=tool.name, solver=None, runs=self._inquiry.runs, witness=witness, settings=settings,
            head=query.json_head(), reason="; ".join(reasons) or None, time_s={"tool": 0.0, **result.time_s},
        )  # fmt: skip
