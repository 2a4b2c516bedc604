"""The folded form that `compact` writes and `chain` starts from: made once where a substitute is written in one and then the other.

A network never changes, so its folded form may be kept as long as the network itself is; nothing here keeps either alive.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.passes.fold import fold

__all__ = ["folded"]

_FOUND: WeakKeyDictionary[Network, Network] = WeakKeyDictionary()


def folded(network: Network, budget: Budget | None = None) -> Network:
    """`fold(network)`. Raises OutOfTime where the budget ends before there is one."""
    found = _FOUND.get(network)
    if found is None:
        found = _FOUND[network] = fold(network, budget=budget)
    return found
