"""A decision worked on and told: the engine is run, a proof is held against replays, and the answer gets its words."""

from __future__ import annotations

from typing import Any

from onnxsub.errors import OptionError
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.decision import Decision
from onnxsub.verifiers.engine import DECISION, Engine
from onnxsub.verifiers.result import VerifyResult

__all__ = ["concluded", "work"]


def work(decision: Decision, engine: Engine, plan: AttackPlan) -> None:
    """Runs an engine until the decision is made, the budget ends, or Ctrl-C comes.

    Raises:
        InputError: the engine does not decide.
        UnsupportedOperatorError: an operator has no bounds, or no rows that the engine needs.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed where there is proved to be none.
    """
    if DECISION not in engine.asks:
        raise OptionError(f"--verifier {engine.name} does not decide; choose another one")
    # a proof is replayed also where a limit or Ctrl-C came as it ended
    decision.budget.attempt(lambda: engine.decide(decision, plan))
    decision.budget.attempt(decision.replay_inside)


def concluded(decision: Decision, verifier: str, **more: Any) -> VerifyResult:
    """The answer as it stands.

    Args:
        more: fields of the result that the decision does not know.
    """
    session, budget = decision.session, decision.budget
    marks = decision.marks()
    left = sum(word == "unknown" for case in marks for word in case)
    total = sum(len(case) for case in marks)
    witness = decision.witness
    what = f"all {total} clauses" if more.get("eps") is None else "every other class"
    timed_out = False
    if witness is not None:
        status, reason = "violated", "a replayed point: confirmed by onnxruntime on the file"
        if decision.claims.diverged is not None:
            reason += "; over the real numbers it is none, which is proved: float32 execution differs from that network"
        elif decision.float32_only(witness):
            reason += "; over the real numbers it is none: float32 execution differs from that network"
    elif decision.proved:
        status = "proved"
        reason = f"{_by(decision, verifier)} exclude {what}"
    else:
        status = "unknown"
        timed_out = (budget.over or decision.limited) and not budget.stop.is_set()
        reason = f"{left} of {total} clauses are undecided: {_why(decision, timed_out)}"
    # points that are replayed after a proof are rejected, as they should be: they are no part of the answer
    shown = decision.claims.rejected if status == "unknown" else witness
    return VerifyResult(
        status=status, reason=reason, witness=shown, clauses=marks, verifier=verifier,
        solver=session.solver.name, nodes=budget.nodes, runs=session.runs, timed_out=timed_out,
        interrupted=budget.stop.is_set(), time_s=budget.times, settings=session.options.to_json(verifier),
        replayed=decision.replayed if status == "proved" else 0, **more,
    )  # fmt: skip


def _by(decision: Decision, verifier: str) -> str:
    if verifier == "milp":
        return "bounds" if decision.session.runs == 0 else f"bounds and infeasible programs ({decision.session.solver.name})"
    return f"bounds and {decision.budget.nodes:,} nodes" if decision.grown else "bounds"


def _why(decision: Decision, timed_out: bool) -> str:
    budget, rejected = decision.budget, decision.claims.rejected
    if budget.stop.is_set() or (timed_out and budget.over):
        return budget.why
    if timed_out:
        return "the time limit of a program ended it; give more time (--timeout)"
    if rejected is not None and rejected.margin == 0:
        return "a strict row holds with equality at the point that was found: no counterexample, and no proof can tell it from one"
    if rejected is not None and decision.spec.boxes[rejected.case or 0].whole:
        beside = f"the whole numbers beside the point that was found are no counterexample (margin {rejected.margin:.2g})"
        return f"{beside}, and a proof takes the points between whole numbers in"
    if rejected is not None:
        return f"onnxruntime does not confirm the point that was found (margin {rejected.margin:.2g}); it may lie just beyond"
    return decision.session.trouble or "the verifier could not decide"
