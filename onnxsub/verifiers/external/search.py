"""The distance from decisions: radii are asked about until the bracket is closed.

The upper end is that of a replayed point, the first one an attack's. It is usually good, so the first question is whether anything
lies just below it; each point found is walked back to the boundary of the file and becomes the new upper end. While questions just
below it are answered `sat`, the step below grows sixteenfold, up to half the bracket. An `unsat` raises the lower end.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxsub.errors import InputError
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.passes.attack.walk import walk_back
from onnxsub.passes.certify import certified_radius
from onnxsub.query import Query
from onnxsub.verifiers.external.inquiry import Inquiry, inquire
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Tool
from onnxsub.verifiers.result import DistanceResult, Progress, TargetResult, Witness

__all__ = ["distance_external", "unanswered"]

_GROWTH = 16.0
_SHARE = 0.5  # of the remaining time that one question may take: a question nearer to the anchor is easier
_PATIENCE = 3  # questions in a row without an answer
_OURS = "the bracket is that of our bounds and the attack"


def distance_external(
    file: Model | str | Path,
    query: Query,
    tool: Tool,
    timeout: float | None = None,
    *,
    tol: float = 1e-6,
    start: Array | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket of the file's distance at the query's anchor, by decisions of a tool.

    The lower end is proved here as far as bounds go; above that it is the tool's claim, and `reason` says from where on. The upper
    end is that of a point that onnxruntime confirmed on the file. A tool that fails, or whose point does not replay, leaves a wider
    bracket.

    Args:
        file: what the tool is given: the query's own model, or a substitute of it.
        timeout: seconds for everything; None for none.
        tol: `exact` means `upper - lower <= tol`.
        start: a point to begin with, in the shape of the query's anchor; it counts only if it is confirmed on the file.

    Raises:
        InputError: an option, or a file that is not one of that anchor.
        UnsupportedOperatorError: the tool does not read the file.
    """
    if not (math.isfinite(tol) and tol > 0):
        raise InputError(f"--tol {tol} must be a positive number")
    if timeout is not None and not timeout > 0:
        raise InputError(f"--timeout {timeout} must be positive seconds")
    with inquire(file, query, tool) as inquiry:
        search = _Search(inquiry, timeout, tol, progress)
        interrupted = False
        try:
            search.run(start, seed)
        except KeyboardInterrupt:
            interrupted = True
        return search.result(query, interrupted)


def unanswered(result: DistanceResult) -> bool:
    """Whether the tool had no part in a bracket: it was not asked, or none of its answers counted."""
    return result.reason is not None and _OURS in result.reason


class _Search:
    """`lowers[t] <= d_t` as far as the tool can be believed, and `d <= best.radius`."""

    def __init__(self, inquiry: Inquiry, timeout: float | None, tol: float, progress: Progress | None) -> None:
        self.began = time.perf_counter()
        self.inquiry = inquiry
        self.query = inquiry.query
        self.timeout = timeout
        self.tol = tol
        self.reach = self.query.space.reach(self.query.x0)
        self.lowers = dict.fromkeys(self.query.targets, 0.0)
        self.uppers = dict.fromkeys(self.query.targets, math.inf)
        self.certified = 0.0
        self.best: Witness | None = None
        self.rejected: Witness | None = None
        self.trouble = ""
        self.answers = 0
        self.at_anchor = ""
        self.asking = 0.0
        self._progress = progress

    @property
    def upper(self) -> float:
        return math.inf if self.best is None else self.best.radius

    @property
    def lower(self) -> float:
        return min(min(self.lowers.values(), default=math.inf), self.upper)

    @property
    def remaining(self) -> float:
        return math.inf if self.timeout is None else self.timeout - (time.perf_counter() - self.began)

    def tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress(self.lower, self.upper, text)

    def run(self, start: Array | None, seed: int) -> None:
        q = self.query
        anchor = self.inquiry.referee.judge(q.x0[None])[0]
        if anchor.margin >= 0:
            self.best = replace(anchor, radius=0.0)
            self.at_anchor = "misclassified" if anchor.margin > 0 else "exact"
            return
        self.first_point(start, seed)
        self.certified = certified_radius(
            q.network, lambda r: q.space.ball(q.x0, r), q.label, min(self.upper, self.reach),
            tol=0.05, stop=lambda: self.remaining <= 0,
        )  # fmt: skip
        self.raise_lower(self.certified)
        self.tell("bounds")
        self.narrow()

    def first_point(self, start: Array | None, seed: int) -> None:
        """The given point, else a short attack."""
        q = self.query
        if start is not None:
            self.accept(self.inquiry.referee.settle(np.asarray(start).reshape(q.x0.shape), tol=self.tol / 4))
        if self.best is None and self.remaining > 0:
            limit = None if math.isinf(self.remaining) else max(self.remaining / 3, 1e-3)
            options = AttackOptions(seed=seed, timeout=limit)
            found = attack_network(q.network, q.x0, q.label, q.space, options, self.inquiry.referee.margins)
            if found.x_adv is not None:
                self.accept(self.inquiry.referee.settle(found.x_adv, tol=self.tol / 4))
        self.tell("attack")

    def narrow(self) -> None:
        """Questions until the bracket is closed, time is over, or the tool has nothing to say."""
        step = self.tol / 2
        ceiling, silent = math.inf, 0
        while self.upper - self.lower > self.tol and self.remaining > 0 and silent < _PATIENCE:
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
        began = time.perf_counter()
        answer = self.inquiry.ask(radius, None if math.isinf(self.remaining) else max(_SHARE * self.remaining, 0.01))
        self.asking += time.perf_counter() - began
        self.answers += any(word != UNKNOWN for word in (answer.word, *answer.targets.values()))
        for t, word in answer.targets.items():
            if word == UNSAT:
                self.lowers[t] = max(self.lowers[t], radius)
        if answer.word == SAT and answer.witness is not None:
            self.accept(answer.witness)
            self.walk(answer.witness)
        elif answer.word == UNKNOWN:
            self.trouble = f"at radius {radius:.6g}: {answer.reason}"
            if answer.witness is not None and self.rejected is None:
                self.rejected = answer.witness
        return answer.word

    def walk(self, witness: Witness) -> None:
        """From a point of the ball to the boundary."""
        q = self.query
        near = walk_back(q.network, q.x0, q.label, q.space, witness.x[None], self.inquiry.referee.margins)
        if near is not None:
            self.accept(self.inquiry.referee.judge(near.x[None])[0])

    def accept(self, witness: Witness) -> None:
        if witness.confirmed:
            self.uppers[witness.label] = min(self.uppers[witness.label], witness.radius)
            if witness.radius < self.upper:
                self.best = witness

    def raise_lower(self, radius: float) -> None:
        self.lowers = {t: max(low, radius) for t, low in self.lowers.items()}

    def troubles(self, interrupted: bool) -> list[str]:
        """Why the bracket stayed open, as far as the tool has to do with it."""
        found = [self.trouble] if self.trouble else []
        runs = self.inquiry.runs
        if runs and not self.answers:
            found.insert(0, f"no answer in {runs} run{'s' * (runs > 1)}, {_OURS}")
        elif not runs and not interrupted:
            found.insert(0, f"the time was over before {self.inquiry.tool.name} was asked, {_OURS}")
        return found

    def result(self, query: Query, interrupted: bool) -> DistanceResult:
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
        for t, proved in self.lowers.items():
            low = min(proved, self.uppers[t])
            word = "exact" if self.uppers[t] - low <= self.tol else "cutoff" if low >= top else "bracket"
            targets[t] = TargetResult(low, self.uppers[t], word)
        tool = self.inquiry.tool
        reasons = []
        if min(lower, self.reach) > self.certified:
            reasons.append(f"above {self.certified:.6g} the lower end is the claim of {tool.name}")
        if status == "bracket":
            reasons += self.troubles(interrupted)
        witness = self.best or self.rejected
        if witness is not None:
            witness = replace(witness, x=witness.x.reshape(query.x0.shape))
        times = {"tool": self.asking, "total": time.perf_counter() - self.began}
        return DistanceResult(
            status, lower, upper, witness, tool.name, None, targets, 0, self.inquiry.runs, interrupted, times,
            {**tool.settings, "timeout": self.timeout, "tol": self.tol}, query.json_head(), reason="; ".join(reasons) or None,
        )  # fmt: skip
