"""The limit that a normalisation keeps: it holds for every input, is reached, and bounds where the variance may be anything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.bilinear import Product
from onnxsub.ops.normalised import Normalised
from onnxsub.propagate import compute_bounds
from tests.ops.tools import Case, normal, random

N = 6
SHAPE = (2, N)
ones = np.ones(N, np.float32)
CASES = {
    "LayerNormalization": (Case("LayerNormalization", (SHAPE, ones), {"epsilon": 1e-12}, (17,)), math.sqrt(N - 1)),
    "RMSNormalization": (Case("RMSNormalization", (SHAPE, ones), {"epsilon": 1e-12}, (23,)), math.sqrt(N)),
    "InstanceNormalization": (
        Case("InstanceNormalization", ((2, N), ones[:2], 0 * ones[:2]), {"epsilon": 1e-12}, (22,)), math.sqrt(N - 1)
    ),
    "GroupNormalization": (
        Case("GroupNormalization", ((2, 3), ones[:2], 0 * ones[:2]), {"epsilon": 1e-12, "num_groups": 1}, (21,)), math.sqrt(5)
    ),
    "LpNormalization 2": (Case("LpNormalization", (SHAPE,), {}, (22,)), 1.0),
    "LpNormalization 1": (Case("LpNormalization", (SHAPE,), {"p": 1}, (22,)), 1.0),
}  # fmt: skip
ALL = pytest.mark.parametrize("name", CASES)


def network(name: str) -> tuple[Network, Normalised]:
    case = CASES[name][0]
    ops = case.ops(case.opsets[-1])
    (step,) = [op for op in ops if isinstance(op, Normalised)]
    return Network("x0", case.variables["x0"], ops[-1].output, ops), step


@ALL
def test_the_limit_is_reached_and_not_passed(name: str) -> None:
    f, step = network(name)
    assert step.limit == pytest.approx(CASES[name][1])
    x = normal((400, *f.input_shape), 1)
    x[:100] *= 1e4
    x[100:200] = 0.0
    x[100:200].reshape(100, -1)[:, 0] = normal((100,), 2)  # one number away from all others
    y = f.values(x)[step.output].abs()
    assert float(y.max()) <= step.most
    assert float(y.max()) >= step.limit * (1 - 1e-6)


@ALL
def test_whatever_the_input_is(name: str) -> None:
    f, step = network(name)
    for radius in (1e-3, 1.0, 1e6):
        for method in ("ibp", "crown"):
            bounds = compute_bounds(f, np.full(f.input_shape, -radius), np.full(f.input_shape, radius), method)
            low, high = bounds.output
            assert float(high.max()) <= step.limit * (1 + 1e-6)
            assert float(low.min()) >= -step.limit * (1 + 1e-6)


def allowed(op: Normalised, box: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """A point of the box of both factors, and where its product keeps the limit."""
    share = torch.rand(box[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (box[0] + share * (box[1] - box[0])).clamp(min=box[0], max=box[1])
    return x, op.forward(x).abs() <= op.limit


@ALL
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 0.5, 30.0])
def test_bounds_hold_for_every_product_that_keeps_it(name: str, scale: float) -> None:
    op = network(name)[1]
    shape = (4, *op.in_shapes[0])
    centre, radius = normal(shape, 1), normal(shape, 2).abs() * scale
    box = centre - radius, centre + radius
    low, high = op.interval(box)
    rows = torch.eye(op.out_size, dtype=torch.float64).reshape(1, op.out_size, *op.out_shape)
    found = op.relax(*box, "crown")
    (below, least), (above, most) = found.lower(rows), found.lower(-rows)
    kept = 0
    for k in range(40):
        x, fine = allowed(op, box, k)
        y = op.forward(x)
        assert ((y >= low) & (y <= high))[fine].all()
        flat, fine = y.flatten(1), fine.flatten(1)
        room = 1e-12 * (1 + flat.abs())
        assert ((below * x.unsqueeze(1)).sum(-1) + least <= flat + room)[fine].all()
        assert (-(above * x.unsqueeze(1)).sum(-1) - most >= flat - room)[fine].all()
        kept += int(fine.sum())
    assert kept > 20
    plain = Product(
        op_type="P", node="p", inputs=op.inputs, output=op.output, in_shapes=op.in_shapes, out_shape=op.out_shape, first=op.first,
        second=op.second,
    ).relax(*box, "crown")  # fmt: skip
    assert (found.spread <= plain.spread).all()
    assert (found.spread <= op.most).all()


@ALL
def test_a_factor_without_an_end_is_limited_too(name: str) -> None:
    op = network(name)[1]
    lower, upper = -torch.ones((1, *op.in_shapes[0]), dtype=torch.float64), torch.ones((1, *op.in_shapes[0]), dtype=torch.float64)
    upper[0, -1] = math.inf
    low, high = op.interval((lower, upper))
    assert (low >= -op.most).all()
    assert (high <= op.most).all()
    rows = torch.eye(op.out_size, dtype=torch.float64).reshape(1, op.out_size, *op.out_shape)
    assert op.relax(lower, upper, "crown").lower(rows)[1].isfinite().all()


def test_one_number_has_no_deviation() -> None:
    case = Case("LayerNormalization", ((3, 1), random((1,), 1), random((1,), 2)), opsets=(17,))
    ops = case.ops(17)
    f = Network("x0", (3, 1), ops[-1].output, ops)
    low, high = compute_bounds(f, np.full((3, 1), -5.0), np.full((3, 1), 5.0), "crown").output
    assert float((high - low).max()) < 1e-6
