"""A property by programs: bounds, then a search for a counterexample, then one MILP per clause that is left."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

from onnxsub.verifiers.milp.clause import CaseModel, ClauseModel
from onnxsub.verifiers.milp.solvers import SolverStatus
from onnxsub.verifiers.property_attack import AttackPlan, ascend
from onnxsub.verifiers.property_state import PropertyState

__all__ = ["decide_by_programs"]

_MOST_UNITS = 1000
"""Cases with more unstable units than this are not tightened: there are several clauses, and each would cost seconds."""


@dataclass(frozen=True, eq=False)
class _Open:
    """A clause that bounds do not refute.

    Attributes:
        number: of its case.
        clause: its number there.
        model: the rows of the case on the network as it is, for the search.
        local: the rows of the clause on the folded network, for the program.
    """

    number: int
    clause: int
    model: CaseModel
    local: ClauseModel


def decide_by_programs(state: PropertyState, plan: AttackPlan) -> None:
    """Marks the clauses of `state` as far as the time allows.

    Args:
        plan: of the search (only where the options of the state want one).

    Raises:
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    left = _by_bounds(state)
    if state.options.attack:
        for number, model in left:
            _attack(state, plan, number, model)
    _by_programs(state, [item for number, model in left for item in _tightened(state, number, model)])


def _by_bounds(state: PropertyState) -> list[tuple[int, CaseModel]]:
    """Marks what bounds refute; the cases that are left, reduced to their open clauses."""
    left = []
    for number, rows in enumerate(state.rows):
        if not state.running():
            break
        state.tell(f"bounds of case {number + 1} of {len(state.rows)}")
        with state.stage("bounds"):
            model = CaseModel.over(state.network, rows, *state.box(number), state.options.bounds_method)
        for clause in range(len(rows.clauses)):
            if clause not in model.open:
                state.prove(number, clause)
        if model.open:
            left.append((number, model))
    # the case that is most likely to hold a counterexample comes first
    return sorted(left, key=lambda item: -max(item[1].promise(c) for c in item[1].open))


def _past(until: float) -> bool:
    return time.perf_counter() > until


def _attack(state: PropertyState, plan: AttackPlan, number: int, model: CaseModel) -> None:
    if not state.running():
        return
    state.tell(f"searching for a counterexample ({len(model.open)} clauses are open)")
    # a third of what is left, so that a proof gets its turn
    until = time.perf_counter() + state.remaining / 3
    with state.stage("attack"):
        clauses = tuple(model.rows.clauses[c] for c in model.open)
        found = ascend(model.network, clauses, state.judges[number], plan, late=functools.partial(_past, until))
    if found is not None:
        state.accept(number, found)


def _tightened(state: PropertyState, number: int, model: CaseModel) -> list[_Open]:
    """The open clauses of a case, folded and tightened; those that this refutes are marked."""
    if not state.running():
        return []
    with state.stage("bounds"):
        folded = model.folded(state.options)
    left = []
    clauses = model.open
    for i, clause in enumerate(clauses):
        if not state.running():
            break
        local = None
        if folded.promise(clause) >= 0:
            state.tell(f"clause {clause + 1}: tightening the bounds")
            # half of the time, in equal parts, so that the programs get theirs
            until = time.perf_counter() + state.remaining / (2 * (len(clauses) - i))
            tight = state.options.tighten != "none" and folded.unstable <= _MOST_UNITS
            with state.stage("bounds"):
                local = folded.clause(clause, tight=tight, late=functools.partial(_past, until))
                if local is not None and tight and state.options.tighten == "lp":
                    local = local.tightened(functools.partial(_past, until))
        if local is None:
            state.prove(number, clause)
        else:
            left.append(_Open(number, clause, model, local))
    return left


def _by_programs(state: PropertyState, left: list[_Open]) -> None:
    """One MILP per clause with equal shares of the time, the easy ones first: what they leave over is for the hard ones."""
    left = sorted(left, key=lambda item: item.local.binaries)
    spent: dict[int, float] = {}
    for _ in range(2):
        todo = [item for item in left if state.marks[item.number][item.clause] == "unknown"]
        for i, item in enumerate(todo):
            limit = state.remaining / (len(todo) - i)
            # a run that is not longer than the last one would end where that did
            if state.running() and limit > 1.5 * spent.get(id(item), 0.0):
                spent[id(item)] = limit
                _decide(state, item, limit)


def _decide(state: PropertyState, item: _Open, limit: float) -> None:
    local = item.local
    state.tell(f"clause {item.clause + 1}: is it satisfiable? ({local.binaries} binaries)")
    with state.stage("build"):
        problem = local.decision()
    solution = state.solve(problem, local.scale, limit)
    state.limited |= solution.status is SolverStatus.TIME_LIMIT
    if solution.status.proves_empty:
        state.prove(item.number, item.clause)
    elif solution.x is not None:
        state.confirm(item.number, item.model.network, item.model.rows.clauses[item.clause], local.point(solution.x))
