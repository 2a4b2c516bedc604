"""Today's operators in random graphs: values equal onnxruntime's, every interval and every linear bound holds at samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.jumping import Jumping
from onnxsub.propagate import METHODS, compute_bounds
from onnxsub.quantised import with_room
from tests.ops.tools import run
from tests.random_modern import random_modern


def check(seed: int, methods: tuple[str, ...], samples: int) -> int:
    """Asserts that the bounds of one graph hold; how many of its tensors' elements were looked at."""
    model = random_modern(seed)
    network = with_room(lower(load_model(model)), 0.0, 1.0)
    rng = np.random.default_rng(seed)
    x0 = rng.random(network.input_shape)
    eps = float(rng.choice([1e-6, 1e-3, 0.02, 0.2, 1.0]))
    lower_end, upper_end = np.clip(x0 - eps, 0, 1), np.clip(x0 + eps, 0, 1)
    points = lower_end + (upper_end - lower_end) * rng.random((samples, *network.input_shape))
    corners = rng.random((samples, *network.input_shape)) < 0.5
    points = np.concatenate([points, np.where(corners, lower_end, upper_end), [x0]])
    values = network.values(torch.as_tensor(points))
    single = network.values(torch.as_tensor(points.astype(np.float32).astype(np.float64)))
    with torch.no_grad():
        (want,) = run(model, {"x": points.astype(np.float32)})
    # where rounding chooses the side of a jump, either is right
    unsure = [op.unsure(single[op.inputs[0]]).flatten(1).any(1) for op in network.activations if isinstance(op, Jumping)]
    sure = ~torch.stack([torch.zeros(len(points), dtype=torch.bool), *unsure]).any(0).numpy()
    size = 1 + np.abs(want).max()
    np.testing.assert_allclose(single[network.output].numpy()[sure], want[sure], rtol=2e-3, atol=2e-4 * size)
    seen = 0
    for method in methods:
        bounds = compute_bounds(network, lower_end, upper_end, method)
        for op in network.nonlinear:
            low, high = bounds.pre[op.output]
            z = values[op.inputs[0]]
            assert (z >= low - 1e-12).all(), (method, op.op_type)
            assert (z <= high + 1e-12).all(), (method, op.op_type)
            seen += z.shape[1:].numel()
        seen += network.classes
        low, high = bounds.output
        f = values[network.output].flatten(1)
        assert (f >= low).all(), method
        assert (f <= high).all(), method
    return seen


@pytest.mark.parametrize("seed", range(40))
def test_bounds_of_random_graphs(seed: int) -> None:
    methods = tuple(m for m in METHODS if m != "alpha-crown" or seed % 8 == 0)
    assert check(seed, methods, 50) > 0


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_bounds_of_many_random_graphs(block: int) -> None:
    assert sum(check(1000 + 25 * block + k, ("ibp", "fastlin-ibp", "crown"), 200) for k in range(25)) > 0
