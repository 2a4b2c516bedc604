"""Steps to tangents: the nearest zero of a linear margin, and points that are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from onnxsub.instance import Instance
from onnxsub.passes.tangent import step_to_tangent, tangent_steps
from onnxsub.verifiers.measure import measure
from tests.verifiers.nets import UNIT, anchor, logits, random_dense


def smallest(gradient: np.ndarray, needed: float, low: np.ndarray, high: np.ndarray) -> float | None:
    """The radius by linear programming."""
    n = len(gradient)
    above = np.hstack([np.eye(n), -np.ones((n, 1))])
    below = np.hstack([-np.eye(n), -np.ones((n, 1))])
    rows = np.vstack([above, below, [np.append(-gradient, 0.0)]])
    found = linprog(np.eye(n + 1)[n], rows, np.append(np.zeros(2 * n), -needed), bounds=[*zip(low, high, strict=True), (0, None)])
    return float(found.fun) if found.status == 0 else None


def test_the_step_is_the_smallest_that_reaches_the_tangent() -> None:
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(200):
        n = int(rng.integers(1, 8))
        gradient = np.where(rng.random(n) < 0.2, 0.0, rng.normal(size=n))
        low, high = -rng.random(n) * rng.integers(0, 2, n), rng.random(n) * rng.integers(0, 2, n)
        needed = float(rng.normal())
        step, best = step_to_tangent(gradient, needed, low, high), smallest(gradient, needed, low, high)
        assert (step is None) == (best is None)
        if step is None or best is None:
            continue
        reached += needed > 0
        assert np.abs(step).max() == pytest.approx(best, abs=1e-9)
        assert (step >= low).all()
        assert (step <= high).all()
        assert gradient @ step >= needed - 1e-9
    assert reached > 20


@pytest.mark.parametrize("seed", range(4))
def test_the_point_is_adversarial_and_not_far_from_the_nearest(seed: int) -> None:
    network = random_dense(seed, 8, 12, 3)
    x0, label = anchor(network, seed)
    true = measure(Instance(network, x0, label, UNIT), verifier="milp")
    assert true.witness is not None
    beyond = np.clip(x0 + 1.3 * (true.witness.x - x0), 0, 1)
    x = tangent_steps(network, x0, label, UNIT, beyond, 8)
    assert x is not None
    f = logits(network)(x[None])[0]
    assert np.delete(f, label).max() >= f[label] - 1e-9
    assert x.min() >= 0
    assert x.max() <= 1
    assert true.lower - 1e-9 <= np.abs(x - x0).max() <= 1.3 * true.upper
