"""What bounds prove: never more than samples and vertices of the box allow, and everything where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsub.budget import Budget, OutOfTime
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.certify import certified_radius, keeps_its_pieces, margin_rows, worst_margin_bound
from onnxsub.passes.substitute import lines, substitute
from onnxsub.propagate import compute_bounds
from onnxsub.propagate.balance import groups, scaled
from onnxsub.region import InputSpace
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, PIECEWISE, random_model

SPACE = InputSpace()


def margins(network: Network, x: np.ndarray, label: int) -> np.ndarray:
    with torch.no_grad():
        logits = network.forward(torch.as_tensor(x)).numpy()
    others = np.delete(logits, label, axis=1).max(axis=1)
    return logits[:, label] - others


def anchor(network: Network, seed: int) -> tuple[np.ndarray, int]:
    x0 = np.random.default_rng(seed).random(network.input_shape)
    with torch.no_grad():
        return x0, int(network.forward(torch.as_tensor(x0[None])).argmax())


def points_of(box: tuple[np.ndarray, np.ndarray], seed: int, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = box
    shape = (count, *low.shape)
    return np.concatenate([rng.uniform(low, high, shape), np.where(rng.random(shape) < 0.5, low, high)])


def some_kept(network: Network, seed: int, share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {a.output: rng.random(a.out_shape) < share for a in network.activations}


def test_margin_rows() -> None:
    logits = np.array([5.0, 3.0, 4.0])
    np.testing.assert_array_equal(margin_rows(3, 0) @ logits, [2, 1])
    np.testing.assert_array_equal(margin_rows(3, 1) @ logits, [-2, -1])
    assert margin_rows(2, 1).shape == (1, 2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.0, 0.02, 0.2, 3.0]), method=st.sampled_from(["ibp", "fastlin", "crown"]))
def test_no_point_has_a_smaller_margin_than_the_bound(seed: int, eps: float, method: str) -> None:
    network = lower(load_model(random_dag(seed)))
    x0, label = anchor(network, seed)
    box = SPACE.ball(x0, eps)
    bound = worst_margin_bound(network, box, label, method)
    assert bound <= margins(network, points_of(box, seed), label).min() + 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["con", "lin", "act"]), eps=st.sampled_from([0.02, 0.2]))
def test_the_lines_of_a_substitute_give_a_sound_bound_of_the_original(seed: int, kind: str, eps: float) -> None:
    network = lower(load_model(random_model(seed, activations=PIECEWISE if kind == "act" else ACTIVATIONS)))
    x0, label = anchor(network, seed)
    x_adv = np.clip(x0 + np.random.default_rng(seed).choice([-eps, eps], x0.shape), 0, 1)
    g = substitute(network, lines(network, kind, x0, x_adv), some_kept(network, seed, 0.3))
    box = SPACE.ball(x0, eps)
    plain, both = worst_margin_bound(network, box, label), worst_margin_bound(network, box, label, substitute=g)
    assert both >= plain
    assert both <= margins(network, points_of(box, seed), label).min() + 1e-12


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), lined=st.booleans())
def test_a_certified_radius_holds_no_other_class(seed: int, lined: bool) -> None:
    network = lower(load_model(random_model(seed, activations=("Relu",))))
    x0, label = anchor(network, seed)
    g = substitute(network, lines(network, "act", x0), some_kept(network, seed, 0.3)) if lined else None
    radius = certified_radius(network, lambda r: SPACE.ball(x0, r), label, 1.0, substitute=g)
    assert 0 <= radius <= 1
    if radius > 0:
        assert margins(network, points_of(SPACE.ball(x0, radius), seed, 1000), label).min() > 0


def test_the_radius_of_an_affine_network_is_its_distance() -> None:
    n = Net(2)
    y = n.node("Gemm", ["x", n.weight([[1.0, 0.0], [0.0, 1.0]]), n.weight([0.0, 0.0])])
    network = lower(load_model(n.model(y, 2)))
    x0 = np.array([0.9, 0.2])  # the classes meet at |x - x0| = 0.35
    for tol in (0.1, 1e-3, 1e-6):
        found = certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 1.0, tol=tol)
        assert 0.35 * (1 - tol) - 1e-9 <= found <= 0.35
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 0.2) == 0.2  # all of what was asked for
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 1, 1.0) == 0.0  # not of this class to begin with
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 0.0) == 0.0
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 1.0, start=0.3, tol=1e-4) >= 0.3
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 1.0, stop=lambda: True) == 0.0


def test_a_tie_at_the_anchor_certifies_nothing() -> None:
    n = Net(2)
    y = n.node("Gemm", ["x", n.weight([[1.0, 0.0], [0.0, 1.0]]), n.weight([0.0, 0.0])])
    network = lower(load_model(n.model(y, 2)))
    x0 = np.array([0.5, 0.5])
    assert worst_margin_bound(network, SPACE.ball(x0, 0.0), 0) <= 0
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), 0, 1.0) == 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.05, 0.2]))
def test_a_substitute_that_keeps_its_pieces_is_the_original_on_the_box(seed: int, eps: float) -> None:
    network = lower(load_model(random_model(seed, activations=PIECEWISE)))
    x0, _ = anchor(network, seed)
    box = SPACE.ball(x0, eps)
    bounds = compute_bounds(network, *box, "crown", only_unstable=True)
    unstable = {op.output: ~op.affine_on(*bounds.pre[op.output])[0].numpy() for op in network.activations}
    chosen = lines(network, "act", x0)
    g = substitute(network, chosen, unstable)
    x = torch.as_tensor(points_of(box, seed))
    assert keeps_its_pieces(network, g, box)
    with torch.no_grad():
        torch.testing.assert_close(g.forward(x), network.forward(x), rtol=1e-9, atol=1e-9)
    # whatever is claimed of fewer units must be true as well
    fewer = substitute(network, chosen, some_kept(network, seed, 0.5))
    if keeps_its_pieces(network, fewer, box):
        with torch.no_grad():
            torch.testing.assert_close(fewer.forward(x), network.forward(x), rtol=1e-7, atol=1e-7)


def test_one_pruned_unstable_unit_is_enough_to_say_no() -> None:
    n = Net(1)
    r = n.node("Relu", [n.node("Gemm", ["x", n.weight([[1.0, 1.0]]), n.weight([-0.5, 0.0])])])
    network = lower(load_model(n.model(n.gemm(r, 2, 2), 2)))
    x0 = np.array([0.6])
    (op,) = network.activations
    chosen = lines(network, "act", x0)

    def only(*kept: bool) -> Network:
        return substitute(network, chosen, {op.output: np.array(kept)})

    assert keeps_its_pieces(network, only(False, False), SPACE.ball(x0, 0.09))
    assert not keeps_its_pieces(network, only(False, False), SPACE.ball(x0, 0.2))  # the first unit changes sign at 0.5
    assert keeps_its_pieces(network, only(True, False), SPACE.ball(x0, 0.2))
    constant = substitute(network, lines(network, "con", x0), {op.output: np.array([True, False])})
    assert not keeps_its_pieces(network, constant, SPACE.ball(x0, 0.01))  # stable, but the line is not its piece
    assert keeps_its_pieces(network, constant, SPACE.ball(x0, 0.0))


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh"])
def test_a_line_never_is_a_smooth_unit(kind: str) -> None:
    n = Net(2)
    network = lower(load_model(n.model(n.gemm(n.node(kind, [n.gemm("x", 2, 3)]), 3, 2), 2)))
    x0 = np.array([0.4, 0.6])
    g = substitute(network, lines(network, "lin", x0, x0 + 0.1), some_kept(network, 0, 0.0))
    assert not keeps_its_pieces(network, g, SPACE.ball(x0, 0.1))


def random_scaling(network: Network, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    found: dict[str, int] = {}
    for group in groups(network):
        found |= dict.fromkeys(group, int(rng.integers(-100, 101)))
    return found


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.3, 0.7]), eps=st.sampled_from([0.005, 0.05, 0.2]))
def test_the_scale_of_hidden_layers_changes_no_answer(seed: int, share: float, eps: float) -> None:
    network = lower(load_model(random_model(seed, activations=("Relu", "LeakyRelu", "Abs"))))
    other = scaled(network, random_scaling(network, seed))
    x0, label = anchor(network, seed)
    box = SPACE.ball(x0, eps)
    bounds = compute_bounds(network, *box, "crown", only_unstable=True)
    stable = {op.output: op.affine_on(*bounds.pre[op.output])[0].numpy() for op in network.activations}
    for kept in (some_kept(network, seed, share), {name: ~units for name, units in stable.items()}):
        answers = []
        for f in (network, other):
            g = substitute(f, lines(f, "act", x0), kept)
            balls = [certified_radius(f, lambda r: SPACE.ball(x0, r), label, 1.0, substitute=s) for s in (None, g)]
            answers.append((keeps_its_pieces(f, g, box, anchor=x0), worst_margin_bound(f, box, label, substitute=g), *balls))
        assert answers[0] == answers[1]


def hidden(size: float) -> tuple[Network, np.ndarray]:
    """Units of any size that change their piece within the ball, and logits of size 1 that feel it."""
    n = Net(2, dtype=np.float64)
    first = n.node("Gemm", ["x", n.weight([[size, size], [-size, 0.0]]), n.weight([0.05 * size, -0.45 * size])])
    last = n.node("Gemm", [n.node("Relu", [first]), n.weight([[1 / size, 0.0], [-0.5 / size, 0.3 / size]]), n.weight([0.0, 0.1])])
    return lower(load_model(n.model(last, 2))), np.array([0.5, 0.5])


@pytest.mark.parametrize("size", [1e-290, 1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_small_units_are_not_rounding(size: float) -> None:
    network, x0 = hidden(size)
    chosen = lines(network, "act", x0)
    none_kept = {op.output: np.zeros(op.out_shape, dtype=bool) for op in network.activations}
    g = substitute(network, chosen, none_kept)
    # the first unit changes its sign at a distance of 0.025, the second one at 0.05
    assert keeps_its_pieces(network, g, SPACE.ball(x0, 0.024), anchor=x0)
    assert not keeps_its_pieces(network, g, SPACE.ball(x0, 0.026), anchor=x0)
    assert not keeps_its_pieces(network, g, SPACE.ball(x0, 0.3), anchor=x0)


def test_an_error_like_rounding_counts_where_a_later_layer_magnifies_it() -> None:
    # the unit crosses 0 by 1e-12 of its scale; the last layer subtracts two such units and multiplies by 1e11
    n = Net(1, dtype=np.float64)
    slack = 1e-12
    first = n.node("Gemm", ["x", n.weight([[1.0, 1.0]]), n.weight([-0.4 + slack, -0.4 + slack])])
    for gain, same in ((1.0, True), (1e11, False)):
        last = n.node("Gemm", [n.node("Relu", [first]), n.weight([[gain, 0.0], [-gain, 0.0]]), n.weight([1.0, 0.0])])
        network = lower(load_model(n.model(last, 2)))
        x0 = np.array([0.5])
        none_kept = {op.output: np.zeros(op.out_shape, dtype=bool) for op in network.activations}
        g = substitute(network, lines(network, "act", x0), none_kept)
        assert keeps_its_pieces(network, g, (np.array([0.4]), np.array([0.6])), anchor=x0) == same


def test_time_that_is_up_leaves_what_is_certified() -> None:
    network = lower(load_model(random_model(1, activations=("Relu",))))
    x0, label = anchor(network, 1)

    def ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
        return SPACE.ball(x0, radius)

    class Few(Budget):
        """Ends at the n-th look."""

        looks, most = 0, 0

        def check(self) -> None:
            self.looks += 1
            if self.looks > self.most:
                raise OutOfTime

        @property
        def over(self) -> bool:
            return self.looks >= self.most

    whole = certified_radius(network, ball, label, 1.0)
    assert whole > 0
    found = []
    for most in (0, 1, 40, 80, 120, 160, 200, 240, 10**6):
        budget = Few()
        budget.most = most
        found.append(certified_radius(network, ball, label, 1.0, budget=budget))
    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[-1] == whole
    assert len(set(found)) > 2
    with pytest.raises(OutOfTime):
        worst_margin_bound(network, ball(0.1), label, budget=Few())
    assert certified_radius(network, ball, label, 1.0, budget=Few(), start=0.01) == 0.01
