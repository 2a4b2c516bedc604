"""Which units go: by scores below a threshold, or so many with the smallest weights, or so many at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxsub.compress.program import layers_of
from onnxsub.errors import InputError, OptionError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.conv import Conv
from onnxsub.ops.dense import Dense

__all__ = ["WAYS", "Choice", "below", "magnitudes", "randomly", "smallest"]

WAYS = ("scores", "magnitude", "random")


@dataclass(frozen=True)
class Choice:
    """Which units go.

    Attributes:
        by: one of `WAYS`. threshold: a score below it may go; of `magnitude` and `random`: as many as by scores.
        share: of each layer, in place of these numbers. seed: of `random`.
    """

    by: str = "scores"
    threshold: float = 1e-3
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in WAYS:
            raise OptionError(f"--by {self.by!r} is unknown; choose one of {', '.join(WAYS)}")
        if self.share is not None and not 0 < self.share < 1:
            raise OptionError(f"--share {self.share:g} is not possible; give a share between 0 and 1")
        if self.threshold != self.threshold:
            raise OptionError("--threshold nan is no number; give one, such as 0.001")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed} is negative; give 0 or more")

    @property
    def scored(self) -> bool:
        """Whether scores are needed."""
        return self.by == "scores" or self.share is None

    def of(self, network: Network, scores: Mapping[str, Array] | None, turn: int = 0) -> dict[str, Array]:
        """Positions that go, by layer.

        Args:
            scores: by layer, where they are needed. turn: number of the removal, for other random units in each.

        Raises:
            InputError, UnsupportedOperatorError: as `layers_of` and `magnitudes`.
        """
        if self.by == "scores":
            assert scores is not None
            return below(scores, self.threshold)
        if self.share is not None:
            sizes = layers_of(network)
            counts = {name: round(self.share * n) for name, n in sizes.items()}
        else:
            assert scores is not None
            sizes = {name: len(s) for name, s in scores.items()}
            counts = {name: len(p) for name, p in below(scores, self.threshold).items()}
        if self.by == "random":
            return randomly(sizes, counts, (self.seed, turn) if turn else self.seed)
        return smallest(magnitudes(network), counts)


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
            raise InputError(f"layer {name!r} is not written by weights alone, so its units have no magnitude; give another --by")
        found[name] = np.sqrt((op.weight.reshape(units, -1).astype(np.float64) ** 2).sum(axis=1))
    return found


def smallest(scores: Mapping[str, Array], counts: Mapping[str, int]) -> dict[str, Array]:
    """The `counts` smallest of each layer, as positions in order; one unit always stays."""
    return {name: np.sort(np.argsort(s, kind="stable")[: min(counts.get(name, 0), len(s) - 1)]) for name, s in scores.items()}


def randomly(sizes: Mapping[str, int], counts: Mapping[str, int], seed: int | Sequence[int]) -> dict[str, Array]:
    """So many of each layer at random, as positions in order; one unit always stays."""
    rng = np.random.default_rng(seed)
    return {name: np.sort(rng.permutation(n)[: min(counts.get(name, 0), n - 1)]) for name, n in sizes.items()}
