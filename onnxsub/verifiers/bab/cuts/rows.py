"""Sums of a few units of one activation, pulled back to the input; the affine operators before the units are gone through once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.backward import Coefficients, Front, flattened, pull_back, pull_front, to_front
from onnxsub.propagate.chunks import unit_rows

__all__ = ["Fronts"]


class Fronts:
    """Pre-activations as functions of the activations before them: these depend on no node and no target, so they are kept.

    A convolution is most of what a row costs on its way back, and rows of pairs share their units. Rows of an activation for which
    there is no room are pulled back whole.

    Args:
        room: bytes of rows that are kept.
    """

    def __init__(self, network: Network, like: Tensor, room: int = 2**29) -> None:
        self._network = network
        self._like = like
        self._room = room
        self._known: dict[str, tuple[Tensor, Front]] = {}  # place of every unit, -1 for those that are not known

    def lines(
        self, op: Nonlinear, units: Tensor, factors: Tensor, relaxations: Mapping[str, Relaxation], x0: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Linear lower bounds `a . (x - x0) + b` of `sum_k factors_k z_k`, z the pre-activations: `(1, R, n)` and `(1, R)`.

        Args:
            units: flat positions, `(R, K)`.
            factors: `(R, K)`.
            relaxations: of all operators before the units, by the tensor that each writes.
            x0: the anchor, flat, `(n,)`.
        """
        network = self._network
        front = self._sums(op, units, factors)
        if front is None:
            rows = self._like.new_zeros((len(units), op.out_size)).scatter_add_(1, units, factors)
            bound = pull_back(network, op.inputs[0], Coefficients(rows.reshape(1, len(units), *op.in_shapes[0])), relaxations)
        else:
            bound = pull_front(network, front, relaxations)
        a = flattened(bound.coefficients.full(network.input_shape), 2)
        return a, bound.lower_bias + a @ x0

    def _sums(self, op: Nonlinear, units: Tensor, factors: Tensor) -> Front | None:
        found = self._of(op, units)
        if found is None:
            return None
        places, single = found
        coefficients = {}
        for name, c in single.coefficients.items():
            rows = c.data[0]
            shape = (-1, *[1] * (rows.dim() - 1))
            whole = rows[places[:, 0]] * factors[:, 0].reshape(shape)
            for k in range(1, units.shape[1]):
                whole = whole + rows[places[:, k]] * factors[:, k].reshape(shape)
            coefficients[name] = Coefficients(whole[None])
        return Front(coefficients, (single.bias[0][places] * factors).sum(1)[None])

    def _of(self, op: Nonlinear, units: Tensor) -> tuple[Tensor, Front] | None:
        """The places of these units in a front of single units, None where it has no room."""
        tensor = op.inputs[0]
        if tensor in self._known:
            place, front = self._known[tensor]
        else:
            place, front = torch.full((op.out_size,), -1, device=units.device), None
        new = torch.unique(units[place[units] < 0])
        if len(new):
            more = self._single(op, new)
            if more is None:
                return None
            begin = 0 if front is None else front.bias.shape[1]
            place = place.clone()
            place[new] = torch.arange(begin, begin + len(new), device=units.device)
            if front is not None:
                parts = {n: torch.cat([front.coefficients[n].data, c.data], 1) for n, c in more.coefficients.items()}
                more = Front({n: Coefficients(t) for n, t in parts.items()}, torch.cat([front.bias, more.bias], 1))
            front = more
            self._known[tensor] = place, front
        assert front is not None
        return place[units], front

    def _single(self, op: Nonlinear, units: Tensor) -> Front | None:
        """One whole row per unit; the tensors that they reach are the same for every unit."""
        tensor, shapes = op.inputs[0], self._network.shapes
        one = to_front(self._network, tensor, unit_rows(units[:1], op.in_shapes[0], self._like))
        size = 8 * len(units) * sum(math.prod(shapes[n]) for n in one.coefficients)
        if size > self._room:
            return None
        self._room -= size
        found = to_front(self._network, tensor, unit_rows(units, op.in_shapes[0], self._like))
        return Front({n: Coefficients(c.full(shapes[n])) for n, c in found.coefficients.items()}, found.bias)
