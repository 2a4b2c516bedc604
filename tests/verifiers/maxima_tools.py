"""The tree over elements by itself, for tests and for differential runs."""

from __future__ import annotations

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.maxima import Maxima
from onnxsub.verifiers.bab.pieces.tree import MaximaTree
from onnxsub.verifiers.bracket import Bracket
from tests.verifiers.bab_tools import target_models
from tests.verifiers.nets import bracket_of

__all__ = ["by_trees"]


def by_trees(network: Network, x0: Array, label: int, radius: float, tol: float) -> tuple[Bracket, int] | None:
    """The bracket after a tree per target that bounds leave open on `B(radius)`, and all nodes; None: some target has none."""
    targets = target_models(network, x0, label, radius)
    bracket = bracket_of(network, x0, label, threads=1, tol=tol)
    searches = [MaximaTree.of(bracket, m, radius) for m in targets]
    for t in bracket.claims.lowers:
        if t not in {m.key for m in targets}:
            bracket.claims.prove(t, radius, by_bounds=True)
    if not searches or None in searches:
        return None
    deep = any((row := Maxima.of(m)) is not None and bool(row.depths.any()) for m in targets)
    for search in searches:
        assert search is not None
        # leaves with units that the row both rises and falls with, and that read others, may stay open
        assert search.run(Budget()) or bracket.settled or deep
        assert not search.shrunk
    return bracket, sum(s.nodes for s in searches if s is not None)
