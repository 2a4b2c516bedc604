"""A rescaled substitute is the same function, also when it is folded on a ball afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from onnxsub.ops.substituted import Substituted
from onnxsub.passes.fold import fold
from onnxsub.passes.rescale import rescaled
from onnxsub.passes.substitute import lines, substitute
from onnxsub.propagate import compute_bounds
from tests.verifiers.nets import random_network


@pytest.mark.parametrize("seed", range(6))
def test_a_substitute_is_the_same_function(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(seed, kind=("dense", "residual")[seed % 2], activations=("Relu",))
    x0 = rng.random(network.input_shape)
    kept = {a.output: rng.random(a.out_shape) < 0.5 for a in network.activations}
    g = substitute(network, lines(network, "act", x0), kept)
    scaled = rescaled(g, 64.0 * x0)  # far out, so that layers are scaled
    low, high = np.maximum(x0 - 0.1, 0), np.minimum(x0 + 0.1, 1)
    x = torch.as_tensor(rng.uniform(low, high, (200, *x0.shape)))
    with torch.no_grad():
        wanted = g.forward(x)
        before, after = g.values(x), scaled.values(x)
        assert any(not torch.equal(before[a.output], after[a.output]) for a in g.activations)
        size = 1e-12 * (1 + float(wanted.abs().max()))
        assert float((scaled.forward(x) - wanted).abs().max()) <= size
        on_ball = fold(scaled, compute_bounds(scaled, torch.as_tensor(low), torch.as_tensor(high), "crown"))
        assert float((on_ball.forward(x) - wanted).abs().max()) <= 100 * size


def test_a_base_that_reads_another_tensor_is_refused() -> None:
    network = random_network(0, kind="dense", activations=("Relu",))
    kept = {a.output: np.zeros(a.out_shape, dtype=bool) for a in network.activations}
    op = substitute(network, lines(network, "act", np.full(network.input_shape, 0.5)), kept).activations[0]
    assert isinstance(op, Substituted)
    with pytest.raises(ValueError, match="its base reads"):
        replace(op, inputs=("elsewhere",))
