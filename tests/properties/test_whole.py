"""Properties and balls of files that take whole numbers: what lies between them, or beyond their type, is no input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxsub.model import load_model
from onnxsub.properties.load import parse_property
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import verify
from onnxsub.verifiers.witness import inside_float32
from tests.reading.files import F, file, run, tensor
from tests.reading.test_integers import model

HEAD = "".join(f"(declare-const X_{i} Real)" for i in range(3)) + "".join(f"(declare-const Y_{j} Real)" for j in range(4))
ALWAYS = "(assert (<= Y_0 1000000.0))"


def box(*ends: tuple[float, float]) -> str:
    return "".join(f"(assert (<= {low} X_{i} {high}))" for i, (low, high) in enumerate(ends))


@pytest.mark.parametrize("first", [(300.0, 400.0), (-9.0, -1.0), (255.5, 1e30), (3.25, 3.75), (7.5, 7.5)])
def test_a_box_without_an_input_holds_no_counterexample(first: tuple[float, float]) -> None:
    question = parse_property(HEAD + box(first, (1.0, 2.0), (0.0, 0.0)) + ALWAYS)
    result = decide_property(load_model(model(0)), question)
    assert (result.status, result.witness) == ("proved", None)


def test_another_box_still_counts() -> None:
    text = "(assert (or (and (<= 256.0 X_0 257.0) (>= Y_0 -1000000.0)) (and (<= 1.5 X_0 2.5) (<= Y_1 1000000.0))))"
    question = parse_property(HEAD + box((0.0, 500.0), (1.25, 2.25), (0.0, 0.75)) + text)
    result = decide_property(load_model(model(1)), question)
    assert result.status == "violated"
    assert result.witness is not None
    assert result.witness.x.tolist() == [2, 2, 0]
    assert result.witness.case == 1


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.INT32, TensorProto.INT64])
def test_witnesses_stay_within_the_type(kind: int) -> None:
    least, most = (float(end) for end in {
        TensorProto.INT8: (-128, 127), TensorProto.INT32: (-(2**31), 2**31 - 1), TensorProto.INT64: (-(2**63), 2**63 - 1)
    }[kind])  # fmt: skip
    question = parse_property(HEAD + box((100.0, 1e20), (-1e20, -100.0), (0.0, 1.0)) + ALWAYS)
    result = decide_property(load_model(model(2, kind)), question)
    assert result.status == "violated"
    assert result.witness is not None
    assert ((result.witness.x >= least) & (result.witness.x <= most)).all()


def test_the_largest_float32_below_an_end_is_no_number_beyond_it() -> None:
    low, high = inside_float32(np.array([3.5, -(2.0**31)]), np.array([2.0**31 - 1, 0.5]), whole=True)
    assert low.tolist() == [4, -(2.0**31)]
    assert high.tolist() == [2.0**31 - 128, 0]


@pytest.mark.parametrize("seed", range(4))
def test_a_radius_between_whole_ones_is_the_one_below(seed: int) -> None:
    """Of the points that try all of a ball, none lies between two whole radii: a box up to 1.98 is a ball of radius 1."""
    proto = model(seed, scale=0.6)
    x0 = np.random.default_rng(seed).integers(2, 8, 3)
    query = make_query(load_model(proto), x0, space=InputSpace(0, 9))
    grid = np.array(list(itertools.product(range(10), repeat=3)), np.uint8)
    z = run(proto, grid)[0]
    far = np.abs(grid.astype(float) - x0).max(1)
    reached = far[np.delete(z, query.label, axis=1).max(1) >= z[:, query.label]].min(initial=np.inf)
    for radius in (0.98, 1.98, 2.5):
        found = verify(query, radius)
        within = verify(query, np.floor(radius))
        assert found.status == within.status
        assert found.eps == radius
        if found.status != "unknown":
            assert (found.status == "violated") == (reached <= radius)


def test_what_is_reached_between_whole_numbers_only_is_said_to_be() -> None:
    """`z_1 - z_0 = 1/4 - |x - 1/2|`: above 0 from 1/4 to 3/4."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=F), helper.make_node("Sub", ["f", "half"], ["d"]),
        helper.make_node("Abs", ["d"], ["h"]), helper.make_node("Gemm", ["h", "w", "b"], ["z"]),
    ]  # fmt: skip
    weights = {
        "half": np.array([0.5], np.float32), "w": np.array([[1, 0]], np.float32), "b": np.array([0, 0.25], np.float32)
    }  # fmt: skip
    proto = file(nodes, tensor("x", ["N", 1], TensorProto.UINT8), [tensor("z", ["N", 2])], weights)
    found = verify(make_query(load_model(proto), np.array([0], np.uint8)), 1.0)
    assert found.status == "unknown"
    assert "the whole numbers beside the point that was found are no counterexample (margin -0.25)" in found.reason
