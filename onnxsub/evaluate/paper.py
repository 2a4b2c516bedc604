"""The reference experiment's way to a distance: bisection, one question per radius and target (`paper_runs.py`).

The interval `[0, interval]` is halved down to the precision, for the network and for its substitutes alike. At each radius
every target that bounds leave is asked "is it reached within this radius?". The radius ends at the first target that fails: one
that is reached, or one that is not decided within the limits. Either way it is *not verified*, and the search goes on below. The
distance is the smallest radius that was not verified: it is never 0, and where all is verified it is the interval's end. What is
proved besides is kept apart. Every run of the solver is written down, so that times can be compared over the same radii.

With `known_points` a radius within which a point of another class is known ends without a run. The distance is the same, since
such a radius is not verified whether the solver finds the point or runs out of time; only the runs are fewer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from onnxsub.errors import OptionError
from onnxsub.evaluate.paper_runs import RUNS
from onnxsub.evaluate.settings import Settings
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array, Shape
from onnxsub.passes.attack import AttackResult
from onnxsub.query import Query
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.session import Session

__all__ = ["BOUNDS", "halved", "paper_distance", "precision_of"]

BOUNDS = "fastlin-ibp"
PRECISION: dict[Shape, float] = {(1, 28, 28): 1e-2, (3, 32, 32): 1e-3}
"""As published, of MNIST and CIFAR-10, by the shape of an image."""

_TOL = 1e-6  # of what is said of a witness; the search itself is as fine as the precision
_ROUND = 1e-3  # of the precision: what a point may be moved by so that float32 confirms it


def precision_of(settings: Settings, shape: Shape) -> float:
    """`--tol`, or the published precision for images of that shape.

    Raises:
        OptionError: there is neither; it is as large as the interval.
    """
    found = settings.tol if settings.tol is not None else PRECISION.get(tuple(shape[-3:]))
    if found is None and math.prod(shape) == 784:  # the same images, flat
        found = PRECISION[1, 28, 28]
    if found is None:
        raise OptionError(
            f"--protocol paper has no published precision for inputs of shape {list(shape)}; state one with --tol, 0.001 say"
        )
    if settings.interval is not None and found >= settings.interval:
        raise OptionError(
            f"--interval {settings.interval:g} is not larger than the precision {found:g}, so no radius would be asked about; "
            "give a smaller --tol"
        )
    return found


def halved(interval: float, precision: float, verified: Callable[[float], bool]) -> tuple[float, float]:
    """The last interval of the bisection: verified at its lower end (or 0), not verified at its upper one (or never asked)."""
    low, high = 0.0, interval
    while high - low > precision:
        middle = (low + high) / 2
        if verified(middle):
            low = middle
        else:
            high = middle
    return low, high


def paper_distance(
    query: Query,
    network: Network,
    found: AttackResult,
    settings: Settings,
    threads: int,
    *,
    verifier: str = "milp",
    replay: Callable[[Array], Array] | None = None,
) -> tuple[dict[str, Any], Array | None]:
    """The distance of a network by the protocol and the bracket that is proved, as plain values, and the nearest point.

    Args:
        network: of un-normalised inputs: that of the query, or a substitute of it.
        found: the attack on the query. The search does not look at it, except with `known_points`; its point may narrow the
            bracket afterwards.
        verifier: who is asked: one of `paper_runs.RUNS`.
        replay: logits that decide what a witness is; default: the network itself in float32.

    Returns:
        `protocol`: the smallest radius that was not verified, or the interval's end. `certain`: whether a point is known within it,
        or nothing was not verified; otherwise an undecided program ended that radius, and the true distance may be larger.
        `runs`: how many; `solver_runs`: one `[target, radius, seconds, outcome]` for each, the outcome being `none`, `reached`
        or `undecided`, and the target None where a run is about all that bounds leave. `attack`: what the bisection comes to where
        the attack answers in place of a solver.
    """
    assert settings.interval is not None
    limits = Limits(threads=threads, seed=settings.seed, tol=_TOL)
    known = settings.known_points
    milp = MilpOptions(solver=settings.solver, search="bisect", bounds_method=BOUNDS, tighten="none")
    start = time.perf_counter()
    instance = Instance(network, query.x0, query.label, query.space, replay)
    search = Bracket(instance, Session(ExactOptions(limits, milp)))
    precision = precision_of(settings, network.input_shape)
    log: list[list[Any]] = []
    ended: dict[float, str] = {}
    if known and found.x_adv is not None:
        search.accept(found.x_adv)

    def verified(radius: float) -> bool:
        ended[radius] = "reached" if known and search.upper <= radius else RUNS[verifier](search, radius, settings, log)
        return ended[radius] == "none"

    low, high = halved(settings.interval, precision, verified)
    if found.x_adv is not None and not known:
        search.accept(found.x_adv)
    best, upper = search.best, search.upper
    lower = min(max(low, search.lower), upper)
    within = upper <= high + _ROUND * precision
    result = {
        "status": "exact" if within else "bracket",
        "lower": lower,
        "upper": upper,
        "protocol": high,
        "certain": ended.get(high) != "undecided" or within,
        "attack": halved(settings.interval, precision, lambda r: r < found.d_adv)[1],
        "radii": len(ended),
        "radii_undecided": sum(word == "undecided" for word in ended.values()),
        "adversarial_label": None if best is None else best.label,
        "witness": None if best is None else best.kind,
        "runs": len(log),
        "nodes": search.budget.nodes,
        "solver_runs": log,
        "reason": None,
        "time_s": {"bnd": time.perf_counter() - start},
    }
    return result, None if best is None else best.x
