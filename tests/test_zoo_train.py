"""Training: what it learns, that it repeats, and that an interruption leaves no trace in the weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxsub.errors import InputError, OutputError
from onnxsub.zoo.architectures import ARCHITECTURES
from onnxsub.zoo.attacks import perturb, robust_accuracy
from onnxsub.zoo.build import build
from onnxsub.zoo.checkpoint import read_checkpoint
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.recipe import Phase, Recipe
from onnxsub.zoo.train import SHIFT, augmented, on_unit_scale, train

SIDE = 8


def blobs(n: int, seed: int = 0, channels: int = 1) -> Labelled:
    """Images of a bright quarter, and which of the four it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    x = rng.integers(0, 120, (n, channels, SIDE, SIDE))
    for image, k in zip(x, y, strict=True):
        image[:, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] += 120
    return Labelled(x.astype(np.uint8), y.astype(np.int64))


DATA = ImageSet("blobs", blobs(210), blobs(100, 1))
CLEAN = Recipe("blobs", "C", 0.0, (Phase(3),), batch=20)
ADVERSARIAL = Recipe("blobs", "C", 0.1, (Phase(1, 1, 1.25), Phase(2, 3, 0.5)), batch=20, warm_up=1, augment=True)


def weights(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(weights(a), weights(b), strict=True))


class StopError(Exception):
    """The power cut of a test."""


def test_it_learns_and_resists() -> None:
    assert DATA.test is not None
    x, y = on_unit_scale(torch.from_numpy(DATA.test.x)), torch.from_numpy(DATA.test.y)
    clean = train(replace(CLEAN, phases=(Phase(8),)), DATA)
    robust = train(replace(ADVERSARIAL, augment=False, phases=(Phase(4, 1, 1.25), Phase(8, 3, 0.5)), budget=0.15), DATA)
    assert robust_accuracy(clean, x, y, 0.0) > 0.95
    assert robust_accuracy(robust, x, y, 0.0) > 0.95
    assert robust_accuracy(robust, x, y, 0.15, steps=10) > max(0.5, robust_accuracy(clean, x, y, 0.15, steps=10))


@pytest.mark.parametrize("recipe", [CLEAN, ADVERSARIAL], ids=["clean", "adversarial"])
def test_a_training_repeats_and_the_seed_matters(recipe: Recipe) -> None:
    net = train(recipe, DATA)
    torch.manual_seed(123)  # the state of torch's own generator plays no part
    assert same(net, train(recipe, DATA))
    assert not same(net, train(replace(recipe, seed=1), DATA))


@pytest.mark.parametrize("recipe", [CLEAN, ADVERSARIAL], ids=["clean", "adversarial"])
def test_an_interrupted_training_gives_the_same_weights(recipe: Recipe, tmp_path: Path) -> None:
    """Stopped three times at steps of all kinds: within an epoch, at its end, and twice at the same place."""
    undisturbed = train(recipe, DATA)
    path = tmp_path / "state.pt"
    steps: list[int] = []
    for stop in (0.4, 0.4, 0.68, 0.95):

        def report(fraction: float, text: str, stop: float = stop) -> None:
            if fraction > stop:
                raise StopError

        with pytest.raises(StopError):
            train(recipe, DATA, path, progress=report, save_seconds=0.0)
        steps.append(read_checkpoint(path).step)
    assert steps == [21, 21, 22, 32]  # of 33; an epoch has eleven
    assert same(undisturbed, train(recipe, DATA, path))
    state = read_checkpoint(path)
    assert state.step == 33
    assert same(undisturbed, train(recipe, DATA, path))  # nothing is left to do
    assert read_checkpoint(path).step == 33


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    code = (
        "import sys; from tests.test_zoo_train import ADVERSARIAL, DATA, Phase, replace; from onnxsub.zoo.train import train; "
        "train(replace(ADVERSARIAL, phases=(Phase(2000, 1, 1.25),)), DATA, sys.argv[1], save_seconds=0.0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[1])
    try:
        for _ in range(600):
            if path.exists() or process.poll() is not None:
                break
            time.sleep(0.1)
        time.sleep(0.3)
    finally:
        process.kill()
        process.wait()
    if os.name == "posix":
        assert process.returncode == -signal.SIGKILL
    recipe = replace(ADVERSARIAL, phases=(Phase(2000, 1, 1.25),))
    begun = read_checkpoint(path).step
    assert begun > 0

    def report(fraction: float, text: str) -> None:
        if fraction * 2000 * 11 > begun + 60:
            raise StopError

    with pytest.raises(StopError):
        train(recipe, DATA, path, progress=report)
    assert read_checkpoint(path).step > begun


def test_the_last_batch_of_an_epoch_may_be_smaller() -> None:
    told: list[float] = []
    train(replace(CLEAN, batch=200), DATA, progress=lambda fraction, text: told.append(fraction))
    assert told[-1] == 1.0
    assert len(told) == 6  # two batches, of 200 and of 10 images


def test_checkpoints_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    train(CLEAN, DATA, path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"of another training: batch is 20 there and 30 here; use the same options"):
        train(replace(CLEAN, batch=30), DATA, path)
    with pytest.raises(InputError, match="seed is 0 there and 4 here"):
        train(replace(CLEAN, seed=4), DATA, path)
    with pytest.raises(InputError, match="trained on other images"):
        train(CLEAN, ImageSet("blobs", blobs(210, 5), None), path)
    assert path.read_bytes() == before
    for content, message in (
        (b"", "is damaged, or no checkpoint"),
        (b"not a checkpoint", "is damaged, or no checkpoint"),
        (before[: len(before) // 2], "is damaged, or no checkpoint"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            train(CLEAN, DATA, path)
    torch.save({"weights": {}}, path)
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        read_checkpoint(path)
    torch.save({"schema": "onnxsub.checkpoint/1", "weights": {}}, path)
    with pytest.raises(InputError, match="lacks something"):
        read_checkpoint(path)
    with pytest.raises(InputError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(OutputError, match="cannot write"):
        train(CLEAN, DATA, tmp_path / "nowhere" / "state.pt")


def test_no_code_is_run_from_a_checkpoint(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "ran"),))

    torch.save({"schema": Evil()}, tmp_path / "state.pt")
    with pytest.raises(InputError, match="is damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "state.pt")
    assert not (tmp_path / "ran").exists()


def test_a_diverging_training_says_so() -> None:
    with pytest.raises(InputError, match=r"diverged in epoch .*; take a smaller learning rate"):
        train(replace(CLEAN, rate=1e30), DATA)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no CUDA device"):
        train(CLEAN, DATA, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_cuda_repeats(tmp_path: Path) -> None:
    undisturbed = train(ADVERSARIAL, DATA, device="cuda")

    def report(fraction: float, text: str) -> None:
        if fraction > 0.5:
            raise StopError

    with pytest.raises(StopError):
        train(ADVERSARIAL, DATA, tmp_path / "state.pt", device="cuda", progress=report)
    assert same(undisturbed, train(ADVERSARIAL, DATA, tmp_path / "state.pt", device="cuda"))


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_shifts_and_turns(channels: int) -> None:
    x = torch.rand(40, channels, 12, 9)
    moved = augmented(x, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(x, (SHIFT,) * 4)
    kinds = set()
    for image, source in zip(moved, padded, strict=True):
        found = [
            (i, j, turned)
            for i in range(2 * SHIFT + 1)
            for j in range(2 * SHIFT + 1)
            for turned in (False, True)
            if torch.equal(image.flip(2) if turned else image, source[:, i : i + 12, j : j + 9])
        ]
        assert len(found) == 1
        kinds.add(found[0])
    assert len(kinds) > 25
    assert {turned for *_, turned in kinds} == {False, True}
    assert torch.equal(moved, augmented(x, torch.Generator().manual_seed(0)))


def test_attacks_stay_in_the_ball_and_the_domain() -> None:
    net = build(ARCHITECTURES["C"], (1, SIDE, SIDE), 4)
    x = on_unit_scale(torch.from_numpy(blobs(50).x))
    y = torch.from_numpy(blobs(50).y)
    rng = torch.Generator().manual_seed(0)
    loss = nn.CrossEntropyLoss()
    for steps, size in ((1, 1.25), (7, 0.3)):
        point = perturb(net, x, y, 0.3, steps, size * 0.3, rng)
        assert not point.requires_grad
        assert float((point - x).abs().max()) <= 0.3 + 1e-6
        assert 0 <= float(point.min()) <= float(point.max()) <= 1
        with torch.no_grad():
            assert float(loss(net(point), y)) > float(loss(net(x), y))
    assert torch.equal(perturb(net, x, y, 0.0, 1, 0.0, rng), x)
    assert all(p.grad is None for p in net.parameters())


def test_robust_accuracy_of_a_network_that_is_known() -> None:
    """One pixel against a threshold of 1/2: an image stands as long as it is farther from 1/2 than the radius."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
        net[1].bias.copy_(torch.tensor([0.5, -0.5]))
    x = torch.linspace(0.005, 0.995, 100)[:, None, None, None]
    y = (x.flatten() > 0.5).long()
    for radius in (0.0, 0.1, 0.305):
        assert robust_accuracy(net, x, y, radius, steps=5, rows=7) == pytest.approx(1 - 2 * round(radius * 100) / 100, abs=0.011)
    assert robust_accuracy(net, x, 1 - y, 0.1) == 0.0
