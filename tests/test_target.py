"""Questions about one target class: only its margin counts, and all answers are those of the network with these two classes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto

from onnxsub.errors import InputError
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack, attack_network
from onnxsub.passes.attack.tangent import tangent_steps
from onnxsub.passes.attack.walk import walk_back
from onnxsub.passes.certify import certified_radius
from onnxsub.passes.select import SelectOptions
from onnxsub.properties import robustness_property
from onnxsub.provenance import read_provenance
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.external.search import distance_external
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net
from tests.verifiers.external_tools import Stand

QUICK = AttackOptions(steps=30, restarts=8, rounds=1)


def small(seed: int, columns: tuple[int, ...] | None = None, *, softmax: bool = False) -> ModelProto:
    """Three inputs, two hidden layers, five classes, or only the given columns of them."""
    net = Net(3, seed=seed)
    h = net.node("Relu", [net.gemm("x", 3, 6)])
    h = net.node("Relu", [net.gemm(h, 6, 6)])
    w, b = net.gauss(5, 6, fan=6), 0.3 * net.rng.normal(size=5)
    chosen = list(range(5) if columns is None else columns)
    y = net.node("Gemm", [h, net.weight(w[chosen]), net.weight(b[chosen])], transB=1)
    return net.model(net.node("Softmax", [y], axis=1) if softmax else y, len(chosen))


X0 = np.array([0.4, 0.6, 0.5], dtype=np.float32)
SPACE = InputSpace(-3.0, 4.0)


def asked(seed: int, place: int) -> tuple[Query, Query]:
    """A question about the class in that place behind the predicted one, and the same about the network of these two classes."""
    whole = make_query(load_model(small(seed)), X0, space=SPACE)
    order = whole.logits(X0[None])[0].argsort()[::-1]
    y, t = int(order[0]), int(order[place])
    query = make_query(whole.model, X0, y, target=t, space=SPACE)
    return query, make_query(load_model(small(seed, (y, t))), X0, 0, space=SPACE)


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("seed", range(2))
def test_the_distance_is_that_of_the_two_classes(seed: int, verifier: str) -> None:
    for place in (1, 3)[seed:]:
        query, two = asked(seed, place)
        options = DistanceOptions(limits=Limits(tol=1e-5), attack=QUICK, verifier=verifier)
        found, expected = distance(query, options), distance(two, options)
        assert (found.status, list(found.targets)) == (expected.status, [query.target])
        if expected.status == "none":
            continue
        assert found.status == "exact"
        assert found.upper == pytest.approx(expected.upper, abs=1e-5)
        assert found.lower == pytest.approx(expected.lower, abs=1e-5)
        assert found.adversarial_label == query.target
        assert found.witness is not None
        f = query.logits(found.witness.x[None])[0]
        assert f[query.target] >= f[query.label] - 1e-5 * np.abs(f).max()


def test_the_nearest_of_all_targets_is_the_distance() -> None:
    whole = make_query(load_model(small(1)), X0, space=SPACE)
    options = DistanceOptions(attack=QUICK)
    ends = [distance(make_query(whole.model, X0, target=t, space=SPACE), options).upper for t in whole.targets]
    assert min(ends) == pytest.approx(distance(whole, options).upper, abs=2e-6)


def test_via_a_substitute() -> None:
    checked = 0
    for seed in range(4):
        query, two = asked(seed, 2)
        exact = distance(two, DistanceOptions(attack=QUICK)).upper
        if not np.isfinite(exact):
            continue
        via = PruneOptions(method="lin", select=SelectOptions(gamma=None, keep=5), attack=QUICK)
        found = distance(query, DistanceOptions(via=via, attack=QUICK, refine=True))
        assert found.original is not None
        assert found.witness is not None
        assert found.original.lower <= exact + 1e-6
        assert found.original.upper >= exact - 1e-6
        assert found.witness.label == query.target
        assert found.to_json()["anchor"]["target"] == query.target
        checked += 1
    assert checked


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_verify_answers_about_the_target_alone(verifier: str) -> None:
    for seed in (1,):
        query, two = asked(seed, 3)
        whole = make_query(query.model, X0, space=SPACE)
        d = distance(two, DistanceOptions(attack=QUICK)).upper
        near = distance(whole, DistanceOptions(attack=QUICK)).upper
        options = VerifyOptions(verifier=verifier)
        if not np.isfinite(d):
            assert verify(query, 5.0, options).status == "proved"
            continue
        beyond, within = verify(query, d * 1.01, options), verify(query, d * 0.99, options)
        assert (beyond.status, within.status) == ("violated", "proved")
        assert beyond.targets == {query.target: "violated"}
        assert beyond.to_json()["adversarial_label"] == query.target
        if near < d * 0.98:  # another class lies nearer: not asked about
            assert verify(whole, d * 0.99, options).status == "violated"
        document = json.loads(json.dumps(within.to_json()))
        assert document["anchor"]["target"] == query.target
        assert document["targets"] == {str(query.target): "proved"}


def test_the_attack_is_about_the_target() -> None:
    for method in ("auto", "pgd", "fgsm"):
        query, two = asked(1, 2)
        found, expected = attack(query, replace(QUICK, method=method)), attack(two, replace(QUICK, method=method))
        assert found.found == expected.found
        if found.found:
            assert found.adversarial_label == query.target
            assert found.d_adv == pytest.approx(expected.d_adv, rel=0.05)
            f = query.logits(np.asarray(found.x_adv)[None])[0]
            assert f[query.target] > f[query.label]
            assert found.to_json()["anchor"]["target"] == query.target


def test_another_tool_is_asked_about_the_target() -> None:
    query, two = asked(1, 2)
    exact = distance(two, DistanceOptions(attack=QUICK)).upper
    found = distance_external(query.model, query, Stand(), Limits(tol=1e-4))
    assert list(found.targets) == [query.target]
    assert found.lower - 1e-4 <= exact <= found.upper + 1e-6
    assert found.upper - found.lower <= 1e-4
    decided = decide_external(query.model, query, exact * 0.98, Stand())
    assert decided.targets == {query.target: "proved"}


def test_passes_take_a_target() -> None:
    query, two = asked(0, 2)
    network, y, t = query.network, query.label, query.target
    radius = certified_radius(network, lambda r: query.space.ball(query.x0, r), y, 4.0, target=t)
    assert radius == pytest.approx(certified_radius(two.network, lambda r: two.space.ball(two.x0, r), 0, 4.0), rel=1e-6)
    # each is within one per cent of the largest
    assert radius >= 0.99 * certified_radius(network, lambda r: query.space.ball(query.x0, r), y, 4.0)
    found = attack_network(network, query.x0, y, query.space, QUICK, target=t)
    assert found.adversarial_label == t
    assert found.x_adv is not None
    back = walk_back(network, query.x0, y, query.space, found.x_adv, target=t)
    assert back is not None
    assert back.label == t
    assert back.radius <= found.d_adv * 1.01
    step = tangent_steps(network, query.x0, y, query.space, found.x_adv, 5, target=t)
    assert step is not None
    assert np.abs(step - query.x0).max() <= found.d_adv * 1.5


def test_a_third_class_ahead_is_no_matter() -> None:
    whole = make_query(load_model(small(2)), X0, space=SPACE)
    order = [int(k) for k in whole.logits(X0[None])[0].argsort()[::-1]]
    second, last = order[1], order[-1]
    query = make_query(whole.model, X0, second, target=last, space=SPACE)
    assert query.predicted == order[0]
    assert not query.misclassified
    assert distance(query, DistanceOptions(attack=QUICK)).status in ("exact", "none")
    assert verify(query, 1e-4).status == "proved"
    ahead = make_query(whole.model, X0, second, target=order[0], space=SPACE)
    assert ahead.misclassified
    assert distance(ahead).status == "misclassified"
    assert attack(ahead).d_adv == 0.0
    assert verify(ahead, 0.1).status == "violated"
    with pytest.raises(InputError, match=f"class {order[0]} is ahead of class {second}"):
        prune(ahead)


def test_a_file_that_ends_in_a_softmax() -> None:
    query = make_query(load_model(small(3, softmax=True)), X0, space=SPACE)
    t = int(query.logits(X0[None])[0].argsort()[-3])
    targeted = make_query(query.model, X0, target=t, space=SPACE)
    plain = make_query(load_model(small(3)), X0, query.label, target=t, space=SPACE)
    ends = [distance(q, DistanceOptions(attack=QUICK)).upper for q in (targeted, plain)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)


def test_what_is_written_says_the_target() -> None:
    query, _ = asked(0, 2)
    (case,) = robustness_property(query, 0.1).cases
    (clause,) = case.clauses
    assert (clause.A[0] != 0).sum() == 2
    assert clause.A[0, query.target] == -1.0
    result = prune(query, PruneOptions(select=SelectOptions(gamma=None, keep=4), attack=QUICK))
    found = read_provenance(result.proto)
    assert found is not None
    assert (found.label, found.target) == (query.label, query.target)
    assert found.to_json()["anchor"]["target"] == query.target
    assert result.to_json()["anchor"]["target"] == query.target


@pytest.mark.parametrize(
    ("target", "words"), [(5, "--target 5 is out of range"), (-1, "out of range"), (True, "is not a class"), ("label", "defend")]
)
def test_targets_that_are_none(target: object, words: str) -> None:
    model = load_model(small(0))
    label = make_query(model, X0).label
    with pytest.raises(InputError, match=words):
        make_query(model, X0, target=label if target == "label" else target)  # type: ignore[arg-type]


def test_a_limit_leaves_a_bracket_of_the_target() -> None:
    query, _ = asked(1, 2)
    found = distance(query, DistanceOptions(limits=Limits(nodes=1), attack=QUICK))
    assert list(found.targets) == [query.target]
    assert found.lower <= found.upper
