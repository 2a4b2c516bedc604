"""Algorithm 1: how many units go, in which order, and that runs repeat."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.select import SelectOptions, margin_gradients, select
from onnxsub.passes.substitute import lines
from onnxsub.propagate import compute_bounds
from tests.clock import Clock
from tests.random_models import random_model


@pytest.fixture(scope="module")
def network() -> Network:
    return lower(load_model(random_model(21, kind="conv", activations=("Relu",))))


def setting(network: Network, eps: float = 0.2) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    x0 = rng.random(network.input_shape)
    return x0, np.clip(x0 + rng.choice([-eps, eps], x0.shape), 0, 1), (np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1))


@pytest.mark.parametrize("rank", ["width", "influence"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_exactly_the_rounded_share_is_pruned(network: Network, rank: str, gamma: float) -> None:
    x0, xa, ball = setting(network)
    gradients = margin_gradients(network, np.stack([x0, xa]), 0, 1)
    found = select(network, ball, lines(network, "lin", x0, xa), SelectOptions(gamma=gamma, rank=rank), gradients=gradients)
    assert network.units - sum(found.kept_per_layer) == round(gamma * network.units)
    again = select(network, ball, lines(network, "lin", x0, xa), SelectOptions(gamma=gamma, rank=rank), gradients=gradients)
    assert all(np.array_equal(found.kept[n], again.kept[n]) for n in found.kept)


def test_keep_states_the_number(network: Network) -> None:
    x0, xa, ball = setting(network)
    options = SelectOptions(gamma=None, keep=7, rank="width")
    assert sum(select(network, ball, lines(network, "lin", x0, xa), options).kept_per_layer) == 7


def test_the_number_of_rounds_follows_gamma0(network: Network) -> None:
    x0, xa, ball = setting(network)
    chosen = lines(network, "lin", x0, xa)
    once = select(network, ball, chosen, SelectOptions(gamma=0.9, gamma0=1.0, rank="width"))
    many = select(network, ball, chosen, SelectOptions(gamma=0.9, gamma0=0.1, rank="width"))
    assert once.rounds == 1
    left, rounds = network.units, 0
    while left > network.units - round(0.9 * network.units):
        left, rounds = left - math.ceil(0.1 * left), rounds + 1
    assert many.rounds == rounds  # (1 - gamma0)^k <= 1 - gamma, in whole units


def test_one_round_of_width_removes_the_narrowest_units(network: Network) -> None:
    x0, xa, ball = setting(network)
    options = SelectOptions(gamma=0.5, gamma0=1.0, rank="width", double=True)
    kept = select(network, ball, lines(network, "lin", x0, xa), options).kept
    bounds = compute_bounds(network, *ball, "fastlin-ibp")
    width = np.concatenate([(bounds.pre[a.output][1] - bounds.pre[a.output][0]).flatten().numpy() for a in network.activations])
    mask = np.concatenate([kept[a.output].reshape(-1) for a in network.activations])
    assert width[~mask].max() <= width[mask].min()


def test_ties_go_by_layer_then_index(network: Network) -> None:
    x0, _, _ = setting(network)
    ball = (x0, x0)  # every width is 0
    found = select(network, ball, lines(network, "con", x0), SelectOptions(gamma=0.5, rank="width", double=True))
    flat = np.concatenate([k.reshape(-1) for k in found.kept.values()])
    widths = compute_bounds(network, *ball, "fastlin-ibp").pre
    assert max(float((u - l).max()) for l, u in widths.values()) < 1e-6
    first = next(iter(found.kept.values())).reshape(-1)
    assert flat.sum() == network.units - round(0.5 * network.units)
    assert first.sum() < len(first)


def test_influence_keeps_unstable_units_before_stable_ones(network: Network) -> None:
    x0, xa, ball = setting(network, 0.05)
    gradients = margin_gradients(network, np.stack([x0, xa]), 0, 1)
    bounds = compute_bounds(network, *ball, "fastlin-ibp")
    unstable = {a.output: ~a.affine_on(*bounds.pre[a.output])[0].numpy() for a in network.activations}
    count = sum(int((u & (gradients[n] > 0)).sum()) for n, u in unstable.items())
    assert count > 0
    options = SelectOptions(gamma=None, keep=count, rank="influence", gamma0=1.0, double=True)
    kept = select(network, ball, lines(network, "act", x0), options, gradients=gradients).kept
    assert sum(int((kept[n] & ~unstable[n]).sum()) for n in kept) == 0


def test_gradients_are_those_of_the_margin(network: Network) -> None:
    x0, xa, _ = setting(network)
    found = margin_gradients(network, np.stack([x0, xa]), 0, 1)
    op = network.activations[-1]
    h = network.values(torch.as_tensor(np.stack([x0, xa])))[op.output]
    expected = []
    for row in h:
        z = row.clone().requires_grad_()
        y = _after(network, op.output, z.unsqueeze(0))
        (g,) = torch.autograd.grad(y[0, 1] - y[0, 0], z)
        expected.append(g.abs())
    np.testing.assert_allclose(found[op.output], torch.stack(expected).amax(0).numpy())


def _after(network: Network, tensor: str, value: torch.Tensor) -> torch.Tensor:
    values = {tensor: value}
    for op in network.ops:
        if op.output != tensor and all(n in values for n in op.inputs):
            values[op.output] = op.forward(*[values[n] for n in op.inputs])
    return values[network.output].flatten(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.5}, r"--gamma 1.5 is outside \[0, 1\]"),
        ({"gamma": -0.1}, "is outside"),
        ({"gamma": None}, "give either --gamma or --keep"),
        ({"gamma": 0.5, "keep": 3}, "give either --gamma or --keep"),
        ({"gamma": None, "keep": -1}, "--keep -1 is negative"),
        ({"gamma0": 0.0}, "--gamma0 0.0 is outside"),
        ({"rank": "size"}, "--rank 'size' is unknown; choose one of width, influence"),
        ({"bounds": "magic"}, "--bounds 'magic' is unknown"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SelectOptions(**options)  # type: ignore[arg-type]


def test_more_kept_than_there_are(network: Network) -> None:
    with pytest.raises(InputError, match="is more than the model's"):
        SelectOptions(gamma=None, keep=10**6).pruned_of(network.units)


def test_whole_rounds_are_handed_out_where_the_time_ends(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    x0, xa, ball = setting(network)
    options = SelectOptions(gamma=0.95, gamma0=0.3, rank="width")
    chosen = lines(network, "lin", x0, xa)
    whole = select(network, ball, chosen, options, budget=Budget())
    assert whole.complete
    assert whole.rounds > 3
    seen, nothing = set(), 0
    for looks in (*range(1, 100, 3), *range(100, 1600, 40)):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        budget = Budget(float(looks))
        try:
            found = select(network, ball, chosen, options, budget=budget, best_effort=True)
        except OutOfTime:
            assert not seen
            continue
        seen.add((found.rounds, found.complete))
        remaining = network.units
        for _ in range(found.rounds):
            remaining -= min(remaining - (network.units - round(0.95 * network.units)), max(1, math.ceil(0.3 * remaining)))
        assert sum(found.kept_per_layer) == remaining
        # what a round removes does not depend on the time
        assert all((found.kept[n] | ~whole.kept[n]).all() for n in found.kept)
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        try:  # all or nothing, with the whole time
            assert select(network, ball, chosen, options, budget=Budget(float(looks))).complete
        except OutOfTime:
            nothing += 1
    assert nothing > 0
    assert (whole.rounds, True) in seen
    assert sum(not complete for _, complete in seen) >= 2


def test_lines_and_gradients_look_at_the_clock(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    x0, xa, _ = setting(network)
    for looks, ends in ((2.0, True), (1e6, False)):
        for call in (
            lambda b: lines(network, "lin", x0, xa, budget=b),
            lambda b: margin_gradients(network, np.stack([x0, xa]), 0, 1, budget=b),
        ):
            monkeypatch.setattr("onnxsub.budget.time", Clock())
            if ends:
                with pytest.raises(OutOfTime):
                    call(Budget(looks))
            else:
                assert call(Budget(looks)) is not None
