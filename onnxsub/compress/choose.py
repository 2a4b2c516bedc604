"""Which units go: by scores below a threshold, or so many with the smallest weights, or so many at random."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxsub.compress.program import layers_of
from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.conv import Conv
from onnxsub.ops.dense import Dense

__all__ = ["below", "magnitudes", "randomly", "smallest"]


def below(scores: Mapping[str, Array], threshold: float) -> dict[str, Array]:
    """Positions of the scores below `threshold`, by layer; where that is all of a layer, its best unit stays."""
    gone = {}
    for name, s in scores.items():
        positions = np.flatnonzero(s < threshold)
        gone[name] = positions if len(positions) < len(s) else np.delete(positions, int(np.argmax(s)))
    return gone


def magnitudes(network: Network) -> dict[str, Array]:
    """Euclidean norm of the weights that lead into every unit (channel), by layer.

    Raises:
        InputError: a layer that no Dense or Conv writes.
    """
    found = {}
    for name, units in layers_of(network).items():
        tensor = network.producers[name].inputs[0]
        op = network.producers.get(tensor)
        while op is not None and not isinstance(op, Conv | Dense) and len(op.inputs) == 1:
            op = network.producers.get(op.inputs[0])
        if not isinstance(op, Conv | Dense) or len(op.weight) != units:
            raise InputError(f"layer {name!r} is not written by weights alone; remove by scores")
        found[name] = np.sqrt((op.weight.reshape(units, -1).astype(np.float64) ** 2).sum(axis=1))
    return found


def smallest(scores: Mapping[str, Array], counts: Mapping[str, int]) -> dict[str, Array]:
    """The `counts` smallest of each layer, as positions in order; one unit always stays."""
    return {name: np.sort(np.argsort(s, kind="stable")[: min(counts.get(name, 0), len(s) - 1)]) for name, s in scores.items()}


def randomly(sizes: Mapping[str, int], counts: Mapping[str, int], seed: int) -> dict[str, Array]:
    """So many of each layer at random, as positions in order; one unit always stays."""
    rng = np.random.default_rng(seed)
    return {name: np.sort(rng.permutation(n)[: min(counts.get(name, 0), n - 1)]) for name, n in sizes.items()}
