"""Files that today's exporters wrote, with the activations of today: read, computed, and substituted in every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.runtime import Runtime

NAMES = {
    "cnn_elu_new18": "Elu",
    "cnn_gelu_new18": "Gelu",
    "cnn_gelu_new20": "Gelu",
    "cnn_hardswish_new18": "HardSwish",
    "cnn_silu_new18": "Swish",
    "mlp_elu_binary": "Elu",
}


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, data_dir: Path) -> Path:
    return data_dir / "models" / f"{request.param}.onnx"


def test_the_network_computes_the_file(path: Path) -> None:
    model = load_model(path)
    network = lower(model)
    assert {type(op).__name__ for op in network.activations} == {NAMES[path.stem]}
    x = np.random.default_rng(0).random((4, *model.input_shape)).astype(np.float32)
    want = Runtime(model).logits(x)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * (1 + np.abs(want).max()))


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["inplace", "compact"])
def test_a_substitute_in_every_layout(path: Path, layout: str) -> None:
    query = make_query(path, np.random.default_rng(0).random(load_model(path).input_shape).astype(np.float32))
    options = PruneOptions(select=SelectOptions(gamma=0.9), layout=layout, attack=AttackOptions(steps=20, restarts=4))
    result = prune(query, options)
    size = 1 + float(np.abs(query.logits(query.x0[None].astype(np.float32))).max())
    assert set(result.preserves) == {"x0", "x_adv"}
    assert max(result.preserves.values()) <= 1e-4 * size
    most = 0.1 * query.network.units_and_windows + 1
    if layout == "compact":  # the other one is the original graph, with masks
        assert lower(load_model(result.proto)).units_and_windows <= most
