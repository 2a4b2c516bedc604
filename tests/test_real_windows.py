"""Files that exporters wrote with MaxPool, ReduceMax and Max in them: the main job, measured on the file that comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits

COUNTS = {"mnist_cnn": (7344, 1752), "audio_conv1d": (None, None), "maxout_tabular": (0, None), "cnn_relu_new18": (None, None)}


def question(data_dir: Path, name: str) -> Query:
    path = data_dir / "models" / f"{name}.onnx"
    given = path.with_suffix(".npy")
    shape = load_model(path).input_shape
    x0 = np.load(given) if given.exists() else np.random.default_rng(0).random(shape)
    return make_query(path, x0.reshape(shape).astype(np.float32))


@pytest.mark.parametrize("name", COUNTS)
def test_units_and_windows_are_counted(data_dir: Path, name: str) -> None:
    network = lower(load_model(data_dir / "models" / f"{name}.onnx"))
    units, windows = COUNTS[name]
    assert network.windows > 0
    assert units is None or network.units == units
    assert windows is None or network.windows == windows


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["inplace", "compact", "chain"])
@pytest.mark.parametrize("name", COUNTS)
def test_a_substitute_in_every_layout(data_dir: Path, name: str, layout: str) -> None:
    query = question(data_dir, name)
    result = prune(query, PruneOptions(select=SelectOptions(gamma=0.99), layout=layout, attack=AttackOptions(steps=20, restarts=4)))
    size = 1 + float(np.abs(query.logits(query.x0[None].astype(np.float32))).max())
    assert set(result.preserves) == {"x0", "x_adv"}
    assert max(result.preserves.values()) <= 1e-4 * size
    assert sum(result.substitute.selection.kept_per_layer) <= 0.01 * query.network.units_and_windows + 1
    if name == "mnist_cnn" and layout == "chain":
        assert result.proto.ByteSize() <= 2**20
        assert result.notes  # it is ten times the model, and on the ball


@pytest.mark.slow
def test_the_distance_by_a_substitute_of_windows_takes_few_nodes(data_dir: Path) -> None:
    """91 windows of one MaxPool; the MILP over Relus in their place finds the same distance in 601 nodes."""
    options = DistanceOptions(limits=Limits(timeout=120, threads=1), via=PruneOptions(select=SelectOptions(gamma=0.99)))
    found = distance(question(data_dir, "mnist_cnn"), options)
    assert found.status == "exact"
    assert found.substitute is not None
    assert found.substitute["windows_total"] == 1752
    assert abs(found.upper - 0.01061) <= 1e-5
    assert found.nodes < 300
