r"""A network of Relus as rows: with n inputs and K Relu units in topological order,

    z_i = a_i x + sum_{j<i} b_ij h_j + c_i,    h_i = max(0, z_i),    logits likewise.

Units that bounds over the box prove stable are affine there and have no row of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.budget import Budget
from onnxsub.layouts.chain_relus import with_relus_only
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import Reshape
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.fold import fold, stabilise
from onnxsub.propagate import compute_bounds

__all__ = ["ReluRows", "TooManyError", "relu_rows_on"]


class TooManyError(Exception):
    """More Relus than the caller has use for."""


@dataclass(frozen=True, eq=False)
class ReluRows:
    """The rows, float64; exact on the box `[lower, upper]`.

    Attributes:
        over_input: `(K + classes, n)`, the units first.
        over_units: `(K + classes, K)`, strictly lower triangular in its first K rows.
        bias: `(K + classes,)`.
        upper_units: `(K,)`, an upper end of every `h_i` on the box.
        lower, upper: `(n,)`.
    """

    over_input: sp.csr_array
    over_units: sp.csr_array
    bias: Array
    upper_units: Array
    lower: Array
    upper: Array

    @property
    def units(self) -> int:
        return len(self.upper_units)

    @property
    def levels(self) -> Array:
        """`(K,)`: the number of the Relu layer in which a unit can stand at the earliest, from 1."""
        level = np.ones(self.units, dtype=np.int64)
        indptr, indices = self.over_units.indptr, self.over_units.indices
        for i in range(self.units):
            before = indices[indptr[i] : indptr[i + 1]]
            if len(before):
                level[i] = 1 + level[before].max()
        return level


def relu_rows_on(
    network: Network, lower: Array, upper: Array, *, budget: Budget | None = None, most: int | None = None
) -> ReluRows:
    """The rows of a network on a box of its inputs.

    Args:
        lower, upper: `(*input_shape)`.
        most: units beyond which the rows are of no use.

    Raises:
        UnsupportedOperatorError: a kept unit has no form with Relus.
        TooManyError: there are more than `most` units.
        OutOfTime: the budget ended.
    """
    budget = budget or Budget()
    if network.windows:  # first who can win where; then Relus for those alone
        bounds = compute_bounds(network, lower, upper, "crown", only_unstable=True, output=False, budget=budget)
        network = stabilise(network, bounds).without_dead()
    relus = with_relus_only(network).without_dead()
    bounds = compute_bounds(relus, lower, upper, "crown", only_unstable=True, output=False, budget=budget)
    stable = stabilise(relus, bounds).without_dead()
    if most is not None and sum(len(_kept(op)) for op in stable.activations) > most:
        raise TooManyError
    ends = [bounds.arrays(op.output)[1][_kept(op)] for op in stable.activations]
    over_input, over_units, bias = _read(fold(stable, budget=budget))
    return ReluRows(over_input, over_units, bias, np.concatenate([np.zeros(0), *ends]), lower.reshape(-1), upper.reshape(-1))


def _kept(op: Operator) -> Array:
    kept = op.kept if isinstance(op, Substituted) else np.ones(op.out_shape, dtype=np.bool_)
    return np.flatnonzero(kept)


def _read(folded: Network) -> tuple[sp.csr_array, sp.csr_array, Array]:
    """The rows of a folded network: its `Dense` operators, one after the other."""
    n = folded.input_size
    start: dict[str, int] = {}  # first column of a tensor's values among (x, h)
    joined: dict[str, tuple[str, ...]] = {}
    rows: dict[str, tuple[list[tuple[int, Array]], Array]] = {}
    parts, columns = [], n
    for op in folded.ops:
        match op:
            case Reshape():
                start[op.output] = 0
            case Concat():
                joined[op.output] = op.inputs
            case Dense():
                names = joined.get(op.inputs[0], op.inputs)
                widths = [int(np.prod(folded.shapes[name])) for name in names]
                cut = np.split(op.weight, np.cumsum(widths)[:-1], axis=1)
                assert op.bias is not None  # folding always states one
                rows[op.output] = [(start[name], block) for name, block in zip(names, cut, strict=True)], op.bias
            case Relu():
                parts.append(rows[op.inputs[0]])
                start[op.output] = columns
                columns += op.out_size
            case _:
                raise ValueError(f"a folded network of Relus has no operator {op.op_type}")
    parts.append(rows[folded.output])
    blocks = []
    for pieces, bias in parts:
        row, column, data = [], [], []
        for first, weight in pieces:
            i, j = np.nonzero(weight)
            row.append(i)
            column.append(j + first)
            data.append(weight[i, j])
        found = (np.concatenate(data), (np.concatenate(row), np.concatenate(column)))
        blocks.append(sp.csr_array(found, shape=(len(bias), columns)))
    whole = sp.csr_array(sp.vstack(blocks, format="csr"))
    return sp.csr_array(whole[:, :n]), sp.csr_array(whole[:, n:]), np.concatenate([bias for _, bias in parts])
