"""The two-network question as VNN-LIB 2.0 text, read by the reference reader."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.properties.two_networks import write_difference


def test_the_reference_reader_takes_the_text(tmp_path: Path) -> None:
    vnnlib = pytest.importorskip("vnnlib", reason="the package vnnlib (reader of VNN-LIB 2.0) is not installed")
    text = write_difference(np.array([0.1, 0.0]), np.array([0.3, 1e-7]), (1, 2), (1, 3), 0.25, comment="two networks")
    path = tmp_path / "difference.vnnlib"
    path.write_text(text)
    query = vnnlib.parse_query_file(str(path))
    assert len(query.networks) == 2
    assert len(query.assertions) == 2 * 2 + 2 * 2 + 1


def test_the_box_is_contained_and_every_output_has_two_directions() -> None:
    text = write_difference(np.array([np.float32(0.1)]), np.array([np.float32(0.3)]), (1, 1), (1, 2), 0.5)
    assert text.count("(and (>=") == 4
    found = re.search(r"\(assert \(>= X_f\S+ ([0-9.]+)\)\)", text)
    assert found is not None
    assert float(found[1]) <= float(np.float32(0.1))


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_delta_that_is_none(delta: float) -> None:
    with pytest.raises(InputError, match="--delta"):
        write_difference(np.zeros(1), np.ones(1), (1, 1), (1, 1), delta)
