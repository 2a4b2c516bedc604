"""Intervals of pre-activations by zonotopes, for many small boxes of few inputs (DeepZ, Singh et al. 2018).

A zonotope keeps how values depend on the inputs and on the units that are unstable, so in a small box, where few units are, it
costs a few products by the weights of each layer, where a backward pass (CROWN) costs one per unit and layer. Neither is always
the tighter one; both hold, so their intersection does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Array, Box
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import Reshape
from onnxsub.ops.relu import Relu
from onnxsub.verifiers.bab.relu.kernels import compiled

__all__ = ["Zonotopes"]

_LOOPS = "onnxsub.verifiers.bab.inputs.compiled"


@dataclass(frozen=True, eq=False)
class Zonotopes:
    """A network of dense layers and Relus; a layer may read the inputs and the outputs of any Relus before it.

    Attributes:
        names: the tensors that the Relus write, in order. shapes: of what they read.
        weights, biases, sources: as `compiled.zonotopes` has them.
        cost: numbers that a backward pass of every unit goes over, per box.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    sources: tuple[Array, ...]
    cost: int

    @staticmethod
    def of(network: Network) -> Zonotopes | None:
        """The layers of a network; None: a non-linear operator is no Relu of such a layer."""
        rows: dict[str, Array] = {network.input: np.arange(int(np.prod(network.input_shape)))}
        layers: dict[str, tuple[Dense, Array]] = {}
        read: list[tuple[Relu, Dense, Array]] = []
        count = len(rows[network.input])
        for op in network.ops:
            known = [rows[name] for name in op.inputs if name in rows]
            if isinstance(op, Dense) and known and op.weight.ndim == 2 and len(known[0]) == op.weight.shape[1]:
                layers[op.output] = (op, known[0])
            elif isinstance(op, Relu) and op.inputs[0] in layers:
                dense, source = layers[op.inputs[0]]
                read.append((op, dense, source))
                rows[op.output] = np.arange(count, count + len(dense.weight))
                count += len(dense.weight)
            elif isinstance(op, Reshape) and known:
                rows[op.output] = known[0]
            elif isinstance(op, Concat) and op.constant is None and len(known) == len(op.inputs):
                parts = [own.reshape(shape) for own, shape in zip(known, op.in_shapes, strict=True)]
                rows[op.output] = np.concatenate(parts, axis=op.axis).reshape(-1)
        if not read or len(read) < len(network.nonlinear):
            return None
        weights = tuple(np.ascontiguousarray(dense.weight, dtype=np.float64) for _, dense, _ in read)
        zero = [np.zeros(len(w)) for w in weights]
        biases = tuple(
            z if dense.bias is None else z + np.asarray(dense.bias, dtype=np.float64).reshape(-1)
            for z, (_, dense, _) in zip(zero, read, strict=True)
        )
        sizes = [w.size for w in weights]
        cost = sum(len(w) * sum(sizes[: i + 1]) for i, w in enumerate(weights))
        shapes = tuple(op.in_shapes[0] for op, _, _ in read)
        sources = tuple(np.ascontiguousarray(source) for _, _, source in read)
        return Zonotopes(tuple(op.output for op, _, _ in read), shapes, weights, biases, sources, cost)

    def within(self, lower: Tensor, upper: Tensor, known: Mapping[str, Box]) -> Mapping[str, Box] | None:
        """Intervals of all pre-activations on boxes, by the tensor that the Relu writes.

        Args:
            lower, upper: `(B, n)` float64, on the processor.
            known: intervals that hold already; may be empty.

        Returns:
            None: the compiled loops are not there, or not worth their start yet.
        """
        count = len(lower)
        loops = compiled(lower, count * self.cost, _LOOPS, len(self.weights))
        if loops is None:
            return None
        ends: list[tuple[Array, Array]] = []
        for name, weight in zip(self.names, self.weights, strict=True):
            if name in known:
                low, high = (np.array(e.reshape(count, -1).numpy(), dtype=np.float64, order="C") for e in known[name])
            else:
                low, high = np.full((count, len(weight)), -np.inf), np.full((count, len(weight)), np.inf)
            ends.append((low, high))
        box = tuple(np.ascontiguousarray(e.numpy()) for e in (lower, upper))
        loops.zonotopes(box, self.weights, self.biases, self.sources, tuple(l for l, _ in ends), tuple(u for _, u in ends))
        return {
            name: (torch.from_numpy(l).reshape(count, *shape), torch.from_numpy(u).reshape(count, *shape))
            for name, shape, (l, u) in zip(self.names, self.shapes, ends, strict=True)
        }
