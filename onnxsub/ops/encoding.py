"""What an operator's MILP rows are written in: linear expressions over the columns of a model, and where rows go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from onnxsub.ops.base import Array

__all__ = ["Encoder", "LinExpr", "integers"]


@dataclass(frozen=True, eq=False)
class LinExpr:
    """`matrix @ columns + constant`, one row per element of a flattened tensor.

    Columns may be added to the model later; a narrower matrix stands for zeros there.
    """

    matrix: sp.csr_array
    constant: Array

    def __len__(self) -> int:
        return int(self.constant.shape[0])

    def apply(self, m: sp.csr_array) -> LinExpr:
        """`m @ self`."""
        return LinExpr(sp.csr_array(m @ self.matrix), m @ self.constant)

    def shift(self, c: Array) -> LinExpr:
        return LinExpr(self.matrix, self.constant + c)

    def scale(self, factor: Array) -> LinExpr:
        """Row i times `factor[i]`; zero stays zero, also times infinity. Solvers refuse a program with infinite numbers."""
        m = self.matrix
        factors = np.repeat(factor, np.diff(m.indptr))
        with np.errstate(invalid="ignore", over="ignore"):
            data, constant = np.where(m.data == 0, 0.0, m.data * factors), self.constant * factor
        constant = np.where(self.constant == 0, 0.0, constant)
        return LinExpr(sp.csr_array((data, m.indices, m.indptr), shape=m.shape), constant)

    def take(self, index: Array) -> LinExpr:
        return LinExpr(sp.csr_array(self.matrix[index]), self.constant[index])

    def spread(self, index: Array, length: int) -> LinExpr:
        """Row i becomes row `index[i]` of `length` rows; the others are zero."""
        put = sp.csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape=(length, len(index)))
        return self.apply(put)

    def widened(self, columns: int) -> LinExpr:
        """The same expression over `columns` columns."""
        rows, have = self.matrix.shape
        if have == columns:
            return self
        m = self.matrix
        return LinExpr(sp.csr_array((m.data, m.indices, m.indptr), shape=(rows, columns)), self.constant)

    def __add__(self, other: LinExpr) -> LinExpr:
        width = max(self.matrix.shape[1], other.matrix.shape[1])
        a, b = self.widened(width), other.widened(width)
        return LinExpr(sp.csr_array(a.matrix + b.matrix), a.constant + b.constant)

    def __neg__(self) -> LinExpr:
        return LinExpr(-self.matrix, -self.constant)

    def __sub__(self, other: LinExpr) -> LinExpr:
        return self + (-other)

    @staticmethod
    def constants(values: Array) -> LinExpr:
        return LinExpr(sp.csr_array((len(values), 0)), np.asarray(values, dtype=np.float64))

    @staticmethod
    def stack(parts: list[LinExpr]) -> LinExpr:
        """All rows of `parts`, one after the other."""
        width = max(p.matrix.shape[1] for p in parts)
        return LinExpr(
            sp.csr_array(sp.vstack([p.widened(width).matrix for p in parts])), np.concatenate([p.constant for p in parts])
        )


class Encoder(Protocol):
    """A MILP under construction."""

    def bounds(self, output: str) -> tuple[Array, Array]:
        """Pre-activation interval of the operator that writes tensor `output`, flattened, float64, proved."""
        ...

    def continuous(self, lower: Array, upper: Array) -> LinExpr:
        """New continuous columns within `[lower, upper]`."""
        ...

    def binary(self, count: int) -> LinExpr:
        """New columns in {0, 1}."""
        ...

    def variables(self, expression: LinExpr, lower: Array, upper: Array) -> LinExpr:
        """New columns equal to `expression` (so that a long row stands in the model once)."""
        ...

    def rows(self, expression: LinExpr, lower: Array | float, upper: Array | float) -> None:
        """`lower <= expression <= upper`, infinite ends allowed."""
        ...


def integers(encoder: Encoder, lower: Array, upper: Array) -> LinExpr:
    """New columns that are integers within `[lower, upper]`: the lower end and binary digits of what is above it."""
    count = (upper - lower).astype(np.int64)
    m = encoder.continuous(lower, upper)
    left = m
    for digit in range(int(count.max()).bit_length()):
        has = np.flatnonzero(count >= 2**digit)
        left = left - encoder.binary(len(has)).scale(np.full(len(has), 2.0**digit)).spread(has, len(lower))
    encoder.rows(left, lower, lower)
    return m
