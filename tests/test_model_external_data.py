"""Weights in a file beside the model, and nowhere else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import ModelError
from onnxsub.model import load_model
from tests.model_tools import B, W, external, refused


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = load_model(path)
    np.testing.assert_array_equal(model.nodes[0].constants["W"], W)
    np.testing.assert_array_equal(model.nodes[0].constants["b"], B)
    assert not any(t.external_data or t.data_location for t in model.source.graph.initializer)
    blob = tmp_path / "weights.bin"
    expected = hashlib.sha256(path.read_bytes() + hashlib.sha256(blob.read_bytes()).digest()).hexdigest()
    assert model.sha256 == expected
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    assert load_model(path).sha256 != expected
    with pytest.raises(ModelError, match="give the path"):
        load_model(path.read_bytes())


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "sub/weights.bin", "..", ".", "", "a\\b", "C:w.bin", "w\0"])
def test_external_data_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "inner").mkdir()
    path = external(tmp_path / "inner", location=location)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "inner" / "weights.bin").read_bytes())
    refused(path, "m.onnx", "'W'", "save the model again")


def test_external_data_by_links(tmp_path: Path) -> None:
    path = external(tmp_path)
    blob, other = tmp_path / "weights.bin", tmp_path / "other.bin"
    blob.rename(other)
    blob.symlink_to(other)
    refused(path, "symbolic link", "weights.bin")
    blob.unlink()
    os.link(other, blob)
    refused(path, "hard link", "weights.bin")
    blob.unlink()
    blob.mkdir()
    refused(path, "weights.bin", "regular file")


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = external(tmp_path)
    blob = tmp_path / "weights.bin"
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    refused(path, "weights.bin", "cut off")
    blob.unlink()
    refused(path, "weights.bin", "missing", "beside the model")


@pytest.mark.parametrize(
    "changes", [{"offset": "-4"}, {"length": "4"}, {"offset": "x"}, {"length": "-1"}, {"offset": "99999999"}], ids=str
)
def test_external_data_with_bad_places(tmp_path: Path, changes: dict[str, str]) -> None:
    refused(external(tmp_path, **changes), "'W'", "weights.bin")
