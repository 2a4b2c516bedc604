"""A decision by programs: bounds, then a search for a counterexample, then one mixed-integer program per clause that is left."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel, Building
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.free_attack import free_attack
from onnxsub.verifiers.programs.solvers import SolverStatus
from onnxsub.verifiers.proof import excludes
from onnxsub.verifiers.screen import screen

__all__ = ["decide"]

_MOST_UNITS = 1000
"""Boxes with more unstable units than this are not tightened where there are several clauses, each of which would cost seconds."""


@dataclass(frozen=True, eq=False)
class _Open:
    """A clause of a box that bounds do not refute, and its programs."""

    number: int
    model: ClauseModel


def decide(decision: Decision, plan: AttackPlan) -> None:
    """Refutes the clauses of a decision, or finds a point.

    Raises:
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError: of the solver.
        OutOfTime: the budget ended; the decision holds what is known.
    """
    left = _by_bounds(decision)
    if decision.session.milp.attack and left:
        free_attack(decision, [number for number, _ in left])
        for number, local in left:
            _attack(decision, plan, number, local)
    _by_programs(decision, [item for number, local in left for item in _tightened(decision, number, local)])


def _by_bounds(decision: Decision) -> list[tuple[int, BoxModel]]:
    """Refutes what bounds refute; the boxes that are left, the one that is most likely to hold a counterexample first."""
    left = []
    for number, box in enumerate(decision.spec.boxes):
        if not decision.running:
            break
        decision.budget.tell(f"bounds of box {number + 1} of {len(decision.spec.boxes)}")
        screen(decision, number)
        clauses = decision.open(number)
        if not clauses:
            continue
        with decision.budget.stage("bounds"):
            how = Building.of(decision.session.options, decision.budget)
            local = BoxModel.over(decision.row_model(number, clauses), box.box, how)
        open_ = set(local.open)
        for k in clauses:
            if k not in open_:
                decision.prove(number, k)
        if open_:
            left.append((number, local))
    return sorted(left, key=lambda item: -max(item[1].promise(k) for k in item[1].open))


def _attack(decision: Decision, plan: AttackPlan, number: int, local: BoxModel) -> None:
    if not decision.running:
        return
    decision.budget.tell(f"searching for a counterexample ({len(local.open)} clauses are open)")
    # a third of what is left, so that a proof gets its turn
    part = decision.budget.part(decision.budget.remaining / 3)
    decision.search(number, tuple(local.rows.members[k] for k in local.open), plan, budget=part)


def _tightened(decision: Decision, number: int, local: BoxModel) -> list[_Open]:
    """The open clauses of a box, tightened; those that this refutes are marked."""
    session, budget = decision.session, decision.budget
    left: list[_Open] = []
    clauses = local.open
    for i, key in enumerate(clauses):
        if not decision.running:
            break
        budget.tell(f"clause {key + 1}: tightening the bounds")
        # half of the time, in equal parts, so that the programs get theirs
        part = budget.part(budget.remaining / (2 * (len(clauses) - i)))
        tight = local.how.tight and (local.unstable <= _MOST_UNITS or len(clauses) == 1)
        with budget.stage("tighten"):
            model = local.clause(key, tight=tight)
            if model is not None and tight and session.milp.tighten == "lp":
                model = model.tightened(part)
        if model is None or excludes(local.promise(key)):
            decision.prove(number, key)
        else:
            left.append(_Open(number, model))
    return left


def _by_programs(decision: Decision, left: list[_Open]) -> None:
    """One program per clause with equal shares of the time, the easy ones first: what they leave over is for the hard ones."""
    left = sorted(left, key=lambda item: item.model.binaries)
    spent: dict[int, float] = {}
    for _ in range(2):
        todo = [item for item in left if decision.is_open(item.number, item.model.key)]
        for i, item in enumerate(todo):
            limit = decision.budget.remaining / (len(todo) - i)
            # a run that is not longer than the last one would end where that did
            if decision.running and limit > 1.5 * spent.get(id(item), 0.0):
                spent[id(item)] = limit
                _decide(decision, item, limit)


def _decide(decision: Decision, item: _Open, limit: float) -> None:
    model, number, key = item.model, item.number, item.model.key
    if not model.local.able:
        raise next(op.missing("milp") for op in model.local.network.ops if "milp" in op.unsupported)
    decision.budget.tell(f"clause {key + 1}: is it satisfiable? ({model.binaries} binaries)")
    with decision.budget.stage("build"):
        problem = model.decision()
    solution = decision.session.solve(problem, model.decision_options, seconds=limit)
    decision.limited |= solution.status in (SolverStatus.TIME_LIMIT, SolverStatus.NODE_LIMIT)
    if solution.status.proves_empty:
        decision.prove(number, key)
    elif solution.x is not None:
        decision.confirm(number, decision.rows(number).clauses[key], model.point(solution.x))
