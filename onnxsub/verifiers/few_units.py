"""A substitute with few units left, folded once and for all: everything after it costs a fraction."""

from __future__ import annotations

import numpy as np

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.passes.fold import fold

__all__ = ["folded_once"]

_MOSTLY_AFFINE = 4  # a network with fewer than one unit in four left is folded once and for all


def _kept(network: Network) -> list[Array]:
    """Which outputs of every operator with units or windows are not lines."""
    parts = network.prunable
    return [op.kept if isinstance(op, Substituted | SubstitutedMax) else np.ones(op.out_shape, dtype=np.bool_) for op in parts]


def folded_once(network: Network, budget: Budget) -> Network:
    """The folded form where few units are left; else the network itself."""
    kept = sum(int(k.sum()) for k in _kept(network))
    few = kept * _MOSTLY_AFFINE < network.units_and_windows
    return fold(network, budget=budget) if few else network
