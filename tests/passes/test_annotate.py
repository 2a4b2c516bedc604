"""Annotated files: the numbers are those of the bounds, and nothing else in the file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxsub.errors import OutputError
from onnxsub.model import load_model
from onnxsub.passes.annotate import annotate, save_annotated
from onnxsub.passes.bounds import BoundsOptions, BoundsResult, bounds
from onnxsub.query import Query, make_query
from tests.handmade import Net, run
from tests.random_models import random_model


@pytest.fixture(scope="module")
def setting() -> tuple[Query, BoundsResult]:
    model = load_model(random_model(8, kind="conv"))
    query = make_query(model, np.full(model.input_shape, 0.5))
    return query, bounds(query, BoundsOptions(0.05, "crown"))


def properties(proto: ModelProto) -> dict[str, dict[str, str]]:
    return {node.output[0]: {p.key: p.value for p in node.metadata_props} for node in proto.graph.node}


def test_the_nodes_carry_the_numbers_of_the_layers(setting: tuple[Query, BoundsResult]) -> None:
    query, result = setting
    found = properties(annotate(query.model, result))
    for layer in result.layers:
        expected = {k: v for k, v in layer.to_json().items() if k not in ("name", "op_type")}
        read = {k.removeprefix("onnxsub.bounds."): float(v) for k, v in found[layer.name].items()}
        assert read == expected  # repr of a float64 is exact
    assert all(not props for name, props in found.items() if name not in {layer.name for layer in result.layers})


def test_the_model_says_what_the_numbers_are_of(setting: tuple[Query, BoundsResult]) -> None:
    query, result = setting
    props = {p.key: p.value for p in annotate(query.model, result).metadata_props}
    assert props["onnxsub.bounds.method"] == "crown"
    assert float(props["onnxsub.bounds.eps"]) == 0.05
    assert props["onnxsub.model.sha256"] == query.model.sha256
    assert props["onnxsub.anchor.sha256"] == query.anchor_sha256


def test_the_rest_of_the_file_stays_and_it_runs(setting: tuple[Query, BoundsResult]) -> None:
    query, result = setting
    before = query.model.source.SerializeToString()
    marked = annotate(query.model, result)
    assert query.model.source.SerializeToString() == before
    x = np.random.default_rng(0).random((3, *query.model.input_shape)).astype(np.float32)
    np.testing.assert_array_equal(run(marked, x), run(query.model.source, x))
    for node in marked.graph.node:
        del node.metadata_props[:]
    assert marked.graph == query.model.source.graph
    again = annotate(load_model(annotate(query.model, result)), result)
    assert properties(again) == properties(annotate(query.model, result))


def test_the_arrays_lie_beside_it(setting: tuple[Query, BoundsResult], tmp_path: Path) -> None:
    query, result = setting
    path = save_annotated(query.model, result, tmp_path / "marked.onnx")
    assert path == tmp_path / "marked.npz"
    onnx.checker.check_model(str(tmp_path / "marked.onnx"))
    assert load_model(tmp_path / "marked.onnx").outputs == query.classes
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == set(result.arrays())
        for name, values in result.arrays().items():
            np.testing.assert_array_equal(arrays[name], values)


def test_names_with_slashes_colons_and_dots(tmp_path: Path) -> None:
    n = Net(4)
    name = "../model/layer.0/Relu:0"
    query = make_query(load_model(n.model(n.gemm(n.named("Relu", [n.gemm("x", 4, 5)], name), 5, 3), 3)), np.full(4, 0.5))
    result = bounds(query, BoundsOptions(0.1))
    with np.load(save_annotated(query.model, result, tmp_path / "m.onnx")) as arrays:
        np.testing.assert_array_equal(arrays[f"pre/{name}/upper"], result.layers[0].upper)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.npz", "m.onnx"]


def test_steps_between_have_arrays_and_no_node(tmp_path: Path) -> None:
    """A LayerNormalization is read as several operators, of whose tensors the file has none."""
    n = Net(4)
    h = n.node("LayerNormalization", [n.gemm("x", 4, 5), n.weight(np.ones(5))])
    query = make_query(load_model(n.model(n.gemm(n.node("Relu", [h]), 5, 3), 3, opset=17)), np.full(4, 0.5))
    result = bounds(query, BoundsOptions(0.01))
    assert len(result.layers) > 1
    with np.load(save_annotated(query.model, result, tmp_path / "m.onnx")) as arrays:
        assert all(f"pre/{layer.name}/upper" in arrays for layer in result.layers)
    marked = [name for name, props in properties(onnx.load(tmp_path / "m.onnx")).items() if props]
    assert len(marked) == 1


def test_paths_that_cannot_be_written(setting: tuple[Query, BoundsResult], tmp_path: Path) -> None:
    query, result = setting
    with pytest.raises(OutputError):
        save_annotated(query.model, result, tmp_path / "none" / "m.onnx")
    with pytest.raises(OutputError, match=r"is where the arrays go; give the model a name that ends in .onnx"):
        save_annotated(query.model, result, tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())
