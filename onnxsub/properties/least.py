r"""The smallest row of each clause as an output of a network: a counterexample is where one of them is `>= 0`.

    min(a, b) = a - relu(a - b)

The linear bounds of that Relu from above are `a - alpha (a - b)` with alpha in [0, 1]: the convex combinations of both rows. So a
verifier that optimises the slopes of Relu optimises, for every node on its own, the combination of a clause's rows that bounds it.
"""

from __future__ import annotations

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Array, Operator
from onnxsub.ops.combine import Sum
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten
from onnxsub.ops.relu import Relu
from onnxsub.properties.rows import RowSet

__all__ = ["as_least_network"]


def as_least_network(network: Network, rows: RowSet) -> Network:
    """The network with `min_r (b - A y)_r` of every clause behind it, `(clauses + 1,)`; the last output is the constant 0.

    Rows are compared in pairs, so a clause of m rows costs m - 1 Relus.
    """
    flat = flatten(network.output, network.output_shape, "property:outputs")
    order = np.concatenate([np.asarray(members, dtype=np.int64) for members in rows.clauses])
    source: Affine = _dense("property:rows", flat.output, -rows.A[order], rows.b[order])
    ops: list[Operator] = [flat, source]
    counts = [len(members) for members in rows.clauses]
    level = 0
    while max(counts) > 1:
        first, second, paired, counts = _pairs(counts)
        size = source.out_shape[0]
        stem = f"property:least:{level}"
        kept = _dense(f"{stem}:first", source.output, np.eye(size)[first])
        difference = _dense(f"{stem}:difference", source.output, np.eye(size)[first[paired]] - np.eye(size)[second])
        shape = (len(second),)
        over = Relu(
            op_type="Property", node="max(0, a - b)", inputs=(difference.output,), output=f"{stem}:over", in_shapes=(shape,),
            out_shape=shape,
        )  # fmt: skip
        spread = _dense(f"{stem}:spread", over.output, np.eye(len(first))[:, paired])
        shape = (len(first),)
        total = Sum(
            op_type="Property", node="a - max(0, a - b)", inputs=(kept.output, spread.output), output=stem,
            in_shapes=(shape, shape), out_shape=shape, signs=(1, -1),
        )  # fmt: skip
        ops += [kept, difference, over, spread, total]
        source, level = total, level + 1
    ops.append(_dense("property:least", source.output, np.eye(len(counts) + 1, len(counts))))
    return network.then(tuple(ops))


def _pairs(counts: list[int]) -> tuple[Array, Array, Array, list[int]]:
    """How one level compares the values of clauses that have `counts` of them.

    Returns:
        Positions of what is kept (the first of each pair, and what has no partner), positions of the seconds, which of the
        kept ones have a second, and the counts of the next level.
    """
    first: list[int] = []
    second: list[int] = []
    paired: list[int] = []
    at = 0
    for count in counts:
        for k in range(0, count, 2):
            if k + 1 < count:
                paired.append(len(first))
                second.append(at + k + 1)
            first.append(at + k)
        at += count
    return np.array(first), np.array(second), np.array(paired), [(n + 1) // 2 for n in counts]


def _dense(output: str, source: str, weight: Array, bias: Array | None = None) -> Dense:
    rows, columns = weight.shape
    return Dense(
        op_type="Property", node=output, inputs=(source,), output=output, in_shapes=((columns,),), out_shape=(rows,), weight=weight,
        bias=bias,
    )  # fmt: skip
