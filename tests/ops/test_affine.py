"""Affine operators: transpose, matrices, magnitude, intervals and windows all follow from `linear`."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from onnxsub.ops.average import AveragePool
from onnxsub.ops.base import Affine
from onnxsub.ops.conv import Conv
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.relaxation import cropped
from tests.ops.cases import CASES
from tests.ops.tools import Case, boxes, default_transpose, inside, normal, random

AFFINE = [
    pytest.param(op, id=f"{case}#{i}")
    for case in CASES
    for i, op in enumerate(case.ops(case.opsets[-1]))
    if isinstance(op, Affine)
]


@pytest.mark.parametrize("op", AFFINE)
def test_transpose_is_the_vector_jacobian_product(op: Affine) -> None:
    a = normal((4, *op.out_shape))
    for got, want in zip(op.transpose(a), default_transpose(op, a), strict=True):
        assert got.shape == want.shape
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", AFFINE)
def test_transpose_is_differentiable_in_its_argument(op: Affine) -> None:
    a = normal((2, *op.out_shape)).requires_grad_()
    weights = [normal((2, *s), 5 + i) for i, s in enumerate(op.in_shapes)]
    total = sum((t * w).sum() for t, w in zip(op.transpose(a), weights, strict=True))
    assert isinstance(total, torch.Tensor)
    # <L^T a, w> = <a, L w>
    (gradient,) = torch.autograd.grad(total, a)
    torch.testing.assert_close(gradient, op.linear(*weights), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("op", AFFINE)
def test_transpose_in_float32(op: Affine) -> None:
    a = normal((2, *op.out_shape))
    for got, want in zip(op.transpose(a.float()), op.transpose(a), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", AFFINE)
def test_matrices_are_the_linear_map(op: Affine) -> None:
    xs = [normal((2, *s), i) for i, s in enumerate(op.in_shapes)]
    matrices = op.matrices()
    assert [m.shape for m in matrices] == [(op.out_size, math.prod(s)) for s in op.in_shapes]
    assert all(np.all(m.data != 0) for m in matrices)
    want = op.linear(*xs).reshape(2, -1).numpy()
    got = sum(x.reshape(2, -1).numpy() @ m.T for m, x in zip(matrices, xs, strict=True))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    size = op.magnitude(*[x.abs() for x in xs]).reshape(2, -1).numpy()
    got = sum(x.abs().reshape(2, -1).numpy() @ abs(m).T for m, x in zip(matrices, xs, strict=True))
    np.testing.assert_allclose(size, got, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", AFFINE)
def test_interval_is_sound_and_tight(op: Affine) -> None:
    given = boxes(op)
    lower, upper = op.interval(*given)
    assert lower.shape == upper.shape == (3, *op.out_shape)
    for seed in range(20):
        y = op.forward(*[inside(b, seed + 50 * i) for i, b in enumerate(given)])
        assert (y >= lower - 1e-12).all()
        assert (y <= upper + 1e-12).all()
    # each end is attained where every input is at the end that its coefficient asks for
    centre = op.forward(*[(lo + hi) / 2 for lo, hi in given])
    radius = op.magnitude(*[(hi - lo) / 2 for lo, hi in given])
    torch.testing.assert_close(lower, centre - radius, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(upper, centre + radius, rtol=1e-12, atol=1e-12)


WINDOWED = [p for p in AFFINE if isinstance(p.values[0], Conv | AveragePool | Scale) and len(p.values[0].out_shape) == 3]


def _windows(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    axes = [[(i, j) for i in range(n) for j in range(i + 1, n + 1)] for n in shape[-2:]]
    pairs = list(itertools.product(*axes))
    chosen = np.random.default_rng(0).permutation(len(pairs))[:40]
    return [(slice(*pairs[k][0]), slice(*pairs[k][1])) for k in chosen]


def _check_window(op: Affine, window: tuple[slice, slice]) -> None:
    part = normal((2, *op.out_shape[:-2], *[w.stop - w.start for w in window]))
    whole = torch.zeros((2, *op.out_shape), dtype=torch.float64)
    cropped(whole, window).copy_(part)
    (want,) = op.transpose(whole)
    found = op.transpose_window(part, window)
    assert found is not None
    got, where = found
    torch.testing.assert_close(got, cropped(want, where), rtol=1e-12, atol=1e-12)
    outside = want.clone()
    cropped(outside, where).zero_()
    assert (outside == 0).all()


@pytest.mark.parametrize("op", WINDOWED)
def test_transpose_window_is_the_crop_of_transpose(op: Affine) -> None:
    if op.in_shapes[0] != op.out_shape and isinstance(op, Scale):
        pytest.skip("a constant widens the tensor: declared as not windowed")
    for window in _windows(op.out_shape):
        _check_window(op, window)


@pytest.mark.parametrize(("stride", "dilation", "pad", "kernel"), [*itertools.product((1, 2, 3), (1, 2), (0, 1, 3), (1, 2, 4))])
def test_transpose_window_geometries(stride: int, dilation: int, pad: int, kernel: int) -> None:
    attributes = {"strides": [stride, 1], "dilations": [1, dilation], "pads": [pad, 0, 1, pad], "group": 2}
    op = Case("Conv", ((2, 9, 8), random((4, 1, kernel, 2))), attributes).op1()
    assert isinstance(op, Conv)
    for window in _windows(op.out_shape)[:12]:
        _check_window(op, window)
    a = normal((2, *op.out_shape))
    torch.testing.assert_close(op.transpose(a)[0], default_transpose(op, a)[0])


def test_windowed_operators_are_found() -> None:
    assert len(WINDOWED) > 20


def test_conv_transpose_by_pieces_of_the_batch() -> None:
    # enough rows, and few or many positions: every way in which float64 rows are multiplied
    for shape, pads in (((3, 6, 6), [1, 1, 1, 1]), ((3, 14, 14), [1, 0, 2, 1])):
        op = Case("Conv", (shape, random((8, 3, 3, 3))), {"pads": pads, "strides": [2, 2]}).op1()
        assert isinstance(op, Conv)
        for n in (0, 1, 700):
            a = normal((n, *op.out_shape))
            got = op.transpose(a)[0]
            assert got.shape == (n, *shape)
            torch.testing.assert_close(got.float(), op.transpose(a.float())[0], rtol=1e-4, atol=1e-4)


def test_operators_without_windows_say_so() -> None:
    op = Case("Flatten", ((2, 3, 4),)).op1()
    assert isinstance(op, Affine)
    assert op.transpose_window(normal((1, 24)), ()) is None
