"""The distance of a network in memory by an engine of ours."""

from __future__ import annotations

from dataclasses import replace

from onnxsub.budget import Budget
from onnxsub.errors import OptionError
from onnxsub.instance import Instance
from onnxsub.ops.base import Array
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.engine import DISTANCE
from onnxsub.verifiers.options import ExactOptions
from onnxsub.verifiers.registry import engine_of
from onnxsub.verifiers.result import DistanceResult, Progress
from onnxsub.verifiers.session import Session

__all__ = ["measure"]


def measure(
    instance: Instance,
    options: ExactOptions | None = None,
    verifier: str = "bab",
    budget: Budget | None = None,
    *,
    start: Array | None = None,
    progress: Progress | None = None,
) -> DistanceResult:
    """The bracket of the distance; it holds at every moment, and a limit or Ctrl-C ends the search with it.

    Before it is called exact, points within the proved radius are replayed: one of another class among them is the answer.

    Args:
        verifier: `bab` or `milp`.
        budget: default: one with the limits of the options, that begins now.
        start: a point to begin with, usually that of an attack; it counts only if it is confirmed.
        progress: told whenever something was learnt.

    Raises:
        InputError: no such engine.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError: of the solver.
        ContradictionError: a point was replayed nearer than what is proved.
    """
    engine = engine_of(verifier)
    if engine is None or DISTANCE not in engine.asks:
        raise OptionError(f"--verifier {verifier} does not measure distances in memory; choose bab or milp")
    bracket = Bracket(instance, Session(options or ExactOptions(), budget), progress)
    known = bracket.at_anchor()
    if known is not None:
        return replace(known, verifier=verifier)
    with bracket.budget.telling(bracket.tell):
        # a proof is replayed also where a limit or Ctrl-C came as it ended
        bracket.budget.attempt(lambda: engine.distance(bracket, start))
        bracket.budget.attempt(bracket.replay_inside)
    return bracket.result(verifier)
