"""MILP rows: with z fixed, both the smallest and the largest y are s(z); and the relaxation is no weaker than stated."""

from __future__ import annotations

from dataclasses import dataclass, field

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.base import Activation, Affine, Array, Operator
from onnxsub.ops.encoding import LinExpr
from onnxsub.ops.substituted import Substituted
from tests.ops.cases import CASES
from tests.ops.tools import Case, boxes, inside, normal, random

F32 = np.float32
SHAPE = (2, 2, 3)


@dataclass
class Recorder:
    """The simplest encoder: keeps columns and rows; solves with HiGHS."""

    interval: tuple[Array, Array]
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integer: list[bool] = field(default_factory=list)
    kept: list[tuple[LinExpr, Array, Array]] = field(default_factory=list)

    def bounds(self, output: str) -> tuple[Array, Array]:
        return self.interval

    def _new(self, lower: Array, upper: Array, integer: bool) -> LinExpr:
        start, n = len(self.lower), len(lower)
        assert np.all(lower <= upper)
        self.lower.extend(np.asarray(lower, dtype=float))
        self.upper.extend(np.asarray(upper, dtype=float))
        self.integer.extend([integer] * n)
        columns = sp.csr_array((np.ones(n), (np.arange(n), start + np.arange(n))), shape=(n, start + n))
        return LinExpr(columns, np.zeros(n))

    def continuous(self, lower: Array, upper: Array) -> LinExpr:
        return self._new(lower, upper, False)

    def binary(self, count: int) -> LinExpr:
        return self._new(np.zeros(count), np.ones(count), True)

    def variables(self, expression: LinExpr, lower: Array, upper: Array) -> LinExpr:
        new = self.continuous(lower, upper)
        self.rows(new - expression, 0.0, 0.0)
        return new

    def rows(self, expression: LinExpr, lower: Array | float, upper: Array | float) -> None:
        n = len(expression)
        self.kept.append((expression, np.broadcast_to(lower, n), np.broadcast_to(upper, n)))

    def optimum(self, cost: LinExpr, sense: int, integer: bool = True) -> tuple[float, Array]:
        """Smallest (sense 1) or largest (-1) value of the sum of `cost`, and the point."""
        n = len(self.lower)
        h = highspy.Highs()  # type: ignore[no-untyped-call]
        h.setOptionValue("output_flag", False)
        h.setOptionValue("threads", 1)
        for name in ("primal_feasibility_tolerance", "mip_feasibility_tolerance"):
            h.setOptionValue(name, 1e-9)
        c = np.asarray(cost.widened(n).matrix.sum(axis=0)).reshape(-1) * sense
        h.addVars(n, np.array(self.lower), np.array(self.upper))
        h.changeColsCost(n, np.arange(n, dtype=np.int32), c)
        if integer:
            for i in np.flatnonzero(self.integer):
                h.changeColIntegrality(int(i), highspy.HighsVarType.kInteger)
        for expression, low, high in self.kept:
            wide = expression.widened(n)
            m = sp.csr_array(wide.matrix)
            h.addRows(
                len(wide), low - wide.constant, high - wide.constant, m.nnz,
                m.indptr[:-1].astype(np.int32), m.indices.astype(np.int32), m.data,
            )  # fmt: skip
        h.run()
        assert h.getModelStatus() == highspy.HighsModelStatus.kOptimal
        point = np.array(h.getSolution().col_value)
        return float(sense * (c @ point) + cost.constant.sum()), point


def encoded(op: Operator, box: tuple[torch.Tensor, torch.Tensor], fixed: torch.Tensor | None) -> tuple[Recorder, LinExpr]:
    """The operator on input columns within `box`, or fixed to a point."""
    lower, upper = (t.reshape(-1).numpy() for t in box)
    recorder = Recorder((lower, upper))
    ends = (lower, upper) if fixed is None else (fixed.reshape(-1).numpy(),) * 2
    return recorder, op.encode(recorder, recorder.continuous(*ends))


def _ops() -> dict[str, Operator]:
    cases = {
        "Relu": Case("Relu", (SHAPE,)),
        "Abs": Case("Abs", (SHAPE,)),
        "Leaky 0.1": Case("LeakyRelu", (SHAPE,), {"alpha": 0.1}),
        "Leaky 1": Case("LeakyRelu", (SHAPE,), {"alpha": 1.0}),
        "Leaky 2.5": Case("LeakyRelu", (SHAPE,), {"alpha": 2.5}),
        "Leaky -0.5": Case("LeakyRelu", (SHAPE,), {"alpha": -0.5}),
        "PRelu": Case("PRelu", (SHAPE, random((2, 2, 1), 1, 2.0))),
        "Clip 0 6": Case("Clip", (SHAPE, np.array(0, F32), np.array(6, F32))),
        "Clip -0.4 0.3": Case("Clip", (SHAPE, np.array(-0.4, F32), np.array(0.3, F32))),
        "Clip -1": Case("Clip", (SHAPE, np.array(-1, F32))),
        "Clip 0.5": Case("Clip", (SHAPE, None, np.array(0.5, F32))),
        "Clip 1 1": Case("Clip", (SHAPE, np.array(1, F32), np.array(1, F32))),
        "MaxPool": Case("MaxPool", ((1, 4, 4),), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        "MaxPool overlapping": Case("MaxPool", ((1, 3, 4),), {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}),
        "GlobalMaxPool": Case("GlobalMaxPool", ((2, 2, 3),)),
    }
    found = {name: case.op1() for name, case in cases.items()}
    kept = np.arange(12).reshape(SHAPE) % 3 != 0
    for name in ("Relu", "Clip -0.4 0.3", "PRelu"):
        found[f"{name}, substituted"] = Substituted.of(found[name], kept, random(SHAPE, 3), random(SHAPE, 4))  # type: ignore[arg-type]
    return found


OPS = _ops()
ALL = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


@ALL
@pytest.mark.parametrize("seed", range(4))
def test_fixed_input_fixes_the_output(op: Operator, seed: int) -> None:
    box = boxes(op, batch=1, seed=seed)[0]
    x = inside(box, seed)
    y = op.forward(x).reshape(-1).numpy()
    recorder, result = encoded(op, box, x)
    assert len(result) == op.out_size
    for sense in (1, -1):
        value, point = recorder.optimum(result, sense)
        got = result.widened(len(point)).matrix @ point + result.constant
        np.testing.assert_allclose(got, y, atol=1e-6)
        assert value == pytest.approx(y.sum(), abs=1e-5)


@ALL
@pytest.mark.parametrize("seed", range(2))
def test_free_input_reaches_exactly_the_interval(op: Operator, seed: int) -> None:
    box = boxes(op, batch=1, seed=seed)[0]
    lower, upper = op.interval(box)
    recorder, result = encoded(op, box, None)
    for i in range(op.out_size):
        row = result.take(np.array([i]))
        assert recorder.optimum(row, 1)[0] == pytest.approx(float(lower.reshape(-1)[i]), abs=1e-6)
        assert recorder.optimum(row, -1)[0] == pytest.approx(float(upper.reshape(-1)[i]), abs=1e-6)


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if isinstance(op, Activation)])
def test_the_relaxation_is_inside_the_linear_bounds(name: str) -> None:
    # without integrality the rows must imply crown's lines, which are some of the valid inequalities
    op = OPS[name]
    assert isinstance(op, Activation)
    box = boxes(op, batch=1, seed=3)[0]
    recorder, result = encoded(op, box, None)
    lines = op.relax(*box, "crown")
    z = LinExpr(sp.csr_array(sp.eye_array(12, len(recorder.lower))), np.zeros(12))
    slope, offset = lines.upper_slope.reshape(-1).numpy(), lines.upper_offset.reshape(-1).numpy()
    gap, _ = recorder.optimum(result - z.scale(slope), -1, integer=False)
    assert gap <= offset.sum() + 1e-6
    slope, offset = lines.lower_slope.reshape(-1).numpy(), lines.lower_offset.reshape(-1).numpy()
    gap, _ = recorder.optimum(result - z.scale(slope), 1, integer=False)
    assert gap >= offset.sum() - 1e-6


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if isinstance(op, Activation)])
def test_stable_units_add_nothing(name: str) -> None:
    op = OPS[name]
    x = normal((1, *SHAPE))
    recorder, _ = encoded(op, (x, x), None)
    assert not any(recorder.integer)
    assert not recorder.kept


def test_dominated_elements_need_no_binary() -> None:
    op = OPS["GlobalMaxPool"]
    lower = torch.zeros((1, 2, 2, 3), dtype=torch.float64)
    upper = torch.ones_like(lower)
    lower[0, 0, 1, 1], upper[0, 0, 1, 1] = 1.0, 2.0
    lower[0, 1, 0, 0], lower[0, 1, 1, 2], upper[0, 1, 0, 0] = 0.9, 0.95, 0.97
    upper[0, 1, 0, 1] = 0.95
    recorder, result = encoded(op, (lower, upper), None)
    # channel 0: one element is left; channel 1: all but the one that cannot exceed 0.95
    assert sum(recorder.integer) == 5
    assert recorder.optimum(result.take(np.array([0])), -1)[0] == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["Sigmoid", "Tanh"])
def test_smooth_functions_have_no_rows_unless_all_units_are_replaced(name: str) -> None:
    op = Case(name, (SHAPE,)).op1()
    box = boxes(op, batch=1)[0]
    with pytest.raises(UnsupportedOperatorError, match=f"{name} .*has no milp"):
        encoded(op, box, None)
    none = Substituted.of(op, np.zeros(SHAPE, dtype=bool), random(SHAPE, 3), random(SHAPE, 4))  # type: ignore[arg-type]
    x = inside(box, 1)
    _, result = encoded(none, box, x)
    got = result.matrix @ x.reshape(-1).numpy() + result.constant
    np.testing.assert_allclose(got, none.forward(x).reshape(-1).numpy(), rtol=1e-12)
    some = Substituted.of(op, np.arange(12).reshape(SHAPE) == 3, random(SHAPE, 3), random(SHAPE, 4))  # type: ignore[arg-type]
    with pytest.raises(UnsupportedOperatorError, match="no milp"):
        encoded(some, box, None)


AFFINE = [pytest.param(op, id=f"{c}#{i}") for c in CASES for i, op in enumerate(c.ops(c.opsets[-1])) if isinstance(op, Affine)]


@pytest.mark.parametrize("op", AFFINE)
def test_affine_operators_are_linear_expressions(op: Affine) -> None:
    xs = [normal((1, *s), i) for i, s in enumerate(op.in_shapes)]
    result = op.encode(Recorder((np.zeros(0), np.zeros(0))), *[LinExpr.constants(x.reshape(-1).numpy()) for x in xs])
    np.testing.assert_allclose(result.constant, op.forward(*xs).reshape(-1).numpy(), rtol=1e-10, atol=1e-10)
