"""Which linear region a point lies in, as values of a program's binaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import Windows, switches
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.one_sided import switched_units

__all__ = ["Pattern"]


@dataclass(frozen=True, eq=False)
class Pattern:
    """What the binaries of a clause's program mean.

    Attributes:
        network: of the clause.
        meanings: operators, in order, each with the outputs that its binaries belong to, and the inputs that these stand for.
    """

    network: Network
    meanings: tuple[tuple[Relu | Windows, Array, Array], ...]

    @staticmethod
    def of(model: ClauseModel, binaries: int) -> Pattern | None:
        """None where some of the `binaries` that the program has mean something else."""
        found: list[tuple[Relu | Windows, Array, Array]] = []
        for op in model.local.network.nonlinear:
            if not isinstance(op, Relu | Windows):
                return None
            ends = model.intervals[op.output]
            units = switched_units(op, *ends)
            read = units if isinstance(op, Relu) else switches(op.table, *ends)[1]
            pulled = model.pulled.get(op.output)
            free = np.ones(len(units), dtype=np.bool_) if pulled is None else ~pulled[units]
            found.append((op, units[free], read[free]))
        return Pattern(model.local.network, tuple(found)) if sum(len(u) for _, u, _ in found) == binaries else None

    def at(self, x: Array) -> Array:
        """The binaries at a point `(*input_shape)`: whether a Relu is on, whether an element is the largest of its window."""
        names = tuple(op.inputs[0] for op, _, _ in self.meanings)
        with torch.no_grad():
            values = self.network.values(torch.as_tensor(x).unsqueeze(0), names)
        found = [np.zeros(0, dtype=np.bool_)]
        for op, units, read in self.meanings:
            z = values[op.inputs[0]].flatten().numpy()[read]
            if isinstance(op, Relu):
                found.append(z > 0)
                continue
            order = np.lexsort((-z, units))
            largest = np.zeros(len(z), dtype=np.bool_)
            largest[order[np.unique(units[order], return_index=True)[1]]] = True  # one of several that are
            found.append(largest)
        return np.concatenate(found).astype(int)
