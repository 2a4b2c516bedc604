"""Windows by a table and their substitutes: values, bounds, slopes and files against samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.ops.picked import Picked
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import WindowMax, chords, contenders
from tests.ops.tools import boxes, inside, normal

SHAPE = (2, 3, 4)
SEEDS = pytest.mark.parametrize("seed", range(6))


def window_max(seed: int, width: int = 5) -> WindowMax:
    """A random table: every element at most once in a window, some missing."""
    rng = np.random.default_rng(seed)
    table = np.stack([rng.permutation(24)[:width] for _ in range(7)])
    table[rng.random(table.shape) < 0.3] = -1
    table[:, 2] = np.where(table.max(axis=1) < 0, np.arange(7), table[:, 2])
    return WindowMax(
        op_type="Max", node="n", inputs=("x",), output="y", in_shapes=(SHAPE,), out_shape=(7,), windows=table.astype(np.int64)
    )


def substituted(seed: int) -> SubstitutedMax:
    base, rng = window_max(seed), np.random.default_rng(seed + 50)
    first, second = rng.integers(0, 24, (2, 7))
    other = np.where(first == second, 0.0, rng.normal(size=7))
    picked = Picked(
        op_type="Max", node="n", inputs=("x",), output="y", in_shapes=(SHAPE,), out_shape=(7,), first=first, second=second,
        weight=rng.normal(size=7), other=other, shift=rng.normal(size=7),
    )  # fmt: skip
    return SubstitutedMax.of(base, rng.random(7) < (0.5 if seed else 0.0), picked)


def test_values() -> None:
    for seed in range(4):
        op, x = window_max(seed), normal((3, *SHAPE), seed)
        flat = x.reshape(3, -1).numpy()
        expected = np.stack([flat[:, row[row >= 0]].max(axis=1) for row in op.table], axis=1)
        np.testing.assert_array_equal(op.forward(x).numpy(), expected)
        mixed = substituted(seed)
        line = mixed.picked
        lines = line.weight * flat[:, line.first] + line.other * flat[:, line.second] + line.shift
        np.testing.assert_allclose(mixed.forward(x).numpy(), np.where(mixed.kept, expected, lines), atol=1e-12)


@SEEDS
@pytest.mark.parametrize("make", [window_max, substituted])
def test_bounds_hold(make: type, seed: int) -> None:
    op = make(seed)
    for box in (boxes(op, seed=seed)[0], (normal((3, *SHAPE)).round(), normal((3, *SHAPE)).round() + 1)):
        a = normal((3, 4, 7), seed)
        relaxation = op.relax(*box, "crown")
        coefficients, bias = relaxation.lower(a)
        low, high = op.interval(box)
        assert coefficients.isfinite().all()
        for k in range(30):
            x = inside(box, k)
            y = op.forward(x)
            assert ((coefficients * x.unsqueeze(1)).flatten(2).sum(-1) + bias <= (a * y.unsqueeze(1)).sum(-1) + 1e-10).all()
            assert (y >= low - 1e-12).all()
            assert (y <= high + 1e-12).all()
        if relaxation.parallel:
            data, below, above = relaxation.both(a)
            assert torch.equal(below, above)
            assert torch.equal(data, coefficients)


@SEEDS
def test_infinite_ends_are_no_numbers(seed: int) -> None:
    op = substituted(seed)
    lower, upper = (t.clone() for t in boxes(op, seed=seed)[0])
    lower[:, 0, 0], upper[:, 1, 1] = -torch.inf, torch.inf
    low, high = op.interval((lower, upper))
    assert not low.isnan().any()
    assert not high.isnan().any()
    coefficients, bias = op.relax(lower, upper, "crown").lower(normal((3, 2, 7)))
    assert coefficients.isfinite().all()
    assert not bias.isnan().any()


@SEEDS
@pytest.mark.parametrize("make", [window_max, substituted])
def test_slopes_hold_every_difference(make: type, seed: int) -> None:
    op = make(seed)
    box = boxes(op, batch=1, seed=seed)[0]
    rows = normal((2, 7), seed)
    ((centre, radius),) = op.transpose_slopes((rows, torch.zeros_like(rows)), box)
    for k in range(10):
        x, y = inside(box, k), inside(box, 100 + k)
        change = ((op.forward(x) - op.forward(y)) @ rows.T)[0]
        step = (x - y)[0]
        middle, spread = (centre * step).flatten(1).sum(1), (radius * step.abs()).flatten(1).sum(1)
        assert ((change - middle).abs() <= spread + 1e-10).all()


def test_contenders_and_chords_agree() -> None:
    op = window_max(3)
    lower, upper = (t[0].flatten() for t in boxes(op, batch=1, seed=3)[0])
    alive = contenders(op.table, lower.numpy(), upper.numpy())
    points = torch.stack([inside((lower, upper), k) for k in range(400)])
    winners = op.gathered(points).argmax(-1).numpy()
    assert all(alive[w, k] for row in winners for w, k in enumerate(row))
    fixed = np.flatnonzero(alive.sum(axis=1) == 1)
    found = chords(op.gathered(lower[None]), op.gathered(upper[None]))
    assert (found.above[0].numpy()[fixed] == alive[fixed].argmax(axis=1)).all()
    tied = contenders(np.array([[0, 1, -1]]), np.array([1.0, 1.0]), np.array([1.0, 1.0]))
    assert tied.sum() == 1  # of elements that are the same number one is left


def test_what_does_not_fit_is_refused() -> None:
    good = window_max(0)
    common = {"op_type": "Max", "node": "n", "inputs": ("x",), "output": "y", "in_shapes": (SHAPE,), "out_shape": (7,)}
    with pytest.raises(ValueError, match="do not fit"):
        WindowMax(**common, windows=good.table[:3])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no element"):
        WindowMax(**common, windows=np.full((7, 2), -1))  # type: ignore[arg-type]
    line = substituted(1).picked
    with pytest.raises(ValueError, match="picked twice"):
        Picked(**common, first=line.first, second=line.first, weight=line.weight, other=np.ones(7), shift=line.shift)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        Picked(**common, first=line.first, second=line.first, weight=line.weight * np.nan, other=0 * line.shift, shift=line.shift)  # type: ignore[arg-type]
