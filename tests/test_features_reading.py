"""Ranges, weights and one target per question, together with what files are: whole numbers, several outputs, classes, windows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxsub.cli.points import write_point
from onnxsub.errors import InputError
from onnxsub.layouts import LayoutContext
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.reading import Reading
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.external.inquiry import query_of
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import verify
from tests.handmade import Net
from tests.reading.files import body, file, mlp, run, tensor
from tests.reading.test_integers import model

QUICK = AttackOptions(steps=30, restarts=8, rounds=1)
LOW, HIGH = np.array([0.0, 3.0, 2.0]), np.array([9.0, 7.0, 2.0])
X0 = np.array([4, 5, 2])


def lattice(seed: int) -> tuple[ModelProto, Query]:
    proto = model(seed)
    return proto, make_query(load_model(proto), X0, space=InputSpace(LOW, HIGH))


def nearest(proto: ModelProto, label: int, targets: tuple[int, ...]) -> float:
    """The smallest whole radius at which a whole point of the ranges has a target in front, by trying all of them."""
    grid = np.array(list(itertools.product(range(10), range(3, 8), (2,))), np.uint8)
    z = run(proto, grid)[0]
    reached = (z[:, list(targets)] >= z[:, [label]]).any(axis=1)
    return float(np.abs(grid.astype(float) - X0).max(1)[reached].min(initial=np.inf))


@pytest.mark.parametrize("seed", range(6))
def test_whole_numbers_with_a_range_each(seed: int) -> None:
    proto, query = lattice(seed)
    assert query.space.whole
    assert query.space.per_feature
    for target in (None, *query.targets[:1]):
        asked = make_query(load_model(proto), X0, space=InputSpace(LOW, HIGH), target=target)
        want = nearest(proto, query.label, asked.targets)
        found = distance(asked, DistanceOptions(limits=Limits(timeout=20)))
        assert found.lower <= want <= found.upper
        if found.witness is not None:
            x = found.witness.x
            assert (np.rint(x) == x).all()
            assert ((x >= LOW) & (x <= HIGH)).all()
            assert x[2] == 2
        for eps in (want - 1, want):
            if 0 <= eps < np.inf:
                assert verify(asked, float(eps)).status != ("proved" if eps >= want else "violated")


def test_whole_numbers_have_no_scale() -> None:
    proto, _ = lattice(0)
    for space in (None, InputSpace(LOW, HIGH)):
        with pytest.raises(InputError, match=r"^--scale makes.*whole numbers.*--domain FILE") as refused:
            make_query(load_model(proto), X0, space=space, scale=np.ones(3))
        assert "\n" not in str(refused.value)


def test_ranges_without_a_whole_number_are_refused() -> None:
    loaded = load_model(model(0))
    with pytest.raises(InputError, match=r"--domain of feature 1, \[3.2, 3.8\], holds no whole number"):
        make_query(loaded, X0, space=InputSpace(np.array([0, 3.2, 2]), np.array([9, 3.8, 2])))
    with pytest.raises(InputError, match=r"--domain of feature 0, \[-1, 9\], leaves the range of the model's input, uint8"):
        make_query(loaded, X0, space=InputSpace(np.array([-1, 3.0, 2]), HIGH))
    with pytest.raises(InputError, match="--mean and --std"):
        make_query(loaded, X0, space=InputSpace(LOW, HIGH, (0.0,), (1.0,)))


def test_a_lattice_is_a_space_of_its_own() -> None:
    whole = InputSpace(LOW, HIGH).over(np.dtype(np.uint8))
    assert whole != InputSpace(LOW, HIGH)
    assert whole == InputSpace(LOW, HIGH, whole=True)
    assert whole.inside(np.array([3.6, 99, 0])).tolist() == [4, 7, 2]
    flat = InputSpace(np.zeros((1, 3)), np.full((1, 3), 9.5)).over(np.dtype(np.int64)).reshaped((1, 3), (3,))
    assert flat.whole
    assert flat.inside(np.full(3, 99.0)).tolist() == [9, 9, 9]


def test_a_substitute_is_asked_about_the_lattice() -> None:
    proto, query = lattice(1)
    via = DistanceOptions(limits=Limits(timeout=20), via=PruneOptions(method="lin", select=SelectOptions(gamma=0.5), attack=QUICK))
    found = distance(query, via)
    assert found.original is not None
    assert found.original.lower <= nearest(proto, query.label, query.targets) <= found.original.upper
    g = prune(query, PruneOptions(method="lin", select=SelectOptions(gamma=0.5), attack=QUICK, eps=3.0))
    other = query_of(load_model(g.proto), query)
    assert other.space == query.space


def heads() -> ModelProto:
    """Two outputs: scores of four classes, and the class that has the largest one."""
    nodes = [*body(), helper.make_node("ArgMax", ["z"], ["k"], axis=1, keepdims=0)]
    return file(nodes, tensor("x", ["N", 6]), [tensor("z", ["N", 4]), tensor("k", ["N"], TensorProto.INT64)], mlp(3))


def test_target_and_scale_of_a_file_that_ends_in_a_class() -> None:
    proto = heads()
    x0 = np.full(6, 0.5, np.float32)
    w = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 3.0])
    asked: dict[str, Query] = {n: make_query(load_model(proto, Reading(n)), x0, scale=w) for n in ("z", "k")}
    by_class = attack(asked["k"], QUICK)
    assert by_class.x_adv is not None
    x = asked["k"].space.original(by_class.x_adv)
    assert run(proto, x[None], "k")[0] != asked["k"].label
    assert x[3] == x0[3]
    targets = asked["z"].targets
    options = DistanceOptions(limits=Limits(timeout=20))
    every = distance(asked["z"], options)
    single = [distance(make_query(load_model(proto, Reading("z")), x0, scale=w, target=t), options).upper for t in targets]
    assert every.status == "exact"
    assert min(single) == pytest.approx(every.upper, abs=2e-6)


def windows() -> ModelProto:
    net = Net(1, 4, 4, seed=5)
    h = net.node("Relu", [net.filters("x", 1, 2, 2)])
    h = net.node("Flatten", [net.node("MaxPool", [h], kernel_shape=[2, 2], strides=[1, 1])])
    return net.model(net.gemm(h, 8, 3), 3)


@pytest.mark.parametrize("exact_on", ["domain", "ball", "auto"])
def test_chains_are_exact_where_they_say_in_units_of_a_scale(exact_on: str) -> None:
    rng = np.random.default_rng(2)
    low = rng.choice([-1e3, 0.0, 2.0], (1, 4, 4))
    width = rng.choice([0.5, 10.0], (1, 4, 4))
    w = np.where(rng.random((1, 4, 4)) < 0.2, 0.0, 0.3 * width)
    loaded = load_model(windows())
    query = make_query(loaded, low + width * 0.4, space=InputSpace(low, low + width), scale=w)
    keep = SelectOptions(gamma=None, keep=6)
    g = prune(query, PruneOptions(method="con", select=keep, layout="chain", exact_on=exact_on, eps=0.5, attack=QUICK))
    same = prune(query, PruneOptions(method="con", select=keep, layout="compact", eps=0.5, attack=QUICK))
    u = rng.uniform(-0.5, 0.5, (200, 1, 4, 4))
    x = query.space.original(query.space.inside(u))
    ends = [np.concatenate([run(p.proto, row[None])[0] for row in x]) for p in (g, same)]
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-4 * (1 + float(np.abs(ends[1]).max())))
    assert g.exact_on == exact_on or (exact_on == "auto" and g.exact_on in ("ball", "domain"))


def test_the_ball_of_a_layout_is_one_of_inputs() -> None:
    plain = InputSpace(np.array([0.0, -100.0]), np.array([1.0, 100.0]))
    space = plain.measured(np.array([0.5, 0.0], np.float32), np.array([0.1, 50.0]))
    zero = np.zeros(2, np.float32)
    context = LayoutContext.of(space, zero, 1.0, np.array([1.5, -0.5], np.float32), exact_on="ball")
    assert context.space == plain
    assert context.valid_radius == 1.5  # the adversarial point is inside
    assert context.box is not None
    for end, want in zip(context.box, ([0.35, -75.0], [0.65, 75.0]), strict=True):
        np.testing.assert_allclose(end, want, rtol=1e-6)
    auto = LayoutContext.of(space, zero, 1.0)
    assert auto.fallback == 1.0
    np.testing.assert_array_equal(auto.exact_box((2,)), [[0.0, -100.0], [1.0, 100.0]])
    near = auto.on_ball(1.0).exact_box((2,))
    np.testing.assert_allclose(near, [[0.4, -50.0], [0.6, 50.0]], rtol=1e-6)


def test_quantisers_have_room_in_units_of_a_scale(quantised: ModelProto) -> None:
    """What is proved of a weighted ball holds for float32 points of it."""
    rng = np.random.default_rng(0)
    width = np.array([1e-3, 1.0, 1e3, 10.0])
    loaded = load_model(quantised)
    answers = []
    for _ in range(6):
        low = np.zeros(4)
        x0 = (low + width * rng.random(4)).astype(np.float32)
        query = make_query(loaded, x0, space=InputSpace(low, width), scale=width)
        found = verify(query, 0.05)
        answers.append(found.status)
        x = query.space.original(query.space.inside(rng.uniform(-0.05, 0.05, (2000, 4))))
        labels = run(quantised, x)[0].argmax(1)
        assert found.status != "proved" or (labels == query.label).all()
    assert "proved" in answers


@pytest.fixture
def quantised() -> ModelProto:
    """A first layer that scales, a quantiser, a second layer."""
    rng = np.random.default_rng(7)
    weights: dict[str, Any] = {
        "W": (rng.normal(size=(4, 5)) / np.array([[1e-3], [1.0], [1e3], [10.0]])).astype(np.float32), "s": np.float32(0.05),
        "o": np.uint8(100), "V": rng.normal(size=(5, 3)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("QuantizeLinear", ["h", "s", "o"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "o"], ["d"]), helper.make_node("MatMul", ["d", "V"], ["z"]),
    ]  # fmt: skip
    return file(nodes, tensor("x", ["N", 4]), [tensor("z", ["N", 3])], weights)


def test_bytes_of_an_anchor_are_taken_as_they_are(tmp_path: Path) -> None:
    whole = InputSpace(np.array([[40.0, 0.0]] * 2), np.array([[60.0, 9.0]] * 2)).over(np.dtype(np.uint8))
    assert whole.grey == (0.0, 255.0)
    write_point(str(tmp_path / "x.png"), np.array([[57.0, 3.0], [40.0, 9.0]], np.float32), whole)
    image = pytest.importorskip("PIL.Image")
    assert np.asarray(image.open(tmp_path / "x.png")).tolist() == [[57, 3], [40, 9]]
