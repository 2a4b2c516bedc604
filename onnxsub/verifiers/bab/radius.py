"""The radius schedule of a distance: how far out is asked next, and what the answer may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsub.verifiers.bab.question import Question
from onnxsub.verifiers.bracket import Bracket

__all__ = ["NEAR", "Asked", "Schedule"]

NEAR = 0.985
"""A radius this near to the upper end is the upper end."""

_FIRST = 1.06  # first radius, of what plain bounds certify
_GROWTH = 29.0  # of the logarithm of a proof's time per relative growth of the radius, until measured
_UNKNOWN = 3.0  # times that growth, what an unknown one counts for
_FLATTEST, _STEEPEST = 0.8, 1.5  # times that growth, what a measured one counts for at least and at most
_STEEP = 3.0  # times that growth where proofs need cuts
_STRIDE = 0.015  # largest relative step there: what comes next may be far harder than the last proof says
_FAR, _DEAR = 0.03, 0.05  # largest one else, where a question takes that share of the time left
_APART = 1.05  # ratio of the radii of two proofs whose times are compared
_TICK = 0.2  # seconds: what took less is not told apart
_LEAST = 0.01  # smallest relative step
_ENDING = 0.12  # share of a tree's nodes that are open when it is about to end
_RETREAT = 0.5  # share of the way back to a radius that was too hard
_SHARE = 0.4  # of the time left that one question may take
_EXPECTED = 0.7  # of that: what a question is expected to take
_TWO = 4.0  # times as long as the last question took: in less time no two more will end, and one gets all of it
_ALL = 0.6  # of the time left: what that one is expected to take


@dataclass(frozen=True)
class Asked:
    """What a question brought.

    Attributes:
        proved: no class is reached within the radius that was asked about, or within the tolerance below a point found since.
        better: a nearer point was found.
        seconds: that it took, all runs together.
        tree: seconds of these that its trees took.
        cut: its tree was so hard that it got cuts over pairs of units.
        hard: nodes stayed open when they had met these.
        ending: so few nodes are open that its tree is about to end.
    """

    proved: bool
    better: bool
    seconds: float
    tree: float = 0.0
    cut: bool = False
    hard: bool = False
    ending: bool = False

    @staticmethod
    def of(question: Question, bracket: Bracket, radius: float, *, better: bool) -> Asked:
        """As the question stands."""
        proved = bracket.claims.lower >= min(radius, bracket.upper - bracket.gap)
        tree = question.frontier
        if tree is None:
            return Asked(proved, better, question.spent, question.in_tree)
        ending = len(tree) <= _ENDING * tree.visited
        return Asked(proved, better, question.spent, question.in_tree, tree.cutter.cut, tree.cutter.hard, ending)


class Schedule:
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
        self._ending = False  # the question that was too hard has little left

    @property
    def first(self) -> bool:
        """Whether nothing was asked yet."""
        return not self._proved and math.isinf(self.late)

    def easy(self, top: float) -> bool:
        """Whether the last proof came so near to `top` that it can be asked about directly."""
        return bool(self._proved) and self.late > top and self._proved[-1][0] > NEAR * top

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
            share = (expected - seconds + tree) / max(tree, _TICK)
            room = math.log(max(share, 1.0)) / ((growth or _UNKNOWN * _GROWTH) * (_STEEP if self._steep else 1))
            far = _FAR if tree > _TICK else 2 * _FAR  # where no tree was needed a tree is likely to be small
            most = _STRIDE if self._steep else far if seconds > _DEAR * left else math.inf
            radius = max(at, low) * (1 + max(min(room, most), _LEAST))
        if self.late <= top:
            back = low + _RETREAT * (self.late - low)
            # a step that gains next to nothing is no better than the same question with more time
            radius = self.late if self._ending else min(radius, back if low < NEAR * self.late else self.late)
        # what is left above is not worth a question of its own
        return top if radius >= NEAR * top and self.late > top else min(radius, top)

    def _last_one(self, left: float) -> bool:
        """Whether the next question is worth all that is left: two more would not end, as the growth or a steep proof says."""
        if not (self._limited and self._proved) or math.isfinite(self.late) or (self._growth() is None and not self._steep):
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

    def note(self, radius: float, asked: Asked) -> None:
        """What came of a question."""
        self._ending = asked.ending and not asked.proved and not self._ending  # once: what it says may be wrong
        if asked.proved:
            self._proved.append((radius, asked.seconds, asked.tree))
            # where cuts closed all that was open, and the growth is known, nothing says that it gets steeper
            self._steep = asked.cut and (asked.hard or self._growth() is None)
            if radius >= self.late:
                self.late = math.inf
        elif asked.cut or not asked.better:  # a little nearer a point makes no large tree easier
            self.late = min(self.late, radius)
