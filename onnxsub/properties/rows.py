"""Clauses as outputs of a network: one per row of `b - A y`; a counterexample is where all of a clause's rows are `>= 0`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten
from onnxsub.properties.property import Clause

__all__ = ["RowSet", "as_margin_network", "row_set", "weakest"]


@dataclass(frozen=True, eq=False)
class RowSet:
    """The different rows of several clauses.

    Attributes:
        A, b: `(rows, outputs)` and `(rows,)`.
        clauses: for each clause the numbers of its rows.
    """

    A: Array
    b: Array
    clauses: tuple[tuple[int, ...], ...]


def row_set(clauses: tuple[Clause, ...]) -> RowSet:
    """The rows of `clauses`, each different one once (whether a row is strict makes no difference here)."""
    number: dict[bytes, int] = {}
    matrix, bound, members = [], [], []
    for clause in clauses:
        own = []
        for a, b in zip(clause.A, clause.b, strict=True):
            key = a.tobytes() + b.tobytes()
            if key not in number:
                number[key] = len(number)
                matrix.append(a)
                bound.append(float(b))
            own.append(number[key])
        members.append(tuple(dict.fromkeys(own)))
    return RowSet(np.array(matrix), np.array(bound), tuple(members))


def weakest(rows: RowSet) -> tuple[int, ...]:
    """For each clause one that it implies, often itself: where that one holds nowhere, neither does the clause.

    Clauses over the same directions A differ in b only, and `A y <= b` implies `A y <= b'` for `b <= b'`. Of these the largest b
    stands for all that it dominates. The cost is linear in the number of clauses, but for directions with several rows.
    """
    found = list(range(len(rows.clauses)))
    groups: dict[tuple[bytes, ...], list[int]] = {}
    ends: list[dict[bytes, float]] = []
    for k, members in enumerate(rows.clauses):
        own: dict[bytes, float] = {}
        for r in members:
            key = rows.A[r].tobytes()
            own[key] = min(own.get(key, np.inf), float(rows.b[r]))
        ends.append(own)
        groups.setdefault(tuple(sorted(own)), []).append(k)
    for key, group in groups.items():
        leaders: list[int] = []
        for k in sorted(group, key=lambda k: -sum(ends[k].values())):
            above = (j for j in leaders[:_LEADERS] if all(ends[j][a] >= ends[k][a] for a in key))
            leader = next(above, None)
            if leader is None:
                leaders.append(k)
            else:
                found[k] = leader
    return tuple(found)


_LEADERS = 16  # clauses of one group that a clause is compared with: one is enough where there is a single row


def as_margin_network(network: Network, rows: RowSet | Clause) -> Network:
    """The network with `b - A y` behind it, `(rows + 1,)`; the last output is the constant 0.

    With that zero every row is a margin against one and the same class, which is what the verifiers for classes take.
    """
    flat = flatten(network.output, network.output_shape, "property:outputs")
    count, outputs = rows.A.shape
    last = Dense(
        op_type="Property",
        node="b - A y",
        inputs=(flat.output,),
        output="property:rows",
        in_shapes=((outputs,),),
        out_shape=(count + 1,),
        weight=np.concatenate([-rows.A, np.zeros((1, outputs))]),
        bias=np.append(rows.b, 0.0),
    )
    return network.then((flat, last))
