"""One question about a class: the network, the anchor, the class to defend, the inputs, and whose word counts for a witness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.query import other_classes
from onnxsub.region import InputSpace

if TYPE_CHECKING:
    from onnxsub.query import Query

__all__ = ["Instance", "Replay"]

Replay = Callable[[Array], Array]
"""Logits of points: `(N, *input_shape)` float32, un-normalised, to `(N, classes)`; `Query.judged` is one."""


@dataclass(frozen=True, eq=False)
class Instance:
    """What every engine is asked about.

    Attributes:
        network: f, from un-normalised inputs to logits.
        x0: the anchor, float64, `(*input_shape)`, inside the domain.
        label: the class y to defend.
        space: the domain.
        target: the one class that is asked about; None: every other class is.
        replay: the logits that decide what a witness is, usually onnxruntime on the file; None: the network itself in float32.
    """

    network: Network
    x0: Array
    label: int
    space: InputSpace
    replay: Replay | None = field(default=None, repr=False)
    target: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x0", np.asarray(self.x0, dtype=np.float64))

    @staticmethod
    def of(query: Query) -> Instance:
        """The question of a query, judged by onnxruntime on its file."""
        return Instance(query.network, query.x0, query.label, query.space, query.judged, query.target)

    @property
    def judged(self) -> Instance:
        """The same with a `replay`."""
        return self if self.replay is not None else replace(self, replay=partial(_float32, self.network))

    @property
    def targets(self) -> tuple[int, ...]:
        """The classes asked about: the other ones, or the one target."""
        return other_classes(self.network.classes, self.label, self.target)

    @property
    def reach(self) -> float:
        """The radius at which the ball is the whole domain."""
        return self.space.reach(self.x0)

    def ball(self, radius: float) -> tuple[Array, Array]:
        """Both ends of `B(radius)`, float64."""
        return self.space.ball(self.x0, radius)


def _float32(network: Network, x: Array) -> Array:
    import torch

    with torch.no_grad():
        return network.forward(torch.as_tensor(np.array(x), dtype=torch.float32)).numpy()
