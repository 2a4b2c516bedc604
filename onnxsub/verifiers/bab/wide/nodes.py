"""What waits in a tree: nodes below a root, and nodes that become roots."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from onnxsub.verifiers.bab.wide.parts import Multipliers

__all__ = ["Node", "Root", "children"]


@dataclass(frozen=True, eq=False)
class Root:
    """A node that waits to become a root; intervals of the units as in the network.

    Attributes:
        radius: proved: the row is negative within it.
        value: the bound that its parent's multipliers gave.
        few: open units at which its program is asked.
        given: multipliers to begin with (`Group.carried`).
    """

    lower: Tensor
    upper: Tensor
    radius: float
    few: int
    value: float = math.inf
    given: Multipliers | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """A node below a root; intervals in the scale of the group.

    Attributes:
        radius, value, few: as of a root.
        split: the unit that comes next; -1: none is open.
        level: splits below the root.
    """

    lower: Tensor
    upper: Tensor
    given: Multipliers
    radius: float
    split: int
    few: int
    level: int = 0
    value: float = math.inf

    @property
    def open(self) -> int:
        """How many units are."""
        return int(((self.lower < 0) & (self.upper > 0)).sum())


def children(node: Node) -> list[Node]:
    """Its unit on, its unit off."""
    lower, upper = node.lower.clone(), node.upper.clone()
    lower[node.split] = upper[node.split] = 0.0
    both = replace(node, lower=lower), replace(node, upper=upper)
    return [replace(child, split=-1, level=node.level + 1) for child in both]
