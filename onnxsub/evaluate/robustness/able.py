"""What every sample of `onnxsub robustness` would fail on: refused before the first one."""

from __future__ import annotations

from onnxsub.evaluate.able import check_substitute, probe
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.decide import check_able
from onnxsub.metrics.region_cell import Cell
from onnxsub.model import Model
from onnxsub.query import Query
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.installed import check_engines
from onnxsub.verifiers.registry import external_tool

__all__ = ["check_robustness"]


def check_robustness(model: Model, s: RobustnessSettings, *, here: bool) -> None:
    """Raises what every sample would raise.

    Args:
        here: the samples are decided on this machine.

    Raises:
        UnsupportedOperatorError: an operator of the model, of the bounds, of the programs or of the other tool.
        InputError: a property that the verifier cannot state or decide.
        MissingDependencyError: a solver, a package or a program is not there.
    """
    query = probe(model, s.space)
    s.local.check_logits(query)
    verifier = s.verifier or "bab"
    if s.verifier is not None:
        check_engines((verifier,), s.solver or "highs", here=here)
    if s.distances is not None:
        _check_distances(query, s, verifier, here=here)
    elif s.verifier is not None:
        _check_property(query, s, verifier, here=here)


def _check_distances(query: Query, s: RobustnessSettings, verifier: str, *, here: bool) -> None:
    if s.distances == "region":
        Cell(query.network, query.x0.astype("float64"))
    via = s.distance_options(s.threads).via
    if via is not None:
        check_substitute(query.network, via.method, via.select)
    elif s.distances == "exact":
        _check_rows(query, verifier)
        _check_reader(query, verifier, here=here)


def _check_property(query: Query, s: RobustnessSettings, verifier: str, *, here: bool) -> None:
    prop = s.local
    if verifier not in ("bab", "milp"):
        _check_reader(query, verifier, here=here)
        prop.to_property(query)
    elif not isinstance(prop, ClassificationRobustness):
        what = prop.counterexamples(query)  # None: lr, which is decided shell by shell
        if what is not None:
            check_able(prop, what, s.local_options(s.threads))


def _check_rows(query: Query, verifier: str) -> None:
    """A program for a distance needs rows of every operator."""
    for op in query.network.ops if verifier == "milp" else ():
        if "milp" in op.unsupported:
            raise op.missing("milp")


def _check_reader(query: Query, verifier: str, *, here: bool) -> None:
    if verifier in ("bab", "milp"):
        return
    name = verifier.partition(":")[0]
    tool = external_tool(verifier) if here else None
    reader = tool.reader if tool is not None else name if name in ("marabou", "nnenum") else None
    check_readable(query.model, reader)
