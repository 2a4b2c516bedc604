"""Tightness: bounds that are sound and needlessly wide fail here.

Each measure says what is as tight as it can be. `test_looser_lines_are_noticed` loosens Relu's lines by a tenth of the
interval's width and expects the measures to notice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.relaxation import Elementwise
from onnxsub.ops.relu import Relu
from onnxsub.propagate import compute_bounds, margin_bounds
from tests.handmade import Net
from tests.random_models import random_model

ROUNDING = 1e-7
"""Wider than all slack together on networks of this size: 1.1e-9 of every unit's scale, which is about 10 here."""


def relu(size: int) -> Relu:
    return Relu(op_type="Relu", node="r", inputs=("z",), output="h", in_shapes=((size,),), out_shape=(size,))


def unstable_intervals(count: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return -torch.as_tensor(rng.random((1, count)) + 1e-3), torch.as_tensor(rng.random((1, count)) + 1e-3)


def upper_line_touches_both_ends() -> None:
    """No line above Relu on [l, u] is lower anywhere in between than the one through (l, 0) and (u, u)."""
    l, u = unstable_intervals()
    for mode in ("fastlin", "crown"):
        r = relu(l.shape[1]).relax(l, u, mode)
        torch.testing.assert_close(r.upper_slope * l + r.upper_offset, torch.zeros_like(l), rtol=0, atol=1e-12)
        torch.testing.assert_close(r.upper_slope * u + r.upper_offset, u, rtol=0, atol=1e-12)


def lower_line_touches_the_kink() -> None:
    """Every tight line below Relu passes through (0, 0); CROWN takes slope 1 where u > -l and 0 elsewhere."""
    l, u = unstable_intervals()
    for mode in ("fastlin", "crown"):
        assert (relu(l.shape[1]).relax(l, u, mode).lower_offset == 0).all()
    assert torch.equal(relu(l.shape[1]).relax(l, u, "crown").lower_slope, (u > -l).to(l))


def stable_units_are_exact() -> None:
    """On one piece both lines are the function."""
    l, u = torch.tensor([[0.5, -2.0, 0.0]], dtype=torch.float64), torch.tensor([[1.0, -1.0, 3.0]], dtype=torch.float64)
    r = relu(3).relax(l, u, "crown")
    for slope, offset in ((r.lower_slope, r.lower_offset), (r.upper_slope, r.upper_offset)):
        assert slope.tolist() == [[1.0, 0.0, 1.0]]
        assert offset.tolist() == [[0.0, 0.0, 0.0]]


def two_layers_by_hand() -> None:
    """CROWN of a network small enough for pencil and paper.

    x in [-1, 1] x [-1, 1], p = relu(x1 + x2), q = relu(x1 - x2): both on [-2, 2], where `0 <= p <= (x1 + x2) / 2 + 1`
    (u = -l: slope 0). So `z = p + q - 1/2` has `-1/2 <= z <= x1 + 3/2 <= 5/2`, `h = relu(z) <= 5/6 z + 5/12` and `h >= z`,
    and the logits `h`, `x1 - h` have

        h      <= 5/6 (x1 + 3/2) + 5/12 <= 5/2,   h >= -1/2, and by its interval h >= 0
        x1 - h <= x1 - z <= 3/2, and by intervals <= 1,  x1 - h >= x1 - 5/6 (x1 + 3/2) - 5/12 = x1 / 6 - 5/3 >= -11/6
    """
    n = Net(2)
    first = n.node("Relu", [n.node("Gemm", ["x", n.weight([[1.0, 1.0], [1.0, -1.0]]), n.weight([0.0, 0.0])])])
    h = n.node("Relu", [n.node("Gemm", [first, n.weight([[1.0], [1.0]]), n.weight([-0.5])])])
    y = n.node("Gemm", [n.node("Concat", [h, "x"], axis=1), n.weight([[1.0, -1.0], [0.0, 1.0], [0.0, 0.0]]), n.weight([0.0, 0.0])])
    network = lower(load_model(n.model(y, 2)))
    bounds = compute_bounds(network, -np.ones(2), np.ones(2), "crown")
    l, u = (end[0, 0].item() for end in bounds.pre[network.activations[1].output])
    np.testing.assert_allclose([l, u], [-0.5, 2.5], rtol=0, atol=ROUNDING)
    low, high = margin_bounds(network, bounds, np.eye(2))
    np.testing.assert_allclose(low[0].numpy(), [0.0, -11 / 6], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(high[0].numpy(), [2.5, 1.0], rtol=0, atol=ROUNDING)


def one_layer_is_the_triangle_program() -> None:
    """With positive weights behind one layer, CROWN's upper end is the optimum over the triangles of all units."""
    from scipy.optimize import linprog

    for seed in range(5):
        rng = np.random.default_rng(seed)
        n = Net(4, dtype=np.float64)
        w, b, a = rng.normal(size=(6, 4)), 0.2 * rng.normal(size=6), rng.random((6, 2))
        h = n.node("Relu", [n.node("Gemm", ["x", n.weight(w.T), n.weight(b)])])
        network = lower(load_model(n.model(n.node("Gemm", [h, n.weight(a), n.weight([0.0, 0.0])]), 2)))
        low, high = -0.7 * np.ones(4), 0.9 * np.ones(4)
        found = margin_bounds(network, compute_bounds(network, low, high, "crown"), np.eye(2))[1][0]
        centre, radius = w @ (low + high) / 2 + b, np.abs(w) @ (high - low) / 2
        l, u = centre - radius, centre + radius
        assert ((l < 0) & (u > 0)).any()
        # variables (x, h): h >= 0, h >= w x + b, h <= chord
        slope = np.where(l >= 0, 1.0, np.where(u <= 0, 0.0, u / (u - l)))
        offset = np.where((l < 0) & (u > 0), -slope * l, 0.0)
        rows = np.block([[w, -np.eye(6)], [-slope[:, None] * w, np.eye(6)]])
        ends = np.concatenate([-b, slope * b + offset])
        domain = [*zip(low, high, strict=True), *[(0.0, None)] * 6]
        for k in range(2):
            best = linprog(np.concatenate([np.zeros(4), -a[:, k]]), A_ub=rows, b_ub=ends, bounds=domain, method="highs")
            assert best.status == 0
            assert found[k].item() == pytest.approx(-best.fun, abs=ROUNDING)


def stored(seed: int) -> tuple[Network, np.ndarray, np.ndarray]:
    network = lower(load_model(random_model(seed, activations=("Relu",), kind=("dense", "conv", "residual")[seed % 3])))
    x0 = np.random.default_rng(seed).random(network.input_shape)
    return network, np.maximum(x0 - 0.2, 0), np.minimum(x0 + 0.2, 1)


WIDTHS = {
    (0, "fastlin"): 0.556875570251539,
    (0, "fastlin-ibp"): 0.556875570251539,
    (0, "crown"): 0.5619946543093435,
    (1, "fastlin"): 1.111556347150176,
    (1, "fastlin-ibp"): 1.0460862051731543,
    (1, "crown"): 1.0226803701413942,
    (2, "fastlin"): 0.6822700612139359,
    (2, "fastlin-ibp"): 0.5265895158716458,
    (2, "crown"): 0.509498996513786,
}
OPTIMISED = {0: 0.530655242013381, 1: 0.9959516136522962, 2: 0.4390968168984726}  # alpha-crown; its search is float32


def mean_width(seed: int, method: str) -> float:
    """Mean width of all units and logits."""
    network, low, high = stored(seed)
    bounds = compute_bounds(network, low, high, method)
    boxes = [*bounds.pre.values(), bounds.output]
    return float(torch.cat([(u - l).flatten() for l, u in boxes]).mean())


def widths_are_those_recorded() -> None:
    """Widths on three random networks are no larger than when they were recorded."""
    for (seed, method), width in WIDTHS.items():
        assert mean_width(seed, method) <= width + 1e-9, (seed, method)


def optimised_widths_are_those_recorded() -> None:
    """The same for alpha-CROWN, up to what another order of sums in float32 may choose."""
    for seed, width in OPTIMISED.items():
        assert mean_width(seed, "alpha-crown") <= 1.001 * width, seed


MEASURES: tuple[Callable[[], None], ...] = (
    upper_line_touches_both_ends,
    lower_line_touches_the_kink,
    stable_units_are_exact,
    two_layers_by_hand,
    one_layer_is_the_triangle_program,
    widths_are_those_recorded,
    optimised_widths_are_those_recorded,
)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_bounds_are_as_tight_as(measure: Callable[[], None]) -> None:
    assert measure() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("measure", [m for m in MEASURES if m is not stable_units_are_exact], ids=lambda m: m.__name__)
def test_looser_lines_are_noticed(measure: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Relu's lines a tenth of the interval's width further away: sound, so no test of soundness fails, but these must."""
    tight = Relu.relax

    def loose(self: Relu, lower: torch.Tensor, upper: torch.Tensor, mode: str, alpha: torch.Tensor | None = None) -> Elementwise:
        r = tight(self, lower, upper, mode, alpha)
        gap = torch.where((lower < 0) & (upper > 0), 0.1 * (upper - lower), torch.zeros_like(lower))
        return Elementwise(r.lower_slope, r.lower_offset - gap, r.upper_slope, r.upper_offset + gap)

    monkeypatch.setattr(Relu, "relax", loose)
    with pytest.raises(AssertionError):
        measure()
