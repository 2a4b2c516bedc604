"""Where with a condition that depends on the input, in general: bounds of either branch, rows, splits, slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.ops.either import Either
from tests.ops.test_encode import encoded
from tests.ops.tools import Case, normal, random

SHAPE = (2, 3, 4)

EITHER = {
    "whole": Case("Where", (SHAPE, SHAPE, SHAPE), {}, (16,), truths=(0,)),
    "broadcast": Case("Where", ((2, 3, 1), (1, 3, 4), SHAPE), {}, (16,), truths=(0,)),
    "a constant": Case("Where", (SHAPE, random((3, 4)), SHAPE), {}, (16,), truths=(0,)),
}


def either(name: str) -> Either:
    op = EITHER[name].ops(16)[-1]
    assert isinstance(op, Either)
    return op


def boxes_of(op: Either, scale: float) -> tuple[Tensor, Tensor]:
    """Four boxes, of which truths are 0, 1 and either."""
    shape = (4, *op.in_shapes[0])
    centre, radius = normal(shape, 1) * 2, normal(shape, 2).abs() * scale
    radius[3].reshape(-1)[::3] = 0.0
    lower, upper = centre - radius, centre + radius
    size = math.prod(op.parts[0][1])
    kind = torch.arange(size) % 3
    lower[:, :size], upper[:, :size] = (kind == 1).double(), (kind != 0).double()
    return lower, upper


def within(op: Either, box: tuple[Tensor, Tensor], seed: int) -> Tensor:
    share = torch.rand(box[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (box[0] + (share * 1.5 - 0.25).clamp(0, 1) * (box[1] - box[0])).clamp(min=box[0], max=box[1])
    size = math.prod(op.parts[0][1])
    x[:, :size] = torch.round(x[:, :size])
    return x


@pytest.mark.parametrize("name", EITHER)
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 30.0])
def test_bounds_of_either_hold(name: str, scale: float) -> None:
    op = either(name)
    box = boxes_of(op, scale)
    low, high = op.interval(box)
    a = normal((4, 5, *op.out_shape), 9)
    relaxation = op.relax(*box, "crown")
    (below, least), (above, most) = relaxation.lower(a), relaxation.lower(-a)
    for k in range(60):
        x = within(op, box, k)
        y = op.forward(x)
        assert ((y >= low) & (y <= high)).all()
        value = (a * y.unsqueeze(1)).flatten(2).sum(-1)
        size = 1e-13 * (1 + (a * y.unsqueeze(1)).abs().flatten(2).sum(-1) + (below * x.unsqueeze(1)).abs().sum(-1))
        assert ((below * x.unsqueeze(1)).sum(-1) + least <= value + size).all()
        assert (-(above * x.unsqueeze(1)).sum(-1) - most >= value - size).all()
    if scale < 1e-5:  # where both branches are numbers the planes are exact
        gap = -(below + above).abs().max() - (least + most)
        assert (gap <= 1e-6).all()


@pytest.mark.parametrize("name", EITHER)
def test_rows_of_either(name: str) -> None:
    op = either(name)
    box = tuple(t[:1] for t in boxes_of(op, 1.0))
    x = within(op, (box[0], box[1]), 3)
    recorder, result = encoded(op, (box[0], box[1]), x)
    y = op.forward(x).reshape(-1).numpy()
    for sense in (1, -1):
        value, point = recorder.optimum(result, sense)
        np.testing.assert_allclose(result.widened(len(point)).matrix @ point + result.constant, y, atol=1e-6)
        assert value == pytest.approx(y.sum(), abs=1e-5)


@pytest.mark.parametrize("name", EITHER)
def test_what_splits_of_either_are_worth(name: str) -> None:
    op = either(name)
    lower, upper = boxes_of(op, 1.0)
    settled = op.affine_on(lower, upper)
    losses = op.losses(normal((4, *op.out_shape)), lower, upper)
    size = math.prod(op.parts[0][1])
    assert settled[:, :size].all()
    assert (losses[settled] == 0).all()
    assert (~settled).any()
    assert (losses >= 0).all()
    known = lower.clone()
    known[:, :size] = 1.0
    assert op.affine_on(torch.minimum(known, lower.where(torch.arange(lower.shape[1]) >= size, known)), upper.where(
        torch.arange(lower.shape[1]) >= size, known)).all()  # fmt: skip


@pytest.mark.parametrize("name", EITHER)
def test_slopes_of_either(name: str) -> None:
    op = either(name)
    box = tuple(t[:1] for t in boxes_of(op, 1.0))
    rows = normal((3, *op.out_shape), 1), torch.zeros((3, *op.out_shape), dtype=torch.float64)
    ((centre, radius),) = op.transpose_slopes(rows, (box[0], box[1]))
    for seed in range(50):
        x, other = (within(op, (box[0], box[1]), s) for s in (seed, seed + 1000))
        step = (x - other).expand_as(centre)
        moved = (rows[0] * (op.forward(x) - op.forward(other))).flatten(1).sum(1)
        middle, reach = (centre * step).sum(1), (radius * step.abs()).sum(1)
        assert ((moved - middle).abs() <= reach + 1e-12 * (1 + moved.abs())).all()


def test_an_end_that_is_missing_bounds_nothing() -> None:
    op = either("whole")
    lower, upper = (t[:1].clone() for t in boxes_of(op, 1.0))
    lower[0, 24:48] = -math.inf
    rows = torch.eye(24, dtype=torch.float64).reshape(1, 24, *SHAPE)
    low = op.relax(lower, upper, "crown").lower(rows)[1][0]
    either_side = lower[0, :24] < upper[0, :24]
    assert (low[either_side] == -math.inf).all()
    assert low[~either_side].isfinite().all()
    least = op.interval((lower, upper))[0].reshape(-1)
    assert (least[upper[0, :24] == 1] == -math.inf).all()
