"""A decision on small networks of Relus: is any of some rows not negative anywhere in a box? One tree on a few matrices for all.

The nodes are those of a distance (`dense/search.py`) within the whole box. Points at which bounds are attained go to the decision,
and so do the programs of nodes that have nothing left to split.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.dense.tree import DenseTree
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.leaf import ends_of_units, restricted
from onnxsub.verifiers.bab.wide.blocks import Blocks, blocks_of
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.session import Session

__all__ = ["DenseInside", "InsideAims"]

_INPUTS = 4_096


class InsideAims(Protocol):
    """What the tree is grown for: the parts of a goal (`bab/driver.py`) that it needs."""

    @property
    def done(self) -> bool:
        """Whether a point was found."""
        ...

    def close(self) -> float:
        """The radius that contains the box."""
        ...

    def prove(self, key: int, radius: float) -> None:
        """Notes that a clause holds nowhere within a radius."""
        ...

    def look(self, frame: Frame, offsets: Tensor, frontier: None) -> None:
        """Tries the points at which bounds are attained."""
        ...

    def program(self, model: ClauseModel, close: float, budget: Budget) -> float:
        """Solves the program of a node: infinite where nothing of interest is left."""
        ...


class DenseInside:
    """Some clauses of a box.

    Args:
        models: of the clauses, with the intervals that their lines have cut.
        blocks: their network.
    """

    def __init__(self, aims: InsideAims, session: Session, models: list[ClauseModel], blocks: Blocks) -> None:
        self._aims, self._models = aims, models
        self._frame = Frame.of(models, whole=True)
        lower, upper = (
            torch.cat([e[op.output].flatten(1) for op in self._frame.splits], 1) for e in (self._frame.lower, self._frame.upper)
        )
        rows, memory = [m.row for m in models], session.bab.memory
        self._tree = DenseTree(blocks, rows, aims.close(), self._found, self._program, memory, (lower, upper))

    @staticmethod
    def of(aims: InsideAims, session: Session, models: list[ClauseModel]) -> DenseInside | None:
        """None where the network is none of Relus, or is for others: too large, or for the linear programs alone."""
        local = models[0].local
        few = session.bab.device == "cpu" and local.network.input_size <= _INPUTS and session.milp.fold != "never"
        if not few or not session.bab.dive < local.unstable <= session.bab.matrices:
            return None
        if local.folds_further:
            try:
                local = local.folded()
            except UnsupportedOperatorError:
                return None
            keys = [m.key for m in models]
            models = [m for key in keys if (m := local.clause(key, session.bab.tighten)) is not None]
            for key in set(keys) - {m.key for m in models}:
                aims.prove(key, aims.close())
        blocks = blocks_of(local) if models else None
        return None if blocks is None else DenseInside(aims, session, models, blocks)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to split."""
        return self._tree.finished

    def run(self, budget: Budget) -> None:
        """Until nothing is left to split, a point is found or the budget ends; what is proved is noted, whatever ends it."""
        try:
            self._tree.run(budget, lambda: self._aims.done)
        finally:
            closed = set(self._tree.closed)
            for model in self._models:
                if model.row in closed:
                    self._aims.prove(model.key, self._tree.radius)

    def _found(self, offsets: Array, reached: bool) -> float:
        self._aims.look(self._frame, torch.from_numpy(offsets), None)
        return self._aims.close()

    def _program(self, row: int, lower: Tensor, upper: Tensor, budget: Budget) -> tuple[bool, float]:
        model = next(m for m in self._models if m.row == row)
        key = self._aims.program(restricted(model, ends_of_units(model, lower, upper)), self._aims.close(), budget)
        return key >= self._aims.close(), self._aims.close()
