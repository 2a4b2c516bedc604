"""Clauses as outputs of a network: one per row of `b - A y`; a counterexample is where all of a clause's rows are `>= 0`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten
from onnxsub.properties.property import Clause, tabled

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
    table, members = tabled(clauses)
    rows, first, place = np.unique(np.concatenate(members), return_index=True, return_inverse=True)
    order = np.argsort(first)
    number: dict[bytes, int] = {}
    kept, numbers = [], np.empty(len(rows), dtype=np.int64)
    for at, row in zip(order.tolist(), rows[order].tolist(), strict=True):
        key = table.A[row].tobytes() + table.b[row].tobytes()
        if key not in number:
            number[key] = len(number)
            kept.append(row)
        numbers[at] = number[key]
    flat, ends = numbers[place].tolist(), np.cumsum([0, *map(len, members)]).tolist()
    own = tuple(tuple(dict.fromkeys(flat[a:b])) for a, b in itertools.pairwise(ends))
    return RowSet(table.A[kept], table.b[kept], own)


def weakest(rows: RowSet) -> tuple[int, ...]:
    """For each clause one that it implies, often itself: where that one holds nowhere, neither does the clause.

    Clauses over the same directions A differ in b only, and `A y <= b` implies `A y <= b'` for `b <= b'`. Of these the largest b
    stands for all that it dominates. The cost is linear in the number of clauses, but for directions with several rows.
    """
    found = np.arange(len(rows.clauses))
    names: dict[bytes, int] = {}
    direction = np.array([names.setdefault(a.tobytes(), len(names)) for a in rows.A])
    groups: dict[bytes, tuple[list[int], list[Array]]] = {}
    for k, members in enumerate(rows.clauses):
        at = np.array(members)
        if len(at) > 1:
            at = at[np.lexsort((rows.b[at], direction[at]))]  # of each direction the smallest end first
            at = at[np.append(True, np.diff(direction[at]) != 0)]
        numbers, ends = groups.setdefault(direction[at].tobytes(), ([], []))
        numbers.append(k)
        ends.append(rows.b[at])
    for numbers, ends in groups.values():
        b, left = np.array(ends), np.array(numbers)
        order = np.argsort(-b.sum(1), kind="stable")
        b, left = b[order], left[order]
        for _ in range(_LEADERS):
            if not len(left):
                break
            below = (b <= b[0]).all(1)
            below[0] = True  # an end that is no number is below nothing
            found[left[below]] = left[0]
            b, left = b[~below], left[~below]
    return tuple(found.tolist())


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
