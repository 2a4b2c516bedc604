"""Regimes as data, their losses, and trainings by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxsub.errors import InputError
from onnxsub.metrics.local import PROPERTIES, LocalProperty, make_property
from onnxsub.model import load_model
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.build import build, without_clamp
from onnxsub.zoo.checkpoint import read_checkpoint
from onnxsub.zoo.export import check_export, to_onnx
from onnxsub.zoo.losses import XI, attack_constraint, constraint_loss, excess, interval_logits, loss_of
from onnxsub.zoo.pipeline import exported, trained
from onnxsub.zoo.recipe import Phase, Recipe, default_recipe, model_name, recipe_from_json
from onnxsub.zoo.regimes import CONSTRAINTS, REGIMES, make_regime
from onnxsub.zoo.train import on_unit_scale, train
from tests.test_zoo_train import DATA, SIDE, StopError, same

SHAPE = (1, SIDE, SIDE)
# bounds that some points of the test keep and others do not
LOCAL = {
    "cr": {}, "sr": {"delta": 0.12}, "scr": {"eta": 0.26}, "lr": {"lipschitz": 0.8}, "confidence": {"gamma": 0.02},
    "sr-1": {"delta": 0.35, "norm": "1"}, "sr-2": {"delta": 0.2, "norm": "2"},
}  # fmt: skip


def local(name: str) -> LocalProperty:
    parameters: dict[str, Any] = LOCAL[name]
    return make_property(name.partition("-")[0], 0.2, **parameters)


def network() -> nn.Sequential:
    return build(architecture("mlp:20:clamp"), SHAPE, 4, seed=1)


def rows(n: int = 60) -> tuple[Tensor, Tensor]:
    return on_unit_scale(torch.from_numpy(DATA.train.x[:n])), torch.from_numpy(DATA.train.y[:n].copy())


def test_the_regimes_are_the_properties_and_more() -> None:
    assert set(CONSTRAINTS) == set(PROPERTIES)
    for name in REGIMES:
        regime = make_regime(name)
        assert (regime is None) == (name in ("base", "adversarial"))
        recipe = default_recipe("mnist", "fc30", 0.0 if name == "base" else 0.1, regime=regime, name="published")
        assert recipe_from_json(recipe.to_json()) == recipe
        assert recipe.epochs == 100
        assert recipe.rate_at(0.01) == recipe.rate_at(0.99) == 1e-4
    assert model_name(default_recipe("mnist", "mlp:9x2:tanh", 0.1, regime=make_regime("sr"))) == "mnist-mlp-9x2-tanh-sr0.1"


@pytest.fixture(scope="module")
def learnt() -> nn.Sequential:
    return train(Recipe("blobs", "mlp:20:clamp", 0.0, (Phase(6),), batch=20), DATA)


@pytest.mark.parametrize("name", LOCAL)
def test_the_loss_is_zero_exactly_where_the_property_holds_by_replay(name: str, learnt: nn.Sequential) -> None:
    """At the ends of the constraint's own attack, against what `robustness` says of the same points of the exported file."""
    (x, y), first = rows(), local(name)
    y[::4] = (y[::4] + 1) % 4  # labels that the network gets wrong
    points = attack_constraint(first, learnt, x, y, first.eps, 3, 0.05, torch.Generator().manual_seed(0))
    assert float((points - x).abs().max()) <= first.eps + 1e-6
    points[::2] = (x[::2] + 0.3 * (points[::2] - x[::2])).clamp(0, 1)  # some weaker points
    parameter = next((p for p in ("delta", "eta", "lipschitz", "gamma") if hasattr(first, p)), None)
    for value in [None] if parameter is None else np.geomspace(0.01, 0.99 if parameter in ("eta", "gamma") else 50, 60).tolist():
        prop = first if parameter is None else replace(first, **{parameter: value})
        with torch.no_grad():
            e = excess(prop, learnt, points, x, y)
        if 0.2 < float((e > 0).double().mean()) < 0.8:  # a bound that some of the points keep
            break
    loss = constraint_loss(prop, e).numpy()
    model = load_model(to_onnx(learnt, SHAPE, default_recipe("mnist", "mlp:20:clamp")))
    violated = []
    for point, start, label in zip(points.numpy(), x.numpy(), y.tolist(), strict=True):
        query = make_query(model, start, label=label, space=InputSpace())
        violated.append(bool(prop.measure(query, point[None]).violated[0]))
    sure = e.abs().numpy() > 1e-3  # float32 decides the others
    assert sure.mean() > 0.9
    np.testing.assert_array_equal((loss > 0)[sure], np.array(violated)[sure])
    assert {True, False} == set(np.array(violated)[sure].tolist())


def test_a_tie_violates_the_strict_constraint_only() -> None:
    e = torch.tensor([-0.5, 0.0, 0.5])
    assert constraint_loss(local("cr"), e).tolist() == pytest.approx([0.0, XI, 0.5])
    assert constraint_loss(local("sr"), e).tolist() == [0.0, 0.0, 0.5]


@pytest.mark.parametrize("name", LOCAL)
def test_gradients_against_finite_differences(name: str) -> None:
    """By the point that is attacked and by every weight, in float64."""
    prop, net = local(name), network().double()
    x, y = rows(6)
    x = x.double()
    point = (x + 0.2 * torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    weights = list(net.parameters())
    point.requires_grad_(True)

    def value() -> Tensor:
        return constraint_loss(prop, excess(prop, net, point, x, y) + 1.0).sum()  # shifted, so that no row sits in the flat part

    gradients = torch.autograd.grad(value(), [point, *weights], allow_unused=True)
    rng = np.random.default_rng(0)
    for tensor, gradient in zip([point, *weights], gradients, strict=True):
        flat = tensor.detach().view(-1)
        for i in rng.choice(len(flat), min(5, len(flat)), replace=False):
            kept, h = float(flat[i]), 1e-6
            ends = []
            for there in (kept + h, kept - h):
                flat[i] = there
                ends.append(value().item())
            flat[i] = kept
            slope = 0.0 if gradient is None else float(gradient.view(-1)[i])
            assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_intervals_hold_every_point_of_the_box() -> None:
    for name in ("mlp:20x2:tanh:clamp", "cnn:4x2:k4", "lenet-like"):
        arch = architecture("C") if name == "lenet-like" else architecture(name)
        net = build(arch, SHAPE, 4)
        x, _ = rows(10)
        lower, upper = interval_logits(net, x - 0.1, x + 0.1)
        noise = torch.rand((50, *x.shape), generator=torch.Generator().manual_seed(0))
        for point in x + 0.1 * (2 * noise - 1):
            out = net(point)
            assert bool(((lower - 1e-5 <= out) & (out <= upper + 1e-5)).all())
        assert (upper - lower).max().item() > 0


def test_certified_training_gives_guarantees_that_clean_training_does_not() -> None:
    x, y = rows(200)

    def share(recipe: Recipe) -> float:
        lower, upper = interval_logits(train(recipe, DATA), (x - 0.1).clamp(min=0), (x + 0.1).clamp(max=1))
        own = torch.nn.functional.one_hot(y, 4).bool()
        return float((torch.where(own, lower, upper).argmax(1) == y).double().mean())

    base = Recipe("blobs", "mlp:20", 0.0, (Phase(20),), batch=20)
    certified = replace(base, budget=0.1, warm_up=10, regime=make_regime("certified"))
    assert share(certified) > 0.9 > share(base) + 0.2


def test_a_constraint_is_kept_better_by_the_network_that_is_trained_for_it() -> None:
    x, y = rows(200)
    base = Recipe("blobs", "mlp:20:clamp", 0.0, (Phase(20),), batch=20)
    regime = make_regime("sr", delta=0.5, beta=5.0)
    assert regime is not None
    prop = regime.constraint(0.1)
    kept = []
    for recipe in (base, replace(base, budget=0.1, phases=(Phase(20, 3, 0.5),), regime=regime)):
        net = train(recipe, DATA)
        points = attack_constraint(prop, net, x, y, 0.1, 20, 0.0125, torch.Generator().manual_seed(0))
        kept.append(float((constraint_loss(prop, excess(prop, net, points, x, y)) == 0).double().mean()))
        assert float((net(x).argmax(1) == y).double().mean()) > 0.9
    assert kept[1] > kept[0] + 0.2


@pytest.mark.parametrize("name", ["augment-uniform", "augment-fgsm", "certified", "sr", "lr"])
def test_a_regime_repeats_and_survives_a_stop(name: str, tmp_path: Path) -> None:
    regime = make_regime(name)
    assert regime is not None
    phase = Phase(2, 2, 0.5) if regime.constrained else Phase(2, int(regime.attacks), 1.0)
    recipe = Recipe("blobs", "fc30", 0.1, (phase,), batch=40, warm_up=1, regime=regime)
    undisturbed = train(recipe, DATA)
    path = tmp_path / "state.pt"

    def report(fraction: float, text: str) -> None:
        if fraction > 0.5:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, DATA, path, progress=report, save_seconds=0.0)
    assert same(undisturbed, train(recipe, DATA, path))
    other = "scr" if regime.attacks else "augment-uniform" if name == "certified" else "certified"
    with pytest.raises(InputError, match="of another training: regime is"):
        train(replace(recipe, regime=make_regime(other)), DATA, path)


def test_each_regime_has_a_loss_of_its_own() -> None:
    net, (x, y) = network(), rows(20)
    values = {}
    for name in REGIMES:
        recipe = default_recipe("blobs", "fc30", 0.0 if name == "base" else 0.1, regime=make_regime(name), epochs=2)
        rng = torch.Generator().manual_seed(0)
        values[name] = loss_of(recipe)(net, x, y, recipe.budget, recipe.phase(0), rng).item()
    assert all(np.isfinite(v) for v in values.values())
    # at random weights logits are near each other: every constraint but the two about the class holds
    assert values["sr"] == values["lr"] == values["base"] == values["confidence"]
    assert len({values[n] for n in ("base", "adversarial", "augment-uniform", "augment-fgsm", "certified", "scr", "cr")}) == 7


def test_a_training_that_diverges_keeps_its_last_good_state(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    recipe = Recipe("blobs", "mlp:20", 0.0, (Phase(3),), batch=20)

    def broken(fraction: float, text: str) -> None:
        if fraction > 0.7:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, DATA, path, progress=broken)
    good = read_checkpoint(path)
    # a state that the optimiser blows up in the next step
    state = torch.load(path, weights_only=True)
    for entry in state["optimiser"]["state"].values():
        entry["exp_avg"].fill_(1e38)
        entry["exp_avg_sq"].fill_(0.0)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"diverged in epoch 3; checkpoint .* holds the last good state; take a smaller"):
        train(recipe, DATA, path, save_seconds=0.0)
    assert read_checkpoint(path).step == good.step
    assert all(torch.equal(a, b) for a, b in zip(read_checkpoint(path).weights.values(), good.weights.values(), strict=True))


@pytest.mark.parametrize("name", ["mlp:20x2:tanh", "mlp:20:sigmoid:clamp", "cnn:4x2:k4", "lenet", "nin", "fc30"])
def test_every_layer_has_its_onnx_form(name: str) -> None:
    arch, shape = architecture(name), (1, 28, 28)
    net = build(arch, shape)
    proto = to_onnx(net, shape, default_recipe("mnist", name))
    assert check_export(proto, net, shape) < 1e-5
    model = load_model(proto)
    assert model.outputs == 10
    assert sum(int(np.prod(t.dims)) for t in proto.graph.initializer) == arch.parameters(shape) + (2 if arch.clamp else 0)


def test_a_clamp_as_relus_is_the_same_function(tmp_path: Path) -> None:
    net = build(architecture("fc30"), SHAPE, 4)
    with torch.no_grad():
        net[-2].weight.mul_(600)  # logits beyond the clamp on both sides
    twice = without_clamp(net)
    x, _ = rows(100)
    with torch.no_grad():
        wanted, found = net(x), twice(x)
    assert float(wanted.min()) == -100
    assert float(wanted.max()) == 100
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=2e-4)
    assert without_clamp(twice) is twice
    state = trained(Recipe("blobs", "fc30", 0.0, (Phase(1),)), DATA, tmp_path / "state.pt")
    clip, relus = exported(state)[0], exported(state, relus=True)[0]
    assert [n.op_type for n in clip.graph.node] == ["Flatten", "Gemm", "Relu", "Gemm", "Clip"]
    assert [n.op_type for n in relus.graph.node] == ["Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    np.testing.assert_allclose(Runtime(clip).logits(x.numpy()), Runtime(relus).logits(x.numpy()), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sr", {"eta": 0.5}, "--eta is no parameter of regime sr"),
        ("base", {"beta": 0.5}, "--beta is no parameter of regime base"),
        ("scr", {"eta": 1.5}, "--eta 1.5 is not a score"),
        ("sr", {"delta": -1.0}, "--delta -1.0 is not a distance"),
        ("lr", {"beta": -0.2}, "a weight of -0.2 is not possible"),
        ("dl2", {}, "there is no regime 'dl2'; choose one of base, adversarial"),
    ],
)
def test_impossible_regimes(name: str, given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_regime(name, **given)
    with pytest.raises(InputError, match="regime sr needs a radius"):
        default_recipe("mnist", "fc30", 0.0, regime=make_regime("sr"))
