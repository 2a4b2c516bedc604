"""What a property is: boxes of inputs, and for each the outputs that make a counterexample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array, Shape

__all__ = ["Case", "Clause", "Picked", "Property", "Table", "tabled"]


@dataclass(frozen=True, eq=False)
class Clause:
    """The conjunction `A y <= b`, row by row; `A_i y < b_i` where `strict_i`.

    Attributes:
        A: `(rows, outputs)`, float64.
        b: `(rows,)`, float64.
        strict: `(rows,)`, bool.
    """

    A: Array
    b: Array
    strict: Array

    def margins(self, y: Array) -> Array:
        """`b - A y`, `(rows,)`, float64: the clause holds where all of them are `>= 0` (`> 0` for a strict row)."""
        return np.asarray(self.b - self.A @ np.asarray(y, dtype=np.float64).reshape(-1))

    def holds(self, y: Array) -> bool:
        """Whether `y` satisfies every row. NaN satisfies none."""
        margins = self.margins(y)
        return bool(np.where(self.strict, margins > 0, margins >= 0).all())


@dataclass(frozen=True, eq=False)
class Table:
    """Rows that clauses pick from: `A` `(rows, outputs)`, `b` `(rows,)`, `strict` `(rows,)`."""

    A: Array
    b: Array
    strict: Array


class Picked(Clause):
    """A clause that holds the numbers of its rows in a table, so that rows of many clauses are stored once."""

    def __init__(self, table: Table, members: Array) -> None:
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "members", members)

    table: Table
    members: Array

    @property
    def A(self) -> Array:  # noqa: N802 - the matrix's name
        return np.asarray(self.table.A[self.members])

    @property
    def b(self) -> Array:
        return np.asarray(self.table.b[self.members])

    @property
    def strict(self) -> Array:
        return np.asarray(self.table.strict[self.members])


def tabled(clauses: Sequence[Clause]) -> tuple[Table, list[Array]]:
    """The rows of some clauses, and the numbers of each one's rows; rows that are stored once stay so."""
    first = clauses[0]
    if isinstance(first, Picked) and all(isinstance(c, Picked) and c.table is first.table for c in clauses):
        return first.table, [c.members for c in clauses if isinstance(c, Picked)]
    table = Table(*(np.concatenate([getattr(c, name) for c in clauses]) for name in ("A", "b", "strict")))
    ends = np.cumsum([len(c.b) for c in clauses])
    return table, np.split(np.arange(len(table.b)), ends[:-1])


@dataclass(frozen=True, eq=False)
class Case:
    """A box of inputs and the disjunction of the clauses: a counterexample is an x in the box whose output satisfies one clause.

    Attributes:
        lower, upper: the closed box, `(inputs,)`, float64, `lower <= upper`.
        clauses: at least one.
    """

    lower: Array
    upper: Array
    clauses: tuple[Clause, ...]

    def contains(self, x: Array) -> bool:
        """Whether x lies in the box, with no tolerance."""
        flat = np.asarray(x, dtype=np.float64).reshape(-1)
        return bool(((self.lower <= flat) & (flat <= self.upper)).all())


@dataclass(frozen=True, eq=False)
class Property:
    r"""`\exists x: OR_c (x \in box_c AND OR_k A_ck f(x) <= b_ck)`: satisfiable means that the network is *not* safe.

    x and y are the network's own input and output, flattened in row-major order: a network of normalised inputs has boxes
    in normalised units, and a trailing Softmax counts.

    Attributes:
        cases: at least one.
        input_shape, output_shape: as declared, batch axis included; flat `(n,)` in VNN-LIB 1.0.
        version: of the text that it was read from, `1.0` or `2.0`.
        input_name, output_name: of the tensors in that text.
        where: how messages call it: the file, or `property`.
    """

    cases: tuple[Case, ...]
    input_shape: Shape
    output_shape: Shape
    version: str = "1.0"
    input_name: str = "X"
    output_name: str = "Y"
    where: str = "property"

    @property
    def inputs(self) -> int:
        return math.prod(self.input_shape)

    @property
    def outputs(self) -> int:
        return math.prod(self.output_shape)

    @property
    def clauses(self) -> int:
        """Number of clauses of all cases together."""
        return sum(len(case.clauses) for case in self.cases)

    def satisfied_by(self, x: Array, y: Array) -> bool:
        """Whether (x, y) is a counterexample: float64, no tolerance on either side.

        Args:
            x: the input, any shape of `inputs` elements.
            y: the network's output at x, any shape of `outputs` elements.
        """
        return any(case.contains(x) and any(clause.holds(y) for clause in case.clauses) for case in self.cases)
