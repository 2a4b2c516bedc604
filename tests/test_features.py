"""A domain per feature and a unit per feature: a table with mixed scales gives the answers of the same table rescaled by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import ModelProto

from onnxsub.anchors import read_anchor
from onnxsub.errors import InputError
from onnxsub.features import check_inside
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.bounds import BoundsOptions, bounds
from onnxsub.passes.select import SelectOptions
from onnxsub.properties.robustness import fed_box
from onnxsub.provenance import read_provenance
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net, run
from tests.verifiers.external_tools import Stand

QUICK = AttackOptions(steps=30, restarts=8, rounds=1)
LOW = np.array([2e-3, -1.0, 1e5, 0.0, -5e5])
WIDTH = np.array([1e-3, 2.0, 1e6, 1.0, 1e6])
SPACE = InputSpace(LOW, LOW + WIDTH)
Z0 = np.array([0.4, 0.6, 0.5, 0.3, 0.55])
X0 = (LOW + WIDTH * Z0).astype(np.float32)


def table(seed: int, low: np.ndarray | float = 0.0, width: np.ndarray | float = 1.0) -> ModelProto:
    """Five features, three classes; a function of `(x - low) / width`."""
    net = Net(5, seed=seed)
    w, b = net.gauss(8, 5, fan=5), 0.3 * net.rng.normal(size=8)
    scaled = w / np.broadcast_to(width, 5)
    h = net.node("Relu", [net.node("Gemm", ["x", net.weight(scaled), net.weight(b - scaled @ np.broadcast_to(low, 5))], transB=1)])
    h = net.node("Relu", [net.gemm(h, 8, 6)])
    return net.model(net.gemm(h, 6, 3), 3)


def both(seed: int, weights: np.ndarray | None = None) -> tuple[Query, Query]:
    """The table with mixed scales, and the one that was rescaled to [0, 1] by hand at the same anchor."""
    weights = np.ones(5) if weights is None else weights
    raw = make_query(load_model(table(seed, LOW, WIDTH)), X0, space=SPACE, scale=weights * WIDTH)
    z0 = (X0.astype(np.float64) - LOW) / WIDTH
    hand = make_query(load_model(table(seed)), z0, raw.label, scale=None if (weights == 1).all() else weights)
    return raw, hand


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_the_distance_of_mixed_scales_is_that_of_the_rescaled_table(verifier: str) -> None:
    exact = 0
    for seed in (0, 1, 2):
        raw, hand = both(seed)
        options = DistanceOptions(limits=Limits(tol=1e-5), attack=QUICK, verifier=verifier)
        found, expected = distance(raw, options), distance(hand, options)
        assert found.status == expected.status
        if expected.status != "exact":
            continue
        exact += 1
        assert found.upper == pytest.approx(expected.upper, abs=3e-5)
        assert found.lower == pytest.approx(expected.lower, abs=3e-5)
        assert found.witness is not None
        x = raw.space.original(found.witness.x).astype(np.float64)
        assert (np.abs(x - X0) <= found.upper * WIDTH).all()
        assert (x >= LOW).all()
        assert (x <= LOW + WIDTH).all()
    assert exact


def test_decisions_bounds_and_attacks_agree() -> None:
    raw, hand = both(1)
    d = distance(hand, DistanceOptions(attack=QUICK)).upper
    for share, status in ((0.98, "proved"), (1.02, "violated")):
        assert verify(raw, share * d).status == verify(hand, share * d).status == status
        # a radius per feature is the radius 1 in units of itself
        same = make_query(raw.model, X0, space=SPACE, scale=share * d * WIDTH)
        assert verify(same, 1.0, VerifyOptions(verifier="milp")).status == status
    there, here = (bounds(q, BoundsOptions(eps=0.1)) for q in (raw, hand))
    for a, b in zip(there.layers, here.layers, strict=True):
        assert np.allclose(a.lower, b.lower, atol=1e-4)
        assert np.allclose(a.upper, b.upper, atol=1e-4)
    assert there.to_json()["input"]["scale"]["highest"] == 1e6
    found, expected = attack(raw), attack(hand)
    assert found.d_adv == pytest.approx(expected.d_adv, rel=1e-2)
    assert found.d_adv >= d * (1 - 1e-4)
    assert found.x_adv is not None
    x = raw.space.original(found.x_adv)
    f = run(raw.model.source, x[None])[0]
    assert int(f.argmax()) == found.adversarial_label != raw.label


def test_weights_are_a_change_of_units_and_zero_fixes_a_feature() -> None:
    weights = np.array([1.0, 2.0, 0.5, 1.0, 0.0])
    raw, hand = both(1, weights)
    options = DistanceOptions(limits=Limits(tol=1e-5), attack=QUICK)
    found, expected = distance(raw, options), distance(hand, options)
    assert found.status == expected.status == "exact"
    assert found.upper == pytest.approx(expected.upper, abs=3e-5)
    assert found.witness is not None
    assert raw.space.original(found.witness.x)[4] == X0[4]
    # the same by hand once more: inputs v = z / w of domain [0, 1 / w], the last one fixed by its domain
    w = np.where(weights > 0, weights, 1.0)
    z0 = (X0.astype(np.float64) - LOW) / WIDTH
    low, high = np.zeros(5), 1 / w
    low[4] = high[4] = z0[4]
    v = make_query(load_model(table(1, 0.0, 1 / w)), z0 / w, raw.label, space=InputSpace(low, high))
    again = distance(v, options)
    assert again.upper == pytest.approx(expected.upper, abs=3e-5)
    assert again.witness is not None
    assert again.witness.x[4] == np.float32(z0[4])


def test_a_fixed_feature_never_moves() -> None:
    scale = WIDTH * np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    query = make_query(load_model(table(2, LOW, WIDTH)), X0, space=SPACE, scale=scale)
    low, high = fed_box(query, 0.25)
    assert (low[[1, 3]] == X0[[1, 3]]).all()
    assert (high[[1, 3]] == X0[[1, 3]]).all()
    assert np.allclose(low[[0, 2, 4]], (X0 - 0.25 * WIDTH)[[0, 2, 4]], rtol=1e-6)
    rng = np.random.default_rng(0)
    u = rng.uniform(-2, 2, (500, 5))
    x = query.space.original(u)
    assert (x[:, [1, 3]] == X0[[1, 3]]).all()
    assert (np.abs(x.astype(np.float64) - X0) <= np.abs(u) * scale).all()
    assert (x >= SPACE.lower).all()
    assert (x <= SPACE.upper).all()
    found = attack(query, QUICK)
    assert found.x_adv is None or (query.space.original(found.x_adv)[[1, 3]] == X0[[1, 3]]).all()


def test_a_feature_at_the_rim_of_its_domain_moves_one_way() -> None:
    x0 = np.array([LOW[0], 1.0, 1e5, 0.0, 5e5], dtype=np.float32)
    space = InputSpace(np.append(LOW[:4], 5e5), np.append((LOW + WIDTH)[:4], 5e5)).measured(x0, WIDTH)
    low, high = space.ends((5,))
    assert low[[1, 2, 3, 4]] == pytest.approx([-1.0, 0.0, 0.0, 0.0], rel=1e-12)
    assert high[[1, 2, 3, 4]] == pytest.approx([0.0, 1.0, 1.0, 0.0], rel=1e-12)
    assert space.reach(np.zeros(5)) == pytest.approx(1.0)


def test_a_domain_per_feature_alone() -> None:
    query = make_query(load_model(table(1, LOW, WIDTH)), X0, space=SPACE)
    low, high = fed_box(query, 0.5)
    assert low[0] == pytest.approx(LOW[0], rel=1e-6)  # half a unit is far beyond the domain of this one
    assert high[0] == pytest.approx(LOW[0] + WIDTH[0], rel=1e-6)
    assert low[2] == pytest.approx(X0[2] - 0.5, rel=1e-7)
    found = verify(query, 1e39)
    whole = distance(query, DistanceOptions(attack=QUICK, limits=Limits(timeout=20)))
    assert (found.status == "proved") == (whole.status == "none")
    assert found.witness is None or query.space.check(found.witness.x, "the witness") is None
    head = json.loads(json.dumps(found.to_json()["input"]))
    assert head["domain"]["lowest"] == -5e5
    assert head["domain"]["highest"] == 1.1e6
    assert head["scale"] is None


def test_normalisation_and_scale_together() -> None:
    mean, std = tuple(LOW.tolist()), tuple(WIDTH.tolist())
    space = InputSpace(LOW, LOW + WIDTH, mean, std)
    query = make_query(load_model(table(1)), X0, space=space, scale=WIDTH)
    raw, _ = both(1)
    options = DistanceOptions(limits=Limits(tol=1e-5), attack=QUICK)
    assert distance(query, options).upper == pytest.approx(distance(raw, options).upper, abs=3e-5)
    u = np.random.default_rng(1).uniform(-0.3, 0.3, (20, 5)).astype(np.float32)
    assert np.allclose(query.logits(u), raw.logits(u), atol=1e-4)


@pytest.mark.parametrize("layout", ["chain", "compact", "inplace"])
def test_substitutes_are_written_for_the_inputs_themselves(layout: str) -> None:
    raw, _ = both(1)
    options = PruneOptions(select=SelectOptions(gamma=None, keep=5), attack=QUICK, layout=layout)
    result = prune(raw, options)
    x_adv = raw.space.original(np.asarray(result.substitute.x_adv))
    for x in (X0, x_adv):
        f, g = run(raw.model.source, x[None])[0], run(result.proto, x[None])[0]
        assert np.abs(f - g).max() <= 1e-4 * (1 + np.abs(f).max())
    # exact on the whole domain, fixed features included
    inplace = prune(raw, PruneOptions(select=SelectOptions(gamma=None, keep=5), attack=QUICK, layout="inplace"))
    x = (LOW + WIDTH * np.random.default_rng(0).random((200, 5))).astype(np.float32)
    expected = run(inplace.proto, x)
    found_there = np.concatenate([run(result.proto, row[None]) for row in x])  # a chain takes one row
    assert np.abs(found_there - expected).max() <= 1e-4 * (1 + np.abs(expected).max())
    found = read_provenance(result.proto)
    assert found is not None
    assert found.domain == (-5e5, 1.1e6)
    assert found.domain_sha256 == SPACE.domain_sha256
    assert found.scale_sha256 is not None
    assert found.d_adv == pytest.approx(result.substitute.d_adv)


def test_by_a_substitute_and_by_another_tool() -> None:
    raw, hand = both(1)
    exact = distance(hand, DistanceOptions(attack=QUICK)).upper
    via = PruneOptions(select=SelectOptions(gamma=None, keep=5), attack=QUICK)
    found = distance(raw, DistanceOptions(via=via, attack=QUICK))
    assert found.original is not None
    assert found.original.lower <= exact + 1e-5
    assert found.original.upper >= exact - 1e-5
    by_tool = distance_external(raw.model, raw, Stand(), Limits(tol=1e-3))
    assert by_tool.lower - 1e-3 <= exact <= by_tool.upper + 1e-5
    flat = prune(raw, PruneOptions(select=SelectOptions(gamma=None, keep=5), attack=QUICK, layout="chain", flat_input=True))
    d_hat = distance_external(load_model(flat.proto), raw, Stand(), Limits(tol=1e-3))
    assert d_hat.lower - 1e-3 <= found.upper <= d_hat.upper + 1e-3


def test_one_value_per_channel() -> None:
    net = Net(2, 4, 4, seed=3)
    model = load_model(net.model(net.gemm(net.node("Flatten", [net.node("Relu", [net.filters("x", 2, 3, 3)])]), 12, 3), 3))
    space = InputSpace(np.array([0.0, -100.0]), np.array([1.0, 100.0]))
    x0 = np.stack([np.full((4, 4), 0.5), np.full((4, 4), 20.0)])
    query = make_query(model, x0, space=space, scale=np.array([1.0, 200.0]))
    low, high = query.space.plain.ends((2, 4, 4))
    assert (low[0] == 0).all()
    assert (high[1] == 100).all()
    low, high = fed_box(query, 0.1)
    assert np.allclose(low.reshape(2, 16), [[0.4] * 16, [0.0] * 16], atol=1e-6)
    assert np.allclose(high.reshape(2, 16), [[0.6] * 16, [40.0] * 16], atol=1e-5)


def test_eight_bit_anchors_are_scaled_to_each_domain(tmp_path: object) -> None:
    path = f"{tmp_path}/x.npy"
    np.save(path, np.array([0, 255, 51], dtype=np.uint8))
    x = read_anchor(path, (3,), domain=(np.array([0.0, -1.0, 100.0]), np.array([1.0, 3.0, 200.0])))
    assert np.allclose(x, [0.0, 3.0, 120.0])


NAN = np.nan


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        ([0, 0, NAN], [1, 1, 1], "feature 2 is .nan, 1.; give the finite range"),
        ([0, 0, 0], [1, np.inf, 1], "feature 1 is .0, inf.; give the finite range"),
        ([0, 2, 0], [1, 1, 1], "feature 1 is .2, 1.; give the lower end first"),
        ([0, 0, 0], [1, 1e39, 1], "inputs are float32"),
        ([1, 2, 3], [1, 2, 3], "fixes every feature"),
        ([0, 0, 0], [1, 1], "one shape"),
        ([[0, 0], [0, 0]], [[1, 1], [1, 1]], "shape .2, 2."),
    ],
)
def test_domains_that_are_none(lower: object, upper: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        InputSpace(np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)).fitted((3,))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ([1, 1, 1, 1, -1], "negative"), ([1, 1, 1, 1, np.inf], "not finite"), ([1, NAN, 1, 1, 1], "not finite"),
        ([0] * 5, "no feature can move"), ([1, 2], "2 values"), ("many", "no array of numbers"), ([1e-300] * 5, "far too small"),
    ],
)  # fmt: skip
def test_scales_that_are_none(scale: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_query(load_model(table(0, LOW, WIDTH)), X0, space=SPACE, scale=scale)


def test_an_anchor_outside_the_domain_of_one_feature_is_named() -> None:
    x = X0.copy()
    x[3] = 1.5
    with pytest.raises(InputError, match=r"1.5 at feature 3, outside its domain \[0, 1\]"):
        make_query(load_model(table(0, LOW, WIDTH)), x, space=SPACE)
    with pytest.raises(InputError, match="one range for all features"):
        _ = SPACE.interval


def test_spaces_are_compared_by_their_values() -> None:
    assert InputSpace(LOW, LOW + WIDTH) == SPACE
    assert hash(InputSpace(LOW, LOW + WIDTH)) == hash(SPACE)
    assert InputSpace(LOW, LOW + 2 * WIDTH) != SPACE
    assert InputSpace() == InputSpace(0.0, 1.0) != SPACE


def test_a_fixed_feature_may_be_a_number_that_float32_does_not_hold() -> None:
    space = InputSpace(np.array([0.1, 0.0]), np.array([0.1, 1.0]))
    x = space.inside(np.array([0.1, 0.5]))
    space.check(x, "x")
    space.check(np.array([0.1, 0.5]), "x")
    assert x[0] == np.float32(0.1)


@pytest.mark.parametrize(
    ("low", "high", "step"), [(-2e7, 1e7, 2.0), (0.0, 1.0, 2.0**-23), (-3e-5, 1e-6, 2.0**-39), (0.0, 255.0, 2.0**-16)]
)
@pytest.mark.parametrize("per_feature", [False, True])
def test_an_anchor_is_moved_into_its_domain_by_a_step_of_float32_at_most(
    low: float, high: float, step: float, per_feature: bool
) -> None:
    ends = (np.full(2, low), np.full(2, high)) if per_feature else (low, high)
    inside = (low + high) / 2
    for end, out in ((low, -1.0), (high, 1.0)):
        check_inside(np.array([end + out * step, inside]), *ends, "the anchor")
        for beyond in (4 * step, 1e-6 * (high - low)):
            if beyond > 2 * step:
                with pytest.raises(InputError, match="outside"):
                    check_inside(np.array([end + out * beyond, inside]), *ends, "the anchor")
