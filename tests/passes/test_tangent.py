"""Steps to tangents: points that are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsub.budget import Budget
from onnxsub.passes.attack.tangent import tangent_steps
from tests.verifiers.nets import UNIT, anchor, logits, measured, random_dense


@pytest.mark.parametrize("seed", range(4))
def test_the_point_is_adversarial_and_not_far_from_the_nearest(seed: int) -> None:
    network = random_dense(seed, 8, 12, 3)
    x0, label = anchor(network, seed)
    true = measured(network, x0, label)
    assert true.witness is not None
    beyond = np.clip(x0 + 1.3 * (true.witness.x - x0), 0, 1)
    x = tangent_steps(network, x0, label, UNIT, beyond, 8)
    assert x is not None
    f = logits(network)(x[None])[0]
    assert np.delete(f, label).max() >= f[label] - 1e-9
    assert x.min() >= 0
    assert x.max() <= 1
    assert true.lower - 1e-9 <= np.abs(x - x0).max() <= 1.3 * true.upper
    budget = Budget()
    budget.stop.set()
    assert tangent_steps(network, x0, label, UNIT, beyond, 8, budget=budget) is None
