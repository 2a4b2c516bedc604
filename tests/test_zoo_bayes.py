"""Bayesian networks: the target, chains that go on, R-hat, and the file of a mean."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.errors import InputError, MissingDependencyError, ModelError, OptionError, OutputError
from onnxsub.metrics.local import LocalOptions, decide_local, make_property
from onnxsub.model import load_model, save_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.verify import verify
from onnxsub.zoo import bayes
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.bayes import BLOCK, BayesRecipe, sample_chains
from onnxsub.zoo.build import build
from onnxsub.zoo.posterior import Mean, check_mean, mean_onnx, mixing, posterior
from onnxsub.zoo.train import on_unit_scale
from tests.test_zoo_train import DATA, SIDE, StopError

SHAPE = (1, SIDE, SIDE)
SMALL = BayesRecipe("blobs", "mlp:6", step=0.1, steps=6, adapt=False, warm_up=4, samples=BLOCK + 4, chains=2)


def nets(name: str = "mlp:12", count: int = 5) -> list[torch.nn.Sequential]:
    return [build(architecture(name), SHAPE, 4, seed).eval() for seed in range(count)]


def file_of(tmp_path: Path, name: str = "mlp:12", count: int = 5) -> Path:
    path = tmp_path / "mean.onnx"
    save_model(mean_onnx(nets(name, count), SHAPE, "mean", {}), path)
    return path


def query_of(path: Path) -> Query:
    assert DATA.test is not None
    x = on_unit_scale(torch.from_numpy(DATA.test.x[0])).numpy()
    return make_query(load_model(path), x, None, space=InputSpace())


@pytest.mark.parametrize("name", ["mlp:12", "mlp:6x2:tanh", "cnn:3:k3:sigmoid", "lenet"])
def test_the_file_is_the_average_of_its_members(name: str) -> None:
    shape = (1, 28, 28) if name == "lenet" else SHAPE
    members = [build(architecture(name), shape, 4, seed).eval() for seed in range(5)]
    proto = mean_onnx(members, shape, "mean", {"kind": "hmc"})
    x = np.random.default_rng(0).random((30, *shape), dtype=np.float32)
    assert check_mean(proto, members, x) < 1e-6
    p = Runtime(proto).logits(x)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)
    with torch.no_grad():  # what is attacked for the card
        np.testing.assert_allclose(Mean(members)(torch.from_numpy(x)).exp().numpy(), p, atol=1e-5)
    with pytest.raises(ModelError, match="average"):
        check_mean(proto, members[1:], x)


def test_the_file_is_attacked_bounded_and_decided(tmp_path: Path) -> None:
    query = query_of(file_of(tmp_path))
    found = attack(query, AttackOptions(seed=0))
    assert found.x_adv is not None
    p = query.runtime.logits(np.stack([query.x0, found.x_adv]))
    assert p[0].argmax() == query.label
    assert p[1].argmax() != query.label
    near = verify(query, 0.25 * found.d_adv)
    assert near.status == "proved"
    assert verify(query, 1.01 * found.d_adv).status == "violated"
    # a change of a probability is a change of an output
    prop = make_property("sr", 0.05, delta=0.5)
    assert decide_local(query, prop, LocalOptions(timeout=20)).status == "proved"


def test_without_images_that_say_anything_the_posterior_is_the_prior(tmp_path: Path) -> None:
    """Deviations `prior / sqrt(inputs)`, mean 0."""
    dark = replace(DATA, train=replace(DATA.train, x=np.zeros_like(DATA.train.x[:4]), y=np.arange(4)))
    recipe = BayesRecipe("dark", "mlp:6", prior=2.0, step=0.25, steps=6, adapt=False, warm_up=5, samples=100, chains=1)
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    (chain,) = sample_chains(recipe, dark, tmp_path / "chains")
    assert chain.accepted > 0.8
    first = chain.weights[20:, : 6 * SIDE * SIDE] * SIDE / 2  # weights of black pixels
    assert abs(float(first.mean())) < 0.05
    assert abs(float(first.std()) - 1) < 0.05


def test_a_chain_that_is_cut_off_goes_on_as_if_it_were_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    whole = sample_chains(SMALL, DATA, tmp_path / "whole")
    assert [chain.weights.shape[0] for chain in whole] == [BLOCK + 4] * 2
    assert not torch.equal(whole[0].weights, whole[1].weights)

    before = torch.random.get_rng_state()
    for at in (0.05, 0.3, 0.8):

        def cut(share: float, text: str, at: float = at) -> None:
            if share > at:
                raise StopError

        with pytest.raises(StopError):
            sample_chains(SMALL, DATA, tmp_path / "cut", progress=cut)
    again = sample_chains(SMALL, DATA, tmp_path / "cut")
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(whole, again, strict=True):
        assert torch.equal(a.weights, b.weights)
        assert (a.step, a.accepted, a.divergent) == (b.step, b.accepted, b.divergent)
    monkeypatch.setattr(bayes, "hamiltonian", StopError)  # what is finished is not sampled again
    assert torch.equal(sample_chains(SMALL, DATA, tmp_path / "cut")[1].weights, whole[1].weights)


def test_more_samples_go_on_from_those_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    short = replace(SMALL, samples=BLOCK + 4, chains=1)
    (few,) = sample_chains(short, DATA, tmp_path)
    (many,) = sample_chains(replace(short, samples=2 * BLOCK), DATA, tmp_path)
    assert torch.equal(many.weights[: BLOCK + 4], few.weights)
    assert len(many.weights) == 2 * BLOCK
    (again,) = sample_chains(short, DATA, tmp_path)
    assert torch.equal(again.weights, few.weights)
    assert again.accepted == few.accepted


def test_chains_of_another_kind_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    recipe = replace(SMALL, samples=4, chains=1, warm_up=1)
    sample_chains(recipe, DATA, tmp_path)
    with pytest.raises(InputError, match=r"another posterior: prior is 1\.0 there and 2\.0 here"):
        sample_chains(replace(recipe, prior=2.0), DATA, tmp_path)
    with pytest.raises(InputError, match="images is"):
        sample_chains(recipe, replace(DATA, train=DATA.train.first(50)), tmp_path)
    path = tmp_path / "chain-0" / "block-001.pt"
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"no chain"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            sample_chains(recipe, DATA, tmp_path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="none of this version"):
        sample_chains(recipe, DATA, tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        sample_chains(replace(SMALL, samples=4, chains=1, warm_up=0), DATA, tmp_path / "file")


@pytest.mark.parametrize(
    "change",
    [{"prior": 0.0}, {"prior": float("nan")}, {"step": -1.0}, {"step": float("inf")}, {"steps": 0}, {"samples": 3}, {"chains": 0},
     {"warm_up": -1}, {"adapt": True, "warm_up": 0}, {"seed": -1}, {"architecture": "none"}],
)  # fmt: skip
def test_impossible_recipes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        replace(SMALL, **change)


def test_r_hat_tells_chains_apart() -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 200, 20, 3, generator=rng, dtype=torch.float64)
    good = mixing(logits.softmax(-1))
    assert good.mixed
    assert 0.99 < good.median < 1.01
    assert good.share == 0
    logits[0, :, :5] += torch.tensor([3.0, 0.0, 0.0])
    bad = mixing(logits.softmax(-1))
    assert not bad.mixed
    assert bad.largest > 1.3
    assert 0.1 < bad.share <= 0.25
    drifting = torch.randn(1, 200, 5, 3, generator=rng) + torch.linspace(0, 5, 200)[:, None, None] * torch.tensor([1.0, 0, 0])
    assert not mixing(drifting.softmax(-1)).mixed  # one chain disagrees with itself
    still = mixing(logits[:, :1].softmax(-1).expand(4, 50, 20, 3))
    assert not still.mixed
    assert still.to_json()["largest"] is None
    alone = mixing(logits[:1, :1].softmax(-1).expand(1, 50, 20, 3))
    assert not alone.mixed  # it has not moved, which is no agreement


def test_more_members_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="1 to 4"):
        posterior(replace(SMALL, samples=4, chains=1), DATA, tmp_path / "few", members=5)
    assert not (tmp_path / "few").exists()


def test_without_pyro_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyro.infer", None)
    with pytest.raises(MissingDependencyError, match=r"onnxsub\[bayes\]"):
        sample_chains(SMALL, DATA, tmp_path)
