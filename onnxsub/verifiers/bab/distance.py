"""The exact distance by branch and bound: outward from the anchor while radii are easy, then straight at the upper end."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.question import Answer, Question
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.search import Search
from onnxsub.verifiers.referee import Replay
from onnxsub.verifiers.result import DistanceResult, Progress

__all__ = ["bab_distance"]

_FIRST_PROBE = 0.05  # share of the domain that is searched first where no upper end is known
_FIRST = 1.06  # first radius, of what plain bounds certify
_NEAR = 0.985  # a radius this near to the upper end is the upper end
_GROWTH = 29.0  # of the logarithm of a proof's time per relative growth of the radius, until measured
_FLATTEST, _STEEPEST = 0.8, 1.5  # times that growth, what a measured one counts for at least and at most
_STEEP = 3.0  # times that growth where proofs need cuts
_STRIDE = 0.015  # largest relative step there: what comes next may be far harder than the last proof says
_APART = 1.05  # ratio of the radii of two proofs whose times are compared
_TICK = 0.2  # seconds: what took less is not told apart
_LEAST = 0.01  # smallest relative step
_RETREAT = 0.5  # share of the way back to a radius that was too hard
_SHARE = 0.4  # of the time left that one question may take
_EXPECTED = 0.7  # of that: what a question is expected to take
_TWO = 4.0  # times as long as the last question took: in less time no two more will end, and one gets all of it
_ALL = 0.6  # of the time left: what that one is expected to take
_SAME = 1.01  # a tree serves for radii that are smaller by this ratio at most
_SHORT = 2.0  # seconds of a search that begins with plain bounds, whatever the network
_HORIZON = 20.0  # seconds that count as the time left where there is no limit, until more than that has passed


def bab_distance(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    options: MilpOptions | None = None,
    bab: BabOptions | None = None,
    *,
    start: Array | None = None,
    replay: Replay | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket of the distance; arguments and errors as of `minimum_distance`."""
    bab = bab or BabOptions()
    search = Search(network, x0, label, space, options or MilpOptions(), replay, progress)
    at_anchor = search.referee.judge(search.x0[None])[0]
    if at_anchor.margin >= 0:
        search.best = replace(at_anchor, radius=0.0)
        status = "misclassified" if at_anchor.margin > 0 else "exact"
        return replace(search.result(), status=status, verifier="bab")
    try:
        # the linear programs of a small network find the nearest point from any other, and mostly end before bounds are of use
        small = search.network.units <= bab.dive
        search.find_start(start, quick=small)
        first = not small or search.remaining < _SHORT
        if first:
            search.certify()
        _narrow_down(search, bab, certified=first)
    except KeyboardInterrupt:
        search.stop.set()
    result = search.result()
    return replace(result, verifier="bab", settings={**result.settings, "bab": bab.to_json()})


def _narrow_down(search: Search, bab: BabOptions, *, certified: bool) -> None:
    """Raises the lower end radius by radius, each as far out as the time spent so far says that it can be proved.

    Args:
        certified: whether plain bounds have had their say; else they have it after the first question that stays open.
    """
    pace = _Pace(limited=math.isfinite(search.remaining))
    question: Question | None = None
    while search.running and not search.settled:
        top = min(search.upper - search.options.tol / 2, search.reach)
        left = search.remaining if math.isfinite(search.remaining) else max(_HORIZON, time.perf_counter() - search.began)
        if math.isinf(search.upper):
            top = min(search.reach, max(_FIRST_PROBE * search.reach, 2 * search.lower))
        radius, local = top, None
        if not pace.easy(top):
            local = search.local(top, bab.dense, bab.device) if pace.first else None
            # a tree over few units is worth a try wherever it is
            if local is None or local.unstable > bab.narrow:
                radius, local = pace.radius(search.lower, top, left), None
        seconds = left if search.lower > _NEAR * radius and radius >= min(top, pace.late) else pace.budget(left)
        # a question that ran out of time goes on where it was, unless the ball has shrunk under it
        if question is None or question.shrunk or not (radius <= question.radius <= radius * _SAME):
            question = Question(search, bab, radius, seconds, local)
        answer = question.run(seconds)
        if not (certified or search.settled):
            certified = True
            search.certify()
        pace.note(radius, answer)
        if answer.proved and radius >= search.reach:
            return
        if answer.finished and not answer.proved and not answer.better:
            return  # nodes that neither multipliers nor programs can close: asking again would bring the same


class _Pace:
    """How far out the next radius is asked about: the time of a proof grows exponentially with it, about tenfold per 8 %.

    Once that growth is measured, what comes before the tree (bounds, cut intervals) is counted apart: it grows little.

    Args:
        limited: the time left ends the search.
    """

    def __init__(self, *, limited: bool = True) -> None:
        self._limited = limited
        self._proved: list[tuple[float, float, float]] = []  # radius, seconds, those of the tree
        self._steep = False  # the last proof needed cuts
        self.late = math.inf

    @property
    def first(self) -> bool:
        """Whether nothing was asked yet."""
        return not self._proved and math.isinf(self.late)

    def easy(self, top: float) -> bool:
        """Whether the last proof came so near to `top` that it can be asked about directly."""
        return bool(self._proved) and self.late > top and self._proved[-1][0] > _NEAR * top

    def budget(self, left: float) -> float:
        """Seconds that the next question may take."""
        return left if self._last_one(left) else max(_SHARE * left, min(1.0, left))

    def radius(self, lower: float, top: float, left: float) -> float:
        """The next radius, in (lower, top]."""
        low = max(lower, 1e-3 * top)
        if not self._proved:
            radius = low * _FIRST
        else:
            at, seconds, tree = self._proved[-1]
            growth = self._growth()
            expected = _ALL * left if self._last_one(left) else _EXPECTED * self.budget(left)
            share = expected / max(seconds, _TICK) if growth is None else (expected - seconds + tree) / max(tree, _TICK)
            room = math.log(max(share, 1.0)) / ((growth or _GROWTH) * (_STEEP if self._steep else 1))
            radius = max(at, low) * (1 + max(min(room, _STRIDE) if self._steep else room, _LEAST))
        if self.late <= top:
            back = low + _RETREAT * (self.late - low)
            # a step that gains next to nothing is no better than the same question with more time
            radius = min(radius, back if low < _NEAR * self.late else self.late)
        # what is left above is not worth a question of its own
        return top if radius >= _NEAR * top and self.late > top else min(radius, top)

    def _last_one(self, left: float) -> bool:
        """Whether the next question is worth all that is left: the growth is known, and two more would not end."""
        if not (self._limited and self._proved) or self._steep or math.isfinite(self.late) or self._growth() is None:
            return False
        return left < _TWO * self._proved[-1][1]

    def _growth(self) -> float | None:
        """Of the logarithm of a tree's time per relative growth of the radius, as measured."""
        at, _, tree = self._proved[-1]
        # two proofs that lie near to each other tell nothing but the noise of the clock
        before = next(((r, t) for r, _, t in reversed(self._proved) if r < at / _APART), None)
        if before is None:
            return None
        measured = math.log(max(tree, _TICK) / max(before[1], _TICK)) / (at / before[0] - 1)
        return min(max(measured, _FLATTEST * _GROWTH), _STEEPEST * _GROWTH)

    def note(self, radius: float, answer: Answer) -> None:
        """What came of a question."""
        if answer.proved:
            self._proved.append((radius, answer.seconds, answer.tree))
            # where cuts closed all that was open, and the growth is known, nothing says that it gets steeper
            self._steep = answer.cut and (answer.hard or self._growth() is None)
            if radius >= self.late:
                self.late = math.inf
        elif answer.cut or not answer.better:  # a little nearer a point makes no large tree easier
            self.late = min(self.late, radius)
