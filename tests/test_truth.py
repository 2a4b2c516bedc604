"""What the differential test rests on: the truth is true, scaling keeps a function, infinite ends go in and come out again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.common import Answer
from benchmarks.differential import run
from benchmarks.differential_bench import Asked, Bench
from benchmarks.random_questions import loosened, random_setting, scaled, small_model
from benchmarks.sampling import Anchor, logits_by_onnxruntime, nearest_sampled, worst
from benchmarks.truth import TooLarge, distance, pieces_of
from onnxsub.ops.relu import Relu
from onnxsub.propagate import bounds
from tests.handmade import Net


@pytest.mark.parametrize("seed", range(12))
def test_pieces_are_the_network(seed: int) -> None:
    setting = random_setting(seed)
    run_plain = logits_by_onnxruntime(setting.plain)
    x = np.random.default_rng(seed).uniform(0, 1, (20, len(setting.x0)))
    expected = run_plain(x)
    assert np.allclose(logits_by_onnxruntime(setting.model)(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    try:
        pieces = pieces_of(setting.plain)
    except TooLarge:
        assert setting.kind in ("conv", "graph")
        return
    assert np.abs(pieces(x) - expected).max() <= 1e-5 * (1 + np.abs(expected).max())


def test_the_distance_of_a_fold_is_the_closed_form() -> None:
    net = Net(2)
    h = net.node("Abs", [net.node("Gemm", ["x", net.weight([[1.0, -2.0]]), net.weight([0.25])], transB=1)])
    y = net.node("Gemm", [h, net.weight([[1.0], [0.0]]), net.weight([0.0, 0.5])], transB=1)
    at = Anchor(np.array([0.25, 0.25]), 1)  # |x - 2y + 1/4| reaches 1/2 at the first step outward: 3 d = 1/2
    assert distance(pieces_of(net.model(y, 2)), at) == pytest.approx(1 / 6, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_no_sample_is_nearer_than_the_distance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pieces = pieces_of(small_model(rng))
    n = pieces.A.shape[1] - pieces.units
    x0 = rng.random(n)
    at = Anchor(x0, int(pieces(x0[None])[0].argmax()))
    near = nearest_sampled(pieces, at, rng, beyond=1e-9, lines=200, steps=50)
    try:
        d = distance(pieces, at, best=near, programs=200)
    except TooLarge:
        d = 0.0  # nothing is claimed
    assert d <= near
    inside = np.clip(x0 + min(d, 1.0) * rng.uniform(-1, 1, (5_000, n)), 0, 1)
    assert worst(pieces(inside), at.label).max() <= 1e-9


def test_scaling_by_a_power_of_two_changes_weights_and_no_value() -> None:
    rng = np.random.default_rng(3)
    plain = small_model(rng)
    n = plain.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    x = rng.random((10, n))
    for power in (-100, -7, 60, 100):
        model = scaled(plain, power, np.random.default_rng(0))
        assert len(model.graph.initializer) > len(plain.graph.initializer)
        assert np.allclose(logits_by_onnxruntime(model)(x), logits_by_onnxruntime(plain)(x), rtol=1e-6, atol=1e-6)


def test_loosened_bounds_have_infinite_ends_and_come_back() -> None:
    before = bounds.compute_bounds, vars(Relu)["interval"]
    query = Bench(random_setting(1)).query
    box = query.space.ball(query.x0, 0.1)
    with loosened(5, share=1.0):
        found = bounds.compute_bounds(query.network, *box)
        assert any(np.isinf(end.numpy()).any() for pair in found.pre.values() for end in pair)
    assert (bounds.compute_bounds, vars(Relu)["interval"]) == before
    found = bounds.compute_bounds(query.network, *box)
    assert all(np.isfinite(end.numpy()).all() for pair in found.pre.values() for end in pair)


def test_a_wrong_answer_is_called_wrong() -> None:
    bench = Bench(random_setting(1))
    d = bench.truth.upper
    assert bench.truth.by == "enumeration"
    assert 0 < d < np.inf
    far = Asked("ball", "bab", 2 * d)
    assert bench.grade(far, Answer("proved", 0.0))[0] == "wrong"
    assert bench.grade(Asked("ball", "bab", 0.5 * d), Answer("proved", 0.0))[0] == "right"
    assert bench.grade(far, Answer("violated", 0.0))[0] == "wrong"
    assert bench.grade(far, Answer("violated", 0.0, x=bench.query.x0))[0] == "wrong"
    assert bench.grade(far, Answer("unknown", 0.0))[0] == "undecided"
    asked = Asked("distance", "bab", 0.0, tol=1e-6)
    assert bench.grade(asked, Answer("bracket", 0.0, lower=1.01 * d))[0] == "wrong"
    assert bench.grade(asked, Answer("bracket", 0.0, lower=0.5 * d))[0] == "undecided"
    assert bench.grade(asked, Answer("none", 0.0, lower=0.5 * d))[0] == "wrong"


def test_a_right_answer_is_called_right_and_too_wide_an_exact_one_wrong() -> None:
    bench = Bench(random_setting(1))
    asked = Asked("distance", "bab", 0.0, tol=1e-5)
    answer = bench.ask(asked, 20.0)
    assert bench.grade(asked, answer) == ("right", "")
    wide = replace(answer, lower=0.9 * answer.lower)
    assert bench.grade(asked, wide)[0] == "wrong"
    far = Asked("property", "bab", 1.5 * bench.truth.upper)
    found = bench.ask(far, 20.0)
    assert bench.grade(far, found) == ("right", "")
    assert bench.grade(replace(far, radius=0.5 * bench.truth.upper), found)[0] == "wrong"


def test_random_questions_are_answered_rightly() -> None:
    tally = run(10, 11, 10.0, None, show=False, loose=False)
    assert tally["asked"] == 10
    assert tally["wrong"] == tally["crash"] == 0, tally


@pytest.mark.slow
def test_many_random_questions_also_with_infinite_intervals_are_answered_rightly() -> None:
    tally = run(150, 12, 10.0, None, show=False)
    assert tally["asked"] == 150
    assert tally["wrong"] == tally["crash"] == 0, tally
