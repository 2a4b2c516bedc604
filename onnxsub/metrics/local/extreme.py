r"""The extreme of a property's quantity over the ball, as an anytime bracket: how far a score or an output can change.

    confidence: max_x max_k |p_k(x) - p_k(x0)|      sr: max_x |f(x) - f(x0)|      lr: max_x of the ratio      scr: min_x p_y(x)

over `B(eps)`. One end of the bracket is the quantity at a float32 point as far as rounding cannot have made it: the milder of what
onnxruntime says on the original file (of lr less the room for rounding, as for a violation) and the network over the real numbers.
The other end is a parameter for which the property is proved of that network, so the two never cross: where they do, something is
wrong, and that is an error. The next parameter is first just beyond the best point: where the attack was good, one proof ends it.
A point found there moves the first end; where neither comes in time, a parameter farther off is asked about.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from onnxsub.budget import Budget
from onnxsub.errors import ContradictionError, InputError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.confidence import ConfidenceRobustness
from onnxsub.metrics.local.decide import attack_local, decide_local
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.standard import StandardRobustness
from onnxsub.metrics.local.strong import StrongClassificationRobustness
from onnxsub.metrics.local.verdict import LocalOptions
from onnxsub.ops.base import Array
from onnxsub.query import Query

__all__ = ["Extreme", "extreme_local"]

_PROBE = 0.5  # of the tolerance: how far beyond the best point is asked about first
_SHARE = 1 / 3  # of the time that is left, for one question
_ATTACKS = 12  # thresholds that are attacked before anything is to be proved
_FIRST = 1.0  # first threshold of quantities without a largest value


@dataclass(frozen=True, eq=False)
class Extreme:
    """`lower <= extreme <= upper`.

    Attributes:
        status: `exact` (`upper - lower <= tol`), `bracket`, `misclassified`.
        lower, upper: infinite where nothing is known.
        value, witness: of the best point, float32, per-sample shape. The value is what onnxruntime says, rounding included.
        questions: decisions and attacks asked.
        time_s: seconds, under `total`.
    """

    status: str
    lower: float
    upper: float
    value: float
    witness: Array | None = field(repr=False)
    questions: int
    interrupted: bool
    reason: str
    time_s: dict[str, float]


def extreme_local(
    query: Query,
    prop: LocalProperty,
    tol: float,
    options: LocalOptions | None = None,
    *,
    proves: bool = True,
    budget: Budget | None = None,
) -> Extreme:
    """The bracket of the largest quantity of `confidence`, `sr` or `lr`, the smallest of `scr`, whatever the bound of `prop` is.

    Args:
        tol: the width at which it ends.
        proves: False: the attack alone, so only the end that a point gives.
        budget: its end ends the search with what is known; `options.timeout` is a part of it.

    Raises:
        InputError: another property; as for `decide_local`.
        ContradictionError: a point lies beyond what is proved, by however little.
    """
    options = options or LocalOptions()
    clock = options.budget(budget)
    start = time.perf_counter()
    with_bound(prop, prop.bound)  # refuses a property that has none to move
    prop.check_logits(query)
    if prop.needs_label and query.misclassified:
        return Extreme("misclassified", -math.inf, math.inf, math.nan, None, 0, False, query.wrong, {"total": 0.0})
    search = _Search(query, prop, tol, options, clock)
    search.climb()
    while proves and search.running:
        search.ask()
    lower, upper = search.bracket
    exact = upper - lower <= tol
    why = "the largest and the smallest possible value are nearer than the tolerance" if exact else search.reason
    return Extreme(
        "exact" if exact else "bracket", lower, upper, search.value, search.witness, search.questions, search.interrupted, why,
        {"total": time.perf_counter() - start},
    )  # fmt: skip


def with_bound(prop: LocalProperty, bound: float) -> LocalProperty:
    """The property with another bound of its quantity.

    Raises:
        InputError: it has none that can be moved.
    """
    match prop:
        case ConfidenceRobustness():
            return replace(prop, gamma=bound)
        case StandardRobustness():
            return replace(prop, delta=bound)
        case LipschitzRobustness():
            return replace(prop, lipschitz=bound)
        case StrongClassificationRobustness():
            return replace(prop, eta=bound)
        case _:
            raise InputError(f"property {prop.name} has no bound to move; its value is the distance")


class _Search:
    """The bracket in units of *badness*: the quantity, or minus it where the property wants it large.

    Attributes:
        low: badness of the best point. high: proved: no point is worse.
        floor: the largest badness about which a question stayed open.
    """

    def __init__(self, query: Query, prop: LocalProperty, tol: float, options: LocalOptions, clock: Budget) -> None:
        self._query, self._prop, self._tol, self._options, self._clock = query, prop, tol, options, clock
        self._sign = -1.0 if prop.smallest else 1.0
        # a score lies between 0 and 1 whatever is proved
        self._least, self.high = (-1.0, 0.0) if prop.smallest else (0.0, math.inf)
        if isinstance(prop, ConfidenceRobustness):
            self.high = 1.0
        self._most = self.high
        self.witness: Array | None = query.x0
        self.value = float(prop.measure(query, query.x0[None]).quantity[0])
        self.low = self._sign * float(prop.reached(query, query.x0[None])[0])
        self.floor = self.low
        self.questions = 0
        self.interrupted = False
        self.reason = "the attack alone proves nothing of the other end"

    @property
    def bracket(self) -> tuple[float, float]:
        """The two ends of the quantity."""
        ends = (self.low, self.high)
        return ends if self._sign > 0 else (-ends[1], -ends[0])

    @property
    def running(self) -> bool:
        """Whether there is anything left to ask."""
        open_ = self.high - self.low > self._tol and self.high - self.floor > self._tol / 16
        return open_ and self._clock.running and not self.interrupted

    def climb(self) -> None:
        """Raises the lower end by attacks: each at a threshold above the last point, farther off as long as it succeeds."""
        step = self._tol
        for _ in range(_ATTACKS):
            top = self.low + step
            if top >= self._most or not self._clock.running:
                step /= 4
                if step < self._tol / 4:
                    return
                continue
            if self._attacked(top):
                step *= 4
            elif step <= self._tol:
                return
            else:
                step = max(step / 8, self._tol / 2)

    def _attacked(self, threshold: float) -> bool:
        part = self._clock.part(_SHARE * self._clock.remaining)
        verdict = attack_local(self._query, self._bounded(threshold), self._options, budget=part)
        self.questions += 1
        self.interrupted |= verdict.interrupted
        return verdict.status == "violated" and self._take(verdict.witness)

    def ask(self) -> None:
        """One decision: just beyond the best point, or between what stayed open and what is proved."""
        near = self.low + _PROBE * self._tol
        if near > self.floor:
            threshold = near
        elif math.isinf(self.high):
            threshold = max(2 * self.floor, self.floor + _FIRST)
        else:
            threshold = (self.floor + self.high) / 2
        if threshold >= self.high:
            threshold = (self.floor + self.high) / 2
        part = self._clock.part(_SHARE * self._clock.remaining)
        verdict = decide_local(self._query, self._bounded(threshold), self._options, budget=part)
        self.questions += 1
        self.interrupted |= verdict.interrupted
        if verdict.status == "proved":
            self.high = min(self.high, threshold)
            self._compare()
        elif verdict.status == "violated":
            if self._take(verdict.witness):
                self.floor = max(self.floor, self.low)
            else:
                self.floor = max(self.floor, threshold)
                self.reason = "the points that are found there owe their value to the rounding of float32"
        else:
            self.floor = max(self.floor, threshold)
            self.reason = verdict.reason or "undecided"

    def _bounded(self, threshold: float) -> LocalProperty:
        return with_bound(self._prop, self._sign * threshold)

    def _take(self, witness: Array | None) -> bool:
        """Whether a point is worse than the best one so far, which it then replaces."""
        assert witness is not None
        sure = self._sign * float(self._prop.reached(self._query, witness[None])[0])
        if not sure > self.low:
            return False
        self.low, self.witness = sure, witness
        self.value = float(self._prop.measure(self._query, witness[None]).quantity[0])
        self._compare()
        return True

    def _compare(self) -> None:
        if self.low > self.high:
            point, proved = self._sign * self.low, self._sign * self.high
            raise ContradictionError(
                f"property {self._prop.name}: a point has {point:.17g}, but {proved:.17g} is proved; "
                "please report this with the model"
            )
