"""Whole numbers as inputs: bounds over the box, witnesses on the lattice, distances that are whole."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import verify
from tests.reading.files import F, body, file, mlp, run, tensor

U8 = TensorProto.UINT8
KINDS = {U8: np.uint8, TensorProto.INT8: np.int8, TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}


def model(seed: int, kind: int = U8, inputs: int = 3, scale: float = 0.15) -> ModelProto:
    return file(
        [helper.make_node("Cast", ["x"], ["f"], to=F), *body("f")], tensor("x", ["N", inputs], kind), [tensor("z", ["N", 4])],
        mlp(seed, inputs, scale=scale),
    )  # fmt: skip


def truth(proto: ModelProto, x0: Any, dtype: Any, top: int = 9) -> float:
    """The smallest whole radius at which some whole point has another class, by trying all of them."""
    grid = np.array(list(itertools.product(range(top + 1), repeat=len(x0))), dtype)
    z = run(proto, grid)[0]
    y = int(run(proto, x0[None].astype(dtype))[0].argmax())
    others = np.delete(z, y, axis=1).max(1) >= z[:, y]
    far = np.abs(grid.astype(float) - x0).max(1)
    return float(far[others].min(initial=np.inf))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_the_lattice(kind: int, seed: int) -> None:
    proto = model(seed, kind)
    space = InputSpace(0, 9)
    x0 = np.random.default_rng(seed).integers(0, 10, 3)
    query = make_query(load_model(proto), x0, space=space)
    assert query.space.whole
    want = truth(proto, x0, KINDS[kind])
    found = distance(query, DistanceOptions(limits=Limits(timeout=30)))
    assert found.lower <= want
    assert found.upper >= want
    if np.isfinite(found.upper):
        assert found.witness is not None
        assert (np.rint(found.witness.x) == found.witness.x).all()
        assert found.upper == found.witness.radius
        assert found.upper % 1 == 0
    assert found.status in ("exact", "none", "bracket")
    # the box holds points nearer than any whole one, which no witness may be
    for eps in (want - 1, want - 0.5, want):
        if 0 <= eps < np.inf:
            decided = verify(query, float(eps))
            assert decided.status != ("proved" if eps >= want else "violated")


def test_most_are_exact() -> None:
    exact = 0
    for seed in range(12):
        proto = model(100 + seed)
        x0 = np.random.default_rng(seed).integers(0, 10, 3)
        found = distance(make_query(load_model(proto), x0, space=InputSpace(0, 9)), DistanceOptions(limits=Limits(timeout=30)))
        want = truth(proto, x0, np.uint8)
        exact += (found.status == "none" and want == np.inf) or (found.status == "exact" and found.upper == want)
    assert exact >= 9


def image(seed: int) -> Query:
    x0 = np.random.default_rng(seed).integers(0, 256, 30).astype(np.uint8)
    return make_query(load_model(model(seed, inputs=30, scale=0.01)), x0)


def test_bytes_have_the_domain_of_their_type() -> None:
    query = image(0)
    assert (query.space.lower, query.space.upper) == (0, 255)
    found = attack(query, AttackOptions(steps=30, restarts=4))
    assert found.x_adv is not None
    assert found.d_adv is not None
    assert (np.rint(found.x_adv) == found.x_adv).all()
    assert found.x_adv.min() >= 0
    assert found.x_adv.max() <= 255
    assert run(query.model.source, found.x_adv[None].astype(np.uint8))[0].argmax() != query.label


def test_an_anchor_between_whole_numbers_is_rounded() -> None:
    query = make_query(load_model(model(0)), np.array([3.2, 0.0, 254.6]))
    assert query.x0.tolist() == [3, 0, 255]


def test_a_point_between_whole_numbers_is_no_witness() -> None:
    query = image(1)
    found = attack(query, AttackOptions(steps=30, restarts=4))
    assert found.x_adv is not None
    between = np.clip(found.x_adv + np.float32(0.25), 0, 254.5)[None]
    assert query.margins(between)[0][0] < 0 or (np.rint(between) == between).all()


def test_other_types_want_their_domain_said() -> None:
    with pytest.raises(InputError, match=r"int64, which has no usual range.*--domain"):
        make_query(load_model(model(0, TensorProto.INT64)), np.zeros(3))
    with pytest.raises(InputError, match="leaves the range of the model's input, uint8"):
        make_query(load_model(model(0)), np.zeros(3), space=InputSpace(-1, 255))
    with pytest.raises(InputError, match="--mean and --std"):
        make_query(load_model(model(0)), np.zeros(3), space=InputSpace(0, 255, (0.0,), (1.0,)))


def test_arithmetic_of_whole_numbers_is_refused() -> None:
    nodes = [helper.make_node("Sub", ["x", "c"], ["d"]), helper.make_node("Cast", ["d"], ["f"], to=F), *body("f")]
    proto = file(nodes, tensor("x", ["N", 3], U8), [tensor("z", ["N", 4])], mlp(0, 3) | {"c": np.array([3], np.uint8)}, opset=17)
    with pytest.raises(UnsupportedOperatorError, match=r"Sub .*computes in uint8"):
        load_model(proto)


def test_values_may_be_moved_before_they_are_cast() -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), helper.make_node("Flatten", ["t"], ["v"]),
             helper.make_node("Cast", ["v"], ["f"], to=F), *body("f")]  # fmt: skip
    proto = file(nodes, tensor("x", ["N", 2, 3], U8), [tensor("z", ["N", 4])], mlp(0))
    query = make_query(load_model(proto), np.arange(6).reshape(2, 3))
    want = run(proto, np.arange(6, dtype=np.uint8).reshape(1, 2, 3))[0]
    np.testing.assert_allclose(query.logits(query.x0[None]), want, rtol=1e-6)


def test_codes_are_refused_as_such() -> None:
    """Rows of an embedding, and a one-hot code, whose shape is computed from the input."""
    kind, table = TensorProto.INT64, np.zeros((9, 2), np.float32)
    looked_up = [helper.make_node("Gather", ["table", "x"], ["e"]), helper.make_node("Flatten", ["e"], ["f"]), *body("f")]
    hot = [
        helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Expand", ["x", "s"], ["wide"]),
        helper.make_node("Equal", ["wide", "three"], ["t"]), helper.make_node("Cast", ["t"], ["f"], to=F), *body("f"),
    ]  # fmt: skip
    for nodes, name, constants in ((looked_up, "Gather", {"table": table}), (hot, "Equal", {"three": np.array([3])})):
        proto = file(nodes, tensor("x", ["N", 3], kind), [tensor("z", ["N", 4])], mlp(0, 6 if name == "Gather" else 3) | constants)
        with pytest.raises(UnsupportedOperatorError, match=rf"operator {name} .* codes .*embedded values as its input"):
            load_model(proto)
