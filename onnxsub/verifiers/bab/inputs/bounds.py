"""Lines above rows on regions of the input box: thorough ones, and quick ones for halves that are only tried."""

from __future__ import annotations

from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.verifiers.bab.inputs.halves import Regions
from onnxsub.verifiers.bab.inputs.lines import RowLines, row_lines
from onnxsub.verifiers.bab.inputs.ways import Ways
from onnxsub.verifiers.bab.inputs.zonotopes import Zonotopes

__all__ = ["RegionBounds"]


class RegionBounds:
    """Bounds of some rows of a network.

    Args:
        rows: numbers of the outputs, `(R,)`.
    """

    def __init__(self, network: Network, rows: Tensor) -> None:
        self._network, self._rows = network, rows
        self._zonotopes, self._ways = Zonotopes.of(network), Ways()

    def thorough(self, regions: Regions, budget: Budget) -> tuple[RowLines, int]:
        """Lines above the rows, and the way that they were made: 0: every unit bounded backward, 1: by zonotopes (`Ways`).

        Raises:
            UnsupportedOperatorError: an operator has no bounds.
            OutOfTime: the budget ended.
        """
        found = None if self._zonotopes is None else self._zonotopes.within(regions.lower, regions.upper, regions.within)
        way = 0 if found is None else self._ways.next()
        within = found or regions.within or None
        return row_lines(self._network, self._rows, regions.lower, regions.upper, within, budget, units=way == 0), way

    def quick(self, regions: Regions, budget: Budget) -> RowLines:
        """The same without a backward pass of units; zonotopes narrow them where they are at hand."""
        found = None if self._zonotopes is None else self._zonotopes.within(regions.lower, regions.upper, regions.within)
        within = found or regions.within or None
        return row_lines(self._network, self._rows, regions.lower, regions.upper, within, budget, units=False)

    def told(self, way: int, closed: int, seen: int) -> None:
        """What thorough bounds have shown: so many of the regions that were seen are closed."""
        self._ways.told(way, closed, seen)
