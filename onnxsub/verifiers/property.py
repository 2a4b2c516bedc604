"""One decision about a VNN-LIB property: by branch and bound, by programs, or by another tool."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from onnxsub.model import Model
from onnxsub.properties.property import Property
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.bab.property import BoxSearch
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.property_attack import AttackPlan
from onnxsub.verifiers.property_external import decide_by_tool
from onnxsub.verifiers.property_milp import decide_by_programs
from onnxsub.verifiers.property_result import PropertyResult
from onnxsub.verifiers.property_state import PropertyState
from onnxsub.verifiers.registry import check_verifier, external_tool

__all__ = ["PropertyOptions", "PropertyResult", "by_branching", "decide_property"]

_ATTACK = 1 / 6  # of the time left that one round of the attack may take
_TURN = 3.0  # times as long as a round of the attack took, the trees go on before the next one
_SHORTEST = 1.0  # seconds of a turn of the trees, at least
_FIRST_PASS = 10.0  # seconds that several boxes get each at first where there is no time limit


@dataclass(frozen=True)
class PropertyOptions:
    """How the decision is made.

    Attributes:
        milp: options of the programs, the time limit for everything among them.
        attack: how a counterexample is searched (only where `milp.attack` says so).
        verifier: `bab` (branch and bound), `milp`, or another tool as `onnxsub.verifiers.registry` names it.
        bab: options of branch and bound.
    """

    milp: MilpOptions = field(default_factory=MilpOptions)
    attack: AttackPlan = field(default_factory=AttackPlan)
    verifier: str = "bab"
    bab: BabOptions = field(default_factory=BabOptions)

    def __post_init__(self) -> None:
        check_verifier(self.verifier)


def decide_property(
    model: Model, question: Property, options: PropertyOptions | None = None, *, tell: Callable[[str], None] | None = None
) -> PropertyResult:
    """`proved` where no input satisfies the property, `violated` with a point that onnxruntime confirmed, else `unknown`.

    Proofs are about the network over the real numbers and the closed clauses (a strict row counts as satisfied at its boundary);
    a witness satisfies the property as it stands, strict rows strictly, with no tolerance. `proved` by another tool is its
    claim, and `reason` says so. Ctrl-C and the time limit end the search with what is known.

    Raises:
        InputError: the property does not fit the model.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows, or the tool does not read it.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    options = options or PropertyOptions()
    tool = external_tool(options.verifier)
    state = PropertyState(model, question, options.milp, tell)
    said = None
    try:
        if tool is not None:
            said = decide_by_tool(state, tool)
        elif options.verifier == "milp":
            decide_by_programs(state, options.attack)
        else:
            by_branching(state, options)
    except KeyboardInterrupt:
        state.stop.set()
    settings: dict[str, Any]
    if tool is not None:
        settings = {**tool.settings, "timeout": options.milp.timeout}
        return _result(state, tool.name, None, settings, said or "interrupted before the answer")
    settings = options.milp.to_json()
    if options.verifier == "bab":
        settings["bab"] = options.bab.to_json()
    return _result(state, options.verifier, state.solver.name, settings)


def by_branching(state: PropertyState, options: PropertyOptions) -> None:
    """Marks the clauses of `state`: roots of every box, then rounds of the attack and turns of the trees, one after the other.

    Raises:
        UnsupportedOperatorError: an operator has no bounds.
    """
    searches = []
    for number in range(len(state.question.cases)):
        if not state.running():
            return
        state.tell(f"bounds of box {number + 1} of {len(state.question.cases)}")
        search = BoxSearch(state, number, options.bab)
        search.roots()
        if state.unknown(number):
            searches.append(search)
    # the box that is most likely to hold a counterexample comes first
    searches.sort(key=lambda s: -s.promise)
    rounds = _rounds(options.attack, state.options.seed) if state.options.attack else []
    turn, passes = _SHORTEST, 0
    while state.running():
        searches = [s for s in searches if state.unknown(s.number)]
        if rounds and searches:
            began = time.perf_counter()
            _attack(state, searches, rounds.pop(0))
            turn = max(_SHORTEST, _TURN * (time.perf_counter() - began))
        todo = [s for s in searches if not s.settled]
        if not todo and not (rounds and searches):
            return
        for i, search in enumerate(todo):
            share = state.remaining / (len(todo) - i)
            if rounds:
                share = min(share, turn / len(todo))
            elif len(todo) > 1:
                share = min(share, _FIRST_PASS * 2**passes)
            if state.running():
                search.run(share)
        passes += not rounds


def _rounds(plan: AttackPlan, seed: int) -> list[AttackPlan]:
    """The rounds of a plan as plans of their own."""
    pairs = zip(plan.growth, plan.noise, strict=True)
    return [replace(plan, growth=(g,), noise=(n,), seed=seed + i) for i, (g, n) in enumerate(pairs)]


def _attack(state: PropertyState, searches: list[BoxSearch], plan: AttackPlan) -> None:
    until = time.perf_counter() + _ATTACK * state.remaining
    for i, search in enumerate(searches):
        state.tell(f"searching for a counterexample in box {search.number + 1}")
        now = time.perf_counter()
        search.attack(plan, functools.partial(_past, now + (until - now) / (len(searches) - i)))


def _past(until: float) -> bool:
    return time.perf_counter() > until


def _result(
    state: PropertyState, verifier: str, solver: str | None, settings: dict[str, Any], said: str | None = None
) -> PropertyResult:
    """The answer as it stands.

    Args:
        said: by another tool.
    """
    marks = tuple(tuple(m) for m in state.marks)
    open_ = sum(m == "unknown" for case in marks for m in case)
    total = sum(len(case) for case in marks)
    timed_out = state.witness is None and open_ > 0 and (state.limited or state.remaining <= 0)
    if state.witness is not None:
        status = "violated"
        reason = f"{said or 'a point of the box satisfies the property'}, confirmed by onnxruntime on the file"
    elif open_ == 0:
        status = "proved"
        reason = f"{said}: its claim, not proved here" if said else _how(state, verifier, total)
    else:
        status = "unknown"
        why = "the time limit ended it" if timed_out else "the verifier could not decide"
        if state.stop.is_set():
            why = "interrupted"
        elif said is not None:
            why = said
        elif state.rejected is not None and not timed_out:
            why = f"a point was found that onnxruntime does not confirm (row {state.rejected.margin:.2g})"
        reason = f"{open_} of {total} clauses are undecided: {why}"
    head = {
        "model": {"path": None if state.model.path is None else str(state.model.path), "sha256": state.model.sha256},
        "property": {"path": state.question.where, "version": state.question.version, "clauses": total},
    }
    return PropertyResult(
        status=status,
        reason=reason,
        question=state.question,
        witness=state.witness or state.rejected,
        case=state.where,
        clauses=marks,
        verifier=verifier,
        solver=solver,
        nodes=state.nodes,
        runs=state.runs,
        timed_out=timed_out,
        interrupted=state.stop.is_set(),
        time_s={**state.times, "total": time.perf_counter() - state.began},
        settings=settings,
        head=head,
    )


def _how(state: PropertyState, verifier: str, total: int) -> str:
    if verifier == "milp":
        by = "bounds" if state.runs == 0 else "bounds and infeasible programs"
    else:
        by = "bounds" if state.nodes == 0 else f"bounds and {state.nodes:,} nodes"
    return f"{by} exclude all {total} clauses"
