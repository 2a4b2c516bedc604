"""The distance on small networks of Relus: squares close what linear relaxations leave open, programs end it.

The tree of `tree.py` refutes all but what lies near the nearest points, where its bounds, found by gradient steps, stop at a share
of the radius. Nodes with few open units there are searched by linear programs, which are exact.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.leaf import restricted
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.wide.search import Program, network_as_blocks, search_row
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket

__all__ = ["program_of_node", "search_small", "worth_squares"]

_UNITS = 200  # open ones, at most
_PER_UNIT = 3  # as many times as many inputs as open units: among fewer, rows have too much in common
_SHARES = ((1.0, 0.6), (0.97, 0.9))  # of the upper end: where is searched; of the time that is left
_AGAIN = 0.98  # of the radius: bounds are made anew where a point has come nearer than that


def worth_squares(bracket: Bracket, local: BoxModel) -> bool:
    """Whether squares are likely to close more than lines do."""
    return local.unstable <= min(_UNITS, bracket.network.input_size // _PER_UNIT) and bracket.session.milp.fold != "never"


def search_small(bracket: Bracket) -> None:
    """Raises the lower ends, and tries points on the way, where the network is of that kind and a point is known."""
    for share, time in _SHARES:
        budget = bracket.budget.part(time * bracket.budget.remaining)
        while math.isfinite(bracket.upper) and bracket.running and not bracket.settled and not budget.over:
            radius = share * min(bracket.upper - bracket.gap / 2, bracket.reach)
            local = bracket.local(radius, branching=True)
            found = network_as_blocks(bracket, local, radius) if worth_squares(bracket, local) else None
            if found is None:
                return
            # those that are soon refuted first, and none may leave the others without time
            rows = [r for r in found[0].open[::-1] if bracket.claims.lowers[r] < radius]
            for number, row in enumerate(rows):
                part = budget.part(budget.remaining / (len(rows) - number))
                with bracket.budget.stage("tree"):
                    search_row(bracket, found[1], row, radius, part, programs=partial(_programs, bracket, found[0], row))
            if bracket.upper * share >= _AGAIN * radius:
                break


def _programs(bracket: Bracket, local: BoxModel, row: int) -> Program | None:
    model = bracket.target(local, row)
    return None if model is None else partial(program_of_node, bracket, model)


def program_of_node(bracket: Bracket, model: ClauseModel, lower: Tensor, upper: Tensor, radius: float, budget: Budget) -> float:
    """What linear programs prove of a node: no point of interest of it is nearer."""
    ends, at = {}, 0
    for op in model.local.network.activations:
        low, high = (np.asarray(e, dtype=np.float64).reshape(-1) for e in model.intervals[op.output])
        low = np.maximum(low, lower[at : at + op.out_size].numpy())
        ends[op.output] = low, np.maximum(low, np.minimum(high, upper[at : at + op.out_size].numpy()))
        at += op.out_size
    search = DepthFirst.of(bracket, restricted(model, ends), radius, part=True)
    if search is None:
        return 0.0
    search.run(budget)
    return search.lower
