"""The exact distance by branch and bound: outward from the anchor while radii are easy, then straight at the upper end."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxsub.budget import OutOfTime
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.dense.search import search_dense
from onnxsub.verifiers.bab.inputs.nearest import search_inputs
from onnxsub.verifiers.bab.near import NearGoal, Patience
from onnxsub.verifiers.bab.question import Question
from onnxsub.verifiers.bab.radius import NEAR, Asked, Schedule
from onnxsub.verifiers.bab.wide.search import search_wide
from onnxsub.verifiers.bab.wide.small import search_small, worth_squares
from onnxsub.verifiers.bracket import Bracket

__all__ = ["search_distance"]

_FIRST_PROBE = 0.05  # share of the domain that is searched first where no upper end is known
_SAME = 1.01  # a tree serves for radii that are smaller by this ratio at most
_SHORT = 2.0  # seconds of a search that begins with plain bounds, whatever the network
_AMPLE, _CHEAP = 10.0, 4_000_000  # seconds left, and units times inputs, with which plain bounds wait until they are needed
_MANY = 2048  # inputs from which on linear programs over them take longer than the nodes they save (PERFORMANCE.md)
_NEARLY = 1.1  # of the lower end: what squares and linear programs close (`small.py`); farther off squares alone are tried
_LINES = 12.0  # seconds of trees by lines, after which small networks get squares
_SQUARES = 40.0  # seconds that must be left for both: what they do not end is farther from its end than by lines
_TICK = 0.05  # seconds that are too few for a question
_PROGRAMS = 0.45  # seconds of linear programs, after which squares narrow intervals, where programs take all units of the network
_ENOUGH = 1.0  # seconds that must be left for that
_OPEN = 16  # open units up to which that is not done: programs alone soon end there
_WIDE = 128  # units of a network from which on squares alone are tried, too: smaller ones had theirs (`dense/`)
_HORIZON = 20.0  # seconds that count as the time left where there is no limit, until more than that has passed


def search_distance(bracket: Bracket, start: Array | None) -> None:
    """Closes the bracket as far as its budget allows.

    Args:
        start: a point to begin with, usually that of an attack; it counts only if it is confirmed.

    Raises:
        OutOfTime: the budget ended; the bracket holds what is known.
    """
    # the linear programs of a small network find the nearest point from any other, and mostly end before bounds are of use
    windows = bool(bracket.network.windows)
    small = bracket.network.units_and_windows <= bracket.session.bab.searched(windows=windows, whole=True)
    bracket.find_start(start, quick=small)
    tried = search_wide(bracket)
    if tried and bracket.network.input_size >= _MANY:
        bracket.session.bab = replace(bracket.session.bab, dive=0, leaf=0)
    if bracket.settled:
        return
    if bracket.budget.remaining < _SHORT or not (small or _can_wait(bracket)):
        bracket.certify()
    if not small:
        search_inputs(bracket)
        search_dense(bracket)
    # `search_wide` may have been followed by switching programs off
    _narrow_down(bracket, few=small and not windows and bracket.session.bab.dive > 0)


def _can_wait(bracket: Bracket) -> bool:
    """Whether plain bounds may wait until a question stays open.

    Where they are cheap and there is time, the ball at the upper end says more; on small networks they take no time at all. They
    come first where nodes are limited: a question may use these up before it has proved anything.
    """
    network, budget = bracket.network, bracket.budget
    cheap = network.units_and_windows > _WIDE and network.units_and_windows * network.input_size <= _CHEAP
    return cheap and budget.remaining >= _AMPLE and math.isinf(budget.nodes_left)


def _narrow_down(bracket: Bracket, *, few: bool) -> None:
    """Raises the lower end radius by radius, each as far out as the time spent so far says that it can be proved.

    Plain bounds have their say before a schedule of radii needs them, or after the first question that stays open.

    Args:
        few: whether linear programs have all units from the start, and no windows, whose hulls squares know nothing of.
    """
    budget, bab = bracket.budget, bracket.session.bab
    schedule, patience = Schedule(limited=budget.limited), Patience()
    began, squares = budget.worked, False  # whether these are still to come
    alone = bracket.network.units_and_windows > _WIDE  # and whether without programs
    lines, enough = (_PROGRAMS, _ENOUGH) if few else (_LINES, _SQUARES)
    question: Question | None = None
    goal: NearGoal | None = None
    while bracket.running and not bracket.settled:
        top = min(bracket.upper - bracket.gap / 2, bracket.reach)
        left = budget.remaining if budget.limited else max(_HORIZON, budget.worked)
        if math.isinf(bracket.upper):
            top = min(bracket.reach, max(_FIRST_PROBE * bracket.reach, 2 * bracket.lower))
        if squares and budget.worked - began >= lines:
            if few or bracket.upper <= _NEARLY * bracket.lower:
                squares = False
                if not budget.limited or budget.remaining >= enough:
                    search_small(bracket, few=few)
                    continue
            elif alone:
                alone = False
                search_wide(bracket, later=True)
                continue
        radius, local = top, None
        if not schedule.easy(top):
            local = bracket.local(top, branching=True) if schedule.first else None
            if local is not None and math.isfinite(bracket.upper):
                squares = worth_squares(bracket, local) and (local.unstable > _OPEN or not few)
            # a tree over few units is worth a try wherever it is
            if local is None or local.unstable > bab.narrow:
                if not bracket.certified:
                    bracket.certify()
                    if bracket.settled or bracket.lower >= top:
                        continue
                radius, local = schedule.radius(bracket.lower, top, left), None
        seconds = left if bracket.lower > NEAR * radius and radius >= min(top, schedule.late) else schedule.budget(left)
        if squares:
            rest = began + lines - budget.worked
            seconds = min(seconds, rest if rest > _TICK else lines)
        # a question that ran out of time goes on where it was, unless the ball has shrunk under it
        old = goal is not None and question is not None and not _shrunk(goal, question)
        if not (old and goal is not None and radius <= goal.radius <= radius * _SAME):
            goal = NearGoal(bracket, radius, patience)
            question = Question(goal, bracket.session, seconds, local)
        assert question is not None
        upper = bracket.upper
        try:
            question.run(budget.part(seconds))
        except OutOfTime:
            budget.check()  # the end of this question's share only
        if goal.gave_up:
            continue  # the same again, without these programs
        asked = Asked.of(question, bracket, goal.radius, better=bracket.upper < upper)
        if not (bracket.certified or bracket.settled):
            bracket.certify()
        schedule.note(radius, asked)
        if asked.proved and radius >= bracket.reach:
            return
        if question.finished and not asked.proved and not asked.better:
            return  # nodes that neither multipliers nor programs can close: asking again would bring the same


def _shrunk(goal: NearGoal, question: Question) -> bool:
    """Whether the points found since make it worth to ask again on a smaller ball."""
    return not goal.fresh or (question.frontier is not None and goal.stale(question.frontier))
