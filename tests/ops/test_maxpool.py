"""MaxPool: linear bounds against samples, windows, exact cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.relaxation import cropped
from tests.ops.cases import CASES
from tests.ops.tools import boxes, inside, normal

POOLS = [pytest.param(c.op1(), id=str(c)) for c in CASES if c.op in ("MaxPool", "GlobalMaxPool")]
ALL = pytest.mark.parametrize("op", POOLS)


def check(op: MaxPool, box: tuple[torch.Tensor, torch.Tensor], seed: int = 0) -> None:
    batch = box[0].shape[0]
    a = normal((batch, 4, *op.out_shape), 11 + seed)
    relaxation = op.relax(*box, "crown")
    assert not relaxation.parallel
    coefficients, bias = relaxation.lower(a)
    assert coefficients.shape == (batch, 4, *op.in_shapes[0])
    assert coefficients.isfinite().all()
    assert bias.isfinite().all()
    for k in range(20):
        x = inside(box, seed + k)
        value = (a * op.forward(x).unsqueeze(1)).flatten(2).sum(-1)
        bound = (coefficients * x.unsqueeze(1)).flatten(2).sum(-1) + bias
        assert (bound <= value + 1e-10).all()


@ALL
def test_linear_bounds_are_sound(op: MaxPool) -> None:
    check(op, boxes(op)[0])
    wide = boxes(op, seed=5)[0]
    check(op, (wide[0] - 3, wide[1] + 3), 100)


@ALL
def test_ties_are_sound(op: MaxPool) -> None:
    centre = (normal((3, *op.in_shapes[0])) * 2).round() / 2
    radius = (normal((3, *op.in_shapes[0]), 3).abs()).round()
    check(op, (centre - radius, centre + radius))
    check(op, (torch.zeros_like(centre), torch.ones_like(centre)))


@ALL
def test_points_are_exact(op: MaxPool) -> None:
    x = normal((3, *op.in_shapes[0]))
    a = normal((3, 2, *op.out_shape), 1)
    coefficients, bias = op.relax(x, x, "crown").lower(a)
    value = (a * op.forward(x).unsqueeze(1)).flatten(2).sum(-1)
    torch.testing.assert_close((coefficients * x.unsqueeze(1)).flatten(2).sum(-1) + bias, value, rtol=1e-12, atol=1e-12)


def test_a_dominating_element_is_the_output() -> None:
    op = next(c.op1() for c in CASES if c.op == "GlobalMaxPool")
    assert isinstance(op, MaxPool)
    lower = torch.zeros((1, *op.in_shapes[0]), dtype=torch.float64)
    upper = torch.ones_like(lower)
    lower[:, :, 2, 3], upper[:, :, 2, 3] = 1.0, 4.0
    for sign in (1.0, -1.0):
        coefficients, bias = op.relax(lower, upper, "crown").lower(torch.full((1, 1, *op.out_shape), sign, dtype=torch.float64))
        expected = torch.zeros_like(coefficients)
        expected[..., 2, 3] = sign
        assert torch.equal(coefficients, expected)
        assert (bias == 0).all()


@ALL
def test_one_relaxation_serves_many_domains(op: MaxPool) -> None:
    lower, upper = (t[:1] for t in boxes(op)[0])
    a = normal((3, 2, *op.out_shape))
    many = op.relax(lower, upper, "crown").lower(a)
    each = [op.relax(lower, upper, "crown").lower(part[None]) for part in a]
    torch.testing.assert_close(many[0], torch.cat([e[0] for e in each]))
    torch.testing.assert_close(many[1], torch.cat([e[1] for e in each]))


@ALL
def test_a_window_is_extended_by_zeros(op: MaxPool) -> None:
    relaxation = op.relax(*boxes(op)[0], "crown")
    assert not relaxation.windowed
    window = tuple(slice(0, max(1, n - 1)) for n in op.out_shape[1:])
    part = normal((3, 2, op.out_shape[0], *[w.stop for w in window]))
    whole = torch.zeros((3, 2, *op.out_shape), dtype=torch.float64)
    cropped(whole, window).copy_(part)
    for got, want in zip(relaxation.lower(part, window), relaxation.lower(whole), strict=True):
        torch.testing.assert_close(got, want)


@ALL
def test_interval(op: MaxPool) -> None:
    box = boxes(op)[0]
    lower, upper = op.interval(box)
    for k in range(10):
        y = op.forward(inside(box, k))
        assert (y >= lower).all()
        assert (y <= upper).all()


def test_index_leaves_padding_out() -> None:
    case = next(c for c in CASES if c.op == "MaxPool" and c.attributes.get("pads") == [1, 1, 1, 1])
    op = case.op1()
    assert isinstance(op, MaxPool)
    assert op.index.shape == (int(np.prod(op.out_shape[1:])), 9)
    assert (op.index[0] == [-1, -1, -1, -1, 0, 1, -1, 7, 8]).all()
