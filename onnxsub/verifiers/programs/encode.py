"""A network as a mixed-integer linear program (Tjeng et al. 2019), assembled in bulk.

Columns are scaled: the input is `x_i = x0_i + u_i t_i` with `|t_i| <= 1`, where u_i is the radius R that is looked at, or less by a
power of two where the domain leaves less room. The distance is `R s`. A solver's absolute tolerances are thus relative to R, and
of an input to its own room: features of very different size are columns of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Array, Box, Nonlinear
from onnxsub.ops.encoding import LinExpr
from onnxsub.verifiers.programs.solvers.base import Problem
from onnxsub.verifiers.programs.sparse import TINY, joined, stacked, without_tiny

__all__ = ["TINY", "Encoding", "MilpModel", "encode_network"]

_FILL = 4.0
_LARGE = 200_000


class MilpModel:
    """A MILP under construction: the `Encoder` that operators write their rows to.

    Args:
        intervals: proved input interval `(lower, upper)`, flattened, of every non-linear operator, by the tensor it writes.
    """

    def __init__(self, intervals: Mapping[str, tuple[Array, Array]]) -> None:
        self._intervals = intervals
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._integer: list[Array] = []
        self._rows: list[tuple[sp.csr_array, Array, Array]] = []
        self.columns = 0

    def bounds(self, output: str) -> tuple[Array, Array]:
        return self._intervals[output]

    def continuous(self, lower: Array, upper: Array) -> LinExpr:
        return self._add(np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64), integer=False)

    def binary(self, count: int) -> LinExpr:
        return self._add(np.zeros(count), np.ones(count), integer=True)

    def _add(self, lower: Array, upper: Array, *, integer: bool) -> LinExpr:
        n = len(lower)
        self._lower.append(lower)
        self._upper.append(upper)
        self._integer.append(np.full(n, integer))
        new = np.arange(self.columns, self.columns + n)
        matrix = sp.csr_array((np.ones(n), new, np.arange(n + 1)), shape=(n, self.columns + n))
        self.columns += n
        return LinExpr(matrix, np.zeros(n))

    def variables(self, expression: LinExpr, lower: Array, upper: Array) -> LinExpr:
        # a row of one column or none is as short as the variable that would stand for it
        long = np.flatnonzero(np.diff(expression.matrix.indptr) > 1)
        if len(long) == 0:
            return expression
        new = self.continuous(lower[long], upper[long])
        self.rows(expression.take(long) - new, 0.0, 0.0)
        if len(long) == len(expression):
            return new
        short = np.ones(len(expression))
        short[long] = 0.0
        return _without_zeros(expression.scale(short)) + new.spread(long, len(expression))

    def rows(self, expression: LinExpr, lower: Array | float, upper: Array | float) -> None:
        n = len(expression)
        ends = (np.broadcast_to(np.asarray(e, dtype=np.float64), (n,)) - expression.constant for e in (lower, upper))
        self._rows.append((expression.matrix, *ends))

    def binaries(self, first: int) -> Array:
        """The binaries among the columns from `first` on."""
        integer = np.concatenate(self._integer) if self._integer else np.zeros(0, dtype=bool)
        return first + np.flatnonzero(integer[first:])

    def column_ends(self) -> tuple[Array, Array]:
        """Lower and upper end of every column so far."""
        return joined(self._lower), joined(self._upper)

    def problem(self, objective: LinExpr, *extra: tuple[LinExpr, float, float]) -> Problem:
        """`min objective` over all rows so far and `extra` ones `(expression, lower, upper)`; the model itself is unchanged.

        Raises:
            ValueError: a tiny coefficient stands at an unbounded column.
        """
        blocks = list(self._rows)
        for expression, lower, upper in extra:
            blocks.append((expression.matrix, lower - expression.constant, upper - expression.constant))
        n = self.columns
        col_lower, col_upper = self.column_ends()
        matrix = stacked([m for m, _, _ in blocks], n)
        row_lower, row_upper = joined([np.atleast_1d(l) for _, l, _ in blocks]), joined([np.atleast_1d(u) for _, _, u in blocks])
        matrix, moved = without_tiny(matrix, np.maximum(np.abs(col_lower), np.abs(col_upper)))
        c = objective.widened(n).matrix.toarray().reshape(-1)
        integer = np.concatenate(self._integer) if self._integer else np.zeros(0, dtype=bool)
        offset = float(objective.constant[0])
        return Problem(c, offset, sp.csc_array(matrix), row_lower - moved, row_upper + moved, col_lower, col_upper, integer)


def _without_zeros(expression: LinExpr) -> LinExpr:
    matrix = expression.matrix.copy()
    matrix.eliminate_zeros()
    return LinExpr(matrix, expression.constant)


@dataclass(frozen=True, eq=False)
class Encoding:
    """A network over one ball.

    Attributes:
        model: all rows but those of a question.
        logits: one row per class.
        steps: `t`, one row per input element that can move.
        moving: flat positions of these elements.
        origin: where `t = 0`: the anchor, and the value of the elements that cannot move.
        radius: R, the unit of the distance.
        units: u, of the elements that can move.
        before: the flattened input of every non-linear operator, by the tensor that the operator writes.
        switches: the columns of its binaries, likewise.
    """

    model: MilpModel
    logits: LinExpr
    steps: LinExpr
    moving: Array
    origin: Array
    radius: float
    units: Array
    before: Mapping[str, LinExpr]
    switches: Mapping[str, Array] = field(default_factory=dict)

    def margin(self, target: int, label: int) -> LinExpr:
        """`f_t - f_y`."""
        return self.logits.take(np.array([target])) - self.logits.take(np.array([label]))

    def add_distance(self, at_least: float = 0.0) -> LinExpr:
        """A column s with `s >= |t_i|` for all i, as the expression `R s = |x - x0|_inf`, which is known to be `>= at_least`."""
        s = self.model.continuous(np.array([min(at_least / self.radius, 1.0)]), np.ones(1))
        column = s.matrix.indices[0]
        first = self.steps.matrix.indices
        lower, upper = (ends[first] for ends in self.model.column_ends())
        # an element at the end of the domain moves one way only
        shares = self.units / self.radius
        for sign, able in ((1.0, upper > 0), (-1.0, lower < 0)):
            index = first[able]
            n = len(index)
            if n == 0:
                continue
            indices = np.stack([index, np.full(n, column)], axis=1).reshape(-1)
            data = np.stack([sign * shares[able], np.full(n, -1.0)], axis=1).reshape(-1)
            rows = sp.csr_array((data, indices, np.arange(0, 2 * n + 1, 2)), shape=(n, self.model.columns))
            self.model.rows(LinExpr(rows, np.zeros(n)), -np.inf, 0.0)
        return s.scale(np.array([self.radius]))

    def point(self, columns: Array) -> Array:
        """The input `(*input_shape)` of a solution, float64."""
        x = self.origin.reshape(-1).copy()
        x[self.moving] += self.units * columns[self.steps.matrix.indices]
        return x.reshape(self.origin.shape)


def encode_network(
    network: Network,
    x0: Array,
    lower: Array,
    upper: Array,
    intervals: Mapping[str, tuple[Array, Array]],
    *,
    radius: float | None = None,
    enforced: Mapping[str, Array] | None = None,
) -> Encoding:
    """The rows of `network` over the box `[lower, upper]` round `x0`.

    Args:
        x0, lower, upper: `(*input_shape)`, float64.
        intervals: input interval, flattened, of every non-linear operator: proved over that box, or for the points that a
            question is about (`tighten`).
        radius: R, the unit of the distance; default: as far as the box reaches.
        enforced: flat positions of inputs of non-linear operators whose interval must stand in the model as a row, because it
            does not hold on the whole box, by the tensor that the operator writes.

    Raises:
        UnsupportedOperatorError: an operator has no MILP rows.
    """
    x0 = np.asarray(x0, dtype=np.float64)
    centre, lo, hi = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (x0, lower, upper))
    if radius is None:
        radius = float(max((centre - lo).max(), (hi - centre).max()))
    model = MilpModel(intervals)
    moving = np.flatnonzero(hi > lo)
    scale = radius if radius > 0 else 1.0
    below, above = lo[moving] - centre[moving], hi[moving] - centre[moving]
    units = _units(scale, np.maximum(np.abs(below), np.abs(above)))
    steps = model.continuous(below / units, above / units)
    still = np.where(hi > lo, centre, lo)
    x = steps.scale(units).spread(moving, len(centre)).shift(still)
    values = {network.input: x}
    box_of = _boxes(network, lo, hi, intervals)
    before: dict[str, LinExpr] = {}
    switches: dict[str, Array] = {}
    for op in network.ops:
        if "milp" in op.unsupported:
            raise op.missing("milp")
        if isinstance(op, Affine):
            for name, matrix in zip(op.inputs, op.matrices(), strict=True):
                values[name] = _shortened(model, values[name], matrix, partial(box_of, name))
        index = (enforced or {}).get(op.output)
        if index is not None and len(index):
            l, u = intervals[op.output]
            model.rows(values[op.inputs[0]].take(index), l[index], u[index])
        if isinstance(op, Nonlinear):
            before[op.output] = values[op.inputs[0]]
        first = model.columns
        values[op.output] = _without_zeros(op.encode(model, *[values[n] for n in op.inputs]))
        if isinstance(op, Nonlinear):
            switches[op.output] = model.binaries(first)
    return Encoding(model, values[network.output], steps, moving, still.reshape(x0.shape), scale, units, before, switches)


def _units(radius: float, room: Array) -> Array:
    """R over the power of two by which the room of an element is less: rounds nothing, and is R itself from R/2 on."""
    with np.errstate(over="ignore"):  # a room of almost nothing has the finest unit there is
        less = np.floor(np.log2(radius) - np.log2(room)).clip(0, 1000)
    return np.asarray(np.maximum(radius * 2.0**-less, np.finfo(np.float64).tiny))


def _shortened(model: MilpModel, x: LinExpr, matrix: sp.csr_array, box: Callable[[], tuple[Array, Array]]) -> LinExpr:
    """`x`, or variables for its rows where `matrix @ x` would be far denser than `matrix` and `x` are together."""
    length = np.diff(x.matrix.indptr)
    product = float(np.bincount(matrix.indices, minlength=len(length)) @ length)
    product = min(product, float(matrix.shape[0]) * float(x.matrix.shape[1]))
    if product <= _LARGE or product <= _FILL * (matrix.nnz + x.matrix.nnz):
        return x
    return model.variables(x, *box())


def _boxes(
    network: Network, lower: Array, upper: Array, intervals: Mapping[str, tuple[Array, Array]]
) -> Callable[[str], tuple[Array, Array]]:
    """Interval of any tensor, flattened: by interval arithmetic from the proved ones, computed when first asked for."""
    boxes: dict[str, Box] = {}

    def all_boxes() -> None:
        def tensor(a: Array, shape: tuple[int, ...]) -> torch.Tensor:
            return torch.as_tensor(a, dtype=torch.float64).reshape(1, *shape)

        boxes[network.input] = tensor(lower, network.input_shape), tensor(upper, network.input_shape)
        with torch.no_grad():
            for op in network.ops:
                args = [boxes[n] for n in op.inputs]
                if isinstance(op, Nonlinear):
                    l, u = intervals[op.output]
                    args = [(tensor(l, op.in_shapes[0]), tensor(u, op.in_shapes[0]))]
                l_out, u_out = op.interval(*args)
                widen = 1e-9 * torch.maximum(l_out.abs(), u_out.abs()) + 1e-10
                boxes[op.output] = l_out - widen, u_out + widen

    def of(name: str) -> tuple[Array, Array]:
        if not boxes:
            all_boxes()
        l, u = boxes[name]
        return l.reshape(-1).numpy(), u.reshape(-1).numpy()

    return of
