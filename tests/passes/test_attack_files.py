"""An attack on files: normalised, of a fixed batch, and published networks."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.passes.attack_tools import QUICK


def write_model(path: Path, seed: int = 0) -> Path:
    """A small Gemm-Relu-Gemm classifier of normalised inputs, with a fixed batch of 1."""
    rng = np.random.default_rng(seed)
    sizes = {"w0": (32, 12), "b0": (32,), "w1": (4, 32), "b1": (4,)}
    arrays = {name: rng.normal(size=size) / math.sqrt(size[-1]) for name, size in sizes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w0", "b0"], ["z"], transB=1),
            helper.make_node("Relu", ["z"], ["h"]),
            helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def confirmed(result: AttackResult, query: Query) -> None:
    """What must hold of a point on a file."""
    assert result.found
    assert result.x_adv is not None
    margins, labels = query.margins(result.x_adv[None])
    assert margins[0] == result.margin > 0
    assert labels[0] == result.adversarial_label
    assert query.radius(result.x_adv[None])[0] == result.d_adv
    assert result.x_adv.min() >= query.space.lower
    assert result.x_adv.max() <= query.space.upper


def test_a_file_with_normalisation_and_a_fixed_batch(tmp_path: Path) -> None:
    space = InputSpace(0, 255, mean=(120.0, 110.0, 100.0), std=(60.0, 65.0, 70.0))
    x0 = np.random.default_rng(3).integers(0, 256, size=(3, 2, 2)).astype(np.float32)
    query = make_query(write_model(tmp_path / "small.onnx"), x0, space=space, threads=1)
    result = attack(query, QUICK)
    confirmed(result, query)
    assert result.d_adv > 1e-3  # in units of the un-normalised input
    document = json.loads(dumps(result))
    assert document["model"]["sha256"] == query.model.sha256
    assert document["anchor"]["label"] == query.label
    assert document["settings"]["steps"] == QUICK.steps
    assert document["time_s"]["total"] >= document["time_s"]["descend"]
    wrong = make_query(query.model, x0, (query.predicted + 1) % 4, space=space, threads=1)
    assert attack(wrong, QUICK).d_adv == 0.0


def mnist(data_dir: Path, index: int) -> Array:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        return np.asarray(archive["x_test"][index].reshape(-1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("net", "table", "column"),
    [
        ("wk17a", "wk17a_linf0.1_mipverify_idx0_249.csv", "min_linf_distance"),
        ("mnist-net_256x2", "fc256x2_exact_distance.csv", "distance"),
    ],
)
def test_published_distances_are_reached(
    data_dir: Path, net_path: Callable[[str], Path], net: str, table: str, column: str
) -> None:
    with (data_dir / "gt" / table).open() as file:
        rows = [r for r in csv.DictReader(file) if r[column]]
    assert rows
    excess = []
    for row in rows:
        query = make_query(net_path(net), mnist(data_dir, int(row["test_index"])), int(row["label"]), threads=1)
        result = attack(query, AttackOptions(threads=1))
        confirmed(result, query)
        excess.append(result.d_adv / float(row[column]) - 1)
    assert min(excess) > -1e-4  # the tables carry the solvers' tolerance of 1e-5
    assert np.mean(excess) <= 0.01
    assert max(excess) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mnist_relu_6_100", "mnist_conv_maxpool", "cifar_base_kw_norm", "cifar_resnet2b_norm"])
def test_other_kinds_of_networks(data_dir: Path, net_path: Callable[[str], Path], net: str) -> None:
    with np.load(data_dir / "data" / ("cifar10.npz" if "cifar" in net else "mnist.npz")) as archive:
        images = archive["x_test"][:4].astype(np.float32) / np.float32(255)
    for image in images:
        query = make_query(net_path(net), image, threads=1)
        confirmed(attack(query, AttackOptions(threads=1)), query)
