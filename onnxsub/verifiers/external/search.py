"""The distance from decisions: radii are asked about until the bracket is closed.

The upper end is that of a replayed point, the first one an attack's. It is usually good, so the first question is whether anything
lies just below it; each point found is walked back to the boundary of the file and becomes the new upper end. While questions just
below it are answered `sat`, the step below grows sixteenfold, up to half the bracket. An `unsat` raises the lower end.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxsub.budget import Budget
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.passes.certify import certified_radius
from onnxsub.passes.walk_back import walk_back
from onnxsub.query import Query
from onnxsub.verifiers.external.inquiry import Inquiry, inquire
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Tool
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.proof import Claims
from onnxsub.verifiers.result import DistanceResult, Progress, TargetResult
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
        search = _Search(inquiry, limits, limits.budget(), progress)
        try:
            search.run(start)
        except KeyboardInterrupt:
            search.budget.stop.set()
        return search.result(query)


def unanswered(result: DistanceResult) -> bool:
    """Whether the tool had no part in a bracket: it was not asked, or none of its answers counted."""
    return result.reason is not None and _OURS in result.reason


class _Search:
    """`lowers[t] <= d_t` as far as the tool can be believed, and `d <= best.radius`."""

    def __init__(self, inquiry: Inquiry, limits: Limits, budget: Budget, progress: Progress | None) -> None:
        self.budget = budget
        self.inquiry = inquiry
        self.query = inquiry.query
        self.limits = limits
        self.tol = limits.tol
        self.reach = self.query.space.reach(self.query.x0)
        referee = inquiry.referee
        self.claims: Claims[int] = Claims(self.query.targets, referee.over_reals, lambda w: max(self.tol, 1e-5 * w.radius))
        # what a tool claims is no proof of ours: it is kept apart
        self.claimed = dict.fromkeys(self.query.targets, 0.0)
        self.certified = 0.0
        self.trouble = ""
        self.answers = 0
        self.at_anchor = ""
        self._progress = progress

    @property
    def upper(self) -> float:
        return self.claims.upper

    @property
    def lower(self) -> float:
        return min(min(self.claimed.values(), default=math.inf), self.upper)

    def tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def run(self, start: Array | None) -> None:
        q = self.query
        anchor = self.inquiry.referee.judge(q.x0[None])[0]
        if anchor.margin >= 0:
            self.claims.reach(anchor.label, replace(anchor, radius=0.0), 0.0)
            self.at_anchor = "misclassified" if anchor.margin > 0 else "exact"
            return
        self.first_point(start)
        self.certified = certified_radius(
            q.network, lambda r: q.space.ball(q.x0, r), q.label, min(self.upper, self.reach),
            tol=0.05, stop=lambda: self.budget.over,
        )  # fmt: skip
        self.raise_lower(self.certified)
        self.tell("bounds")
        self.narrow()

    def first_point(self, start: Array | None) -> None:
        """The given point, else a short attack."""
        q = self.query
        if start is not None:
            self.accept(self.inquiry.referee.settle(np.asarray(start).reshape(q.x0.shape), tol=self.tol / 4))
        if self.claims.best is None and self.budget.running:
            left = self.budget.remaining
            limit = None if math.isinf(left) else max(left / 3, 1e-3)
            options = AttackOptions(seed=self.limits.seed, timeout=limit)
            found = attack_network(q.network, q.x0, q.label, q.space, options, self.inquiry.referee.margins)
            if found.x_adv is not None:
                self.accept(self.inquiry.referee.settle(found.x_adv, tol=self.tol / 4))
        self.tell("attack")

    def narrow(self) -> None:
        """Questions until the bracket is closed, time is over, or the tool has nothing to say."""
        step = self.tol / 2
        ceiling, silent = math.inf, 0
        while self.upper - self.lower > self.tol and self.budget.running and silent < _PATIENCE:
            top = min(self.upper, self.reach)
            if math.isinf(self.upper) and self.lower >= self.reach:
                return
            radius = self.reach if math.isinf(self.upper) else max(top - step, (top + self.lower) / 2)
            if radius >= ceiling:  # no answer there, hence none is expected above
                radius = (self.lower + ceiling) / 2
            before = self.upper
            self.tell(f"{self.inquiry.tool.name}: is another class reached within {radius:.6g}?")
            word = self.ask(radius)
            if word == UNKNOWN:
                silent += 1
                ceiling = radius
                continue
            silent = 0
            if word == SAT:
                step = self.tol / 2 if before - self.upper > _GROWTH * step else step * _GROWTH

    def ask(self, radius: float) -> str:
        """One question, its answer noted."""
        left = self.budget.remaining
        with self.budget.stage("tool"):
            answer = self.inquiry.ask(radius, None if math.isinf(left) else max(_SHARE * left, 0.01))
        self.answers += any(word != UNKNOWN for word in (answer.word, *answer.targets.values()))
        for t, word in answer.targets.items():
            if word == UNSAT:
                self.claimed[t] = max(self.claimed[t], radius)
        if answer.word == SAT and answer.witness is not None:
            self.accept(answer.witness)
            self.walk(answer.witness)
        elif answer.word == UNKNOWN:
            self.trouble = f"at radius {radius:.6g}: {answer.reason}"
            if answer.witness is not None and self.claims.rejected is None:
                self.claims.rejected = answer.witness
        return answer.word

    def walk(self, witness: Witness) -> None:
        """From a point of the ball to the boundary."""
        q = self.query
        near = walk_back(q.network, q.x0, q.label, q.space, witness.x[None], self.inquiry.referee.margins)
        if near is not None:
            self.accept(self.inquiry.referee.judge(near.x[None])[0])

    def accept(self, witness: Witness) -> None:
        if witness.confirmed:
            self.claims.reach(witness.label, witness, witness.radius)

    def raise_lower(self, radius: float) -> None:
        for t in self.claimed:
            self.claims.prove(t, radius)
            self.claimed[t] = max(self.claimed[t], radius)

    def troubles(self) -> list[str]:
        """Why the bracket stayed open, as far as the tool has to do with it."""
        found = [self.trouble] if self.trouble else []
        runs = self.inquiry.runs
        if runs and not self.answers:
            found.insert(0, f"no answer in {runs} run{'s' * (runs > 1)}, {_OURS}")
        elif not runs and not self.budget.stop.is_set():
            found.insert(0, f"the time was over before {self.inquiry.tool.name} was asked, {_OURS}")
        return found

    def result(self, query: Query) -> DistanceResult:
        """The bracket as it stands."""
        lower, upper = self.lower, self.upper
        if self.at_anchor:
            status, lower = self.at_anchor, 0.0
        elif upper - lower <= self.tol:
            status = "exact"
        elif math.isinf(upper) and lower >= self.reach:
            status, lower = "none", math.inf
        else:
            status = "bracket"
        top = min(upper, self.reach) - self.tol
        targets = {}
        for t, proved in self.claimed.items():
            low = min(proved, self.claims.uppers[t])
            word = "exact" if self.claims.uppers[t] - low <= self.tol else "cutoff" if low >= top else "bracket"
            targets[t] = TargetResult(low, self.claims.uppers[t], word)
        tool = self.inquiry.tool
        reasons = []
        if min(lower, self.reach) > self.certified:
            reasons.append(f"above {self.certified:.6g} the lower end is the claim of {tool.name}")
        if status == "bracket":
            reasons += self.troubles()
        witness = self.claims.best or self.claims.rejected
        if witness is not None:
            witness = replace(witness, x=witness.x.reshape(query.x0.shape))
        timeout = self.limits.timeout
        return DistanceResult(
            status, lower, upper, witness, tool.name, None, targets, 0, self.inquiry.runs, self.budget.stop.is_set(),
            {"tool": 0.0, **self.budget.times}, {**tool.settings, "timeout": timeout, "tol": self.tol}, query.json_head(),
            reason="; ".join(reasons) or None,
        )  # fmt: skip
