"""Iterative magnitude pruning: how many weights go, which, and that they stay away."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxsub.errors import InputError, OptionError
from onnxsub.model import load_model, save_model
from onnxsub.runtime import Runtime
from onnxsub.zoo import iterative
from onnxsub.zoo.build import weighted
from onnxsub.zoo.checkpoint import Checkpoint, read_checkpoint
from onnxsub.zoo.iterative import Pruning, pruned, sparsity
from onnxsub.zoo.pipeline import network_of, trained
from onnxsub.zoo.recipe import Phase, Recipe
from tests.test_zoo_train import DATA, StopError


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    recipe = Recipe("blobs", "mlp:16x2", 0.0, (Phase(4),), batch=20)
    return trained(recipe, DATA, tmp_path_factory.mktemp("net") / "net.pt", attacked=10)


@pytest.mark.parametrize(("share", "rounds"), [(0.5, 1), (0.9, 2), (0.99, 5)])
def test_so_many_weights_are_zero(state: Checkpoint, share: float, rounds: int, tmp_path: Path) -> None:
    proto, card = pruned(state, DATA, Pruning(share, rounds), tmp_path / "p", attacked=10)
    keys = card.to_json()
    weights = sum(layer.weight.numel() for layer in weighted(network_of(state)))
    away = round(share * weights)
    assert keys["pruning"] == {"share": share, "rounds": rounds, "epochs": 2, "rate": 1e-3, "sparsity": away / weights}
    zeros = 0
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("weight"):
            zeros += int((np.frombuffer(tensor.raw_data, np.float32) == 0).sum())
    assert zeros == away
    assert keys["name"].endswith(f"pruned{100 * share:g}x{rounds}")
    assert keys["figures"]["accuracy"] > (0.9 if share == 0.5 else 0.2)
    assert json.loads(proto.metadata_props[0].value)["pruning"] == keys["pruning"]
    # the rounds grow: what is away stays away
    gone = [read_checkpoint(tmp_path / f"p.{k}.pt").weights["1.weight_mask"] == 0 for k in range(1, rounds + 1)]
    assert all(bool((b | ~a).all()) for a, b in itertools.pairwise(gone))
    save_model(proto, tmp_path / "p.onnx")
    assert Runtime(load_model(tmp_path / "p.onnx")).logits(np.zeros((1, 1, 8, 8), dtype=np.float32)).shape == (1, 4)


def test_the_smallest_weights_go_first(state: Checkpoint) -> None:
    net = network_of(state)
    before = torch.cat([layer.weight.detach().flatten() for layer in weighted(net)]).abs()
    masked = iterative._masked(net, 100)
    gone = torch.cat([layer.weight_mask.flatten() == 0 for layer in weighted(masked)])  # type: ignore[operator]
    assert int(gone.sum()) == 100
    assert float(before[gone].max()) <= float(before[~gone].min())
    assert sparsity(net) == 0.0  # it is left as it is


def test_it_goes_on_where_it_was(state: Checkpoint, tmp_path: Path) -> None:
    how = Pruning(0.8, 3)
    whole, _ = pruned(state, DATA, how, tmp_path / "whole", attacked=10)
    for at in (0.2, 0.5, 0.9):

        def cut(share: float, text: str, at: float = at) -> None:
            if share > at:
                raise StopError

        with pytest.raises(StopError):
            pruned(state, DATA, how, tmp_path / "cut", attacked=10, progress=cut)
    again, _ = pruned(state, DATA, how, tmp_path / "cut", attacked=10)
    assert again.SerializeToString() == whole.SerializeToString()


def test_what_cannot_be_pruned(state: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other images"):
        pruned(state, replace(DATA, train=DATA.train.first(50)), Pruning(0.5), tmp_path / "p")
    pruned(state, DATA, Pruning(0.5), tmp_path / "p", attacked=10)
    with pytest.raises(InputError, match="another training"):
        pruned(state, DATA, Pruning(0.7), tmp_path / "p")
    with pytest.raises(InputError, match="not finished"):
        pruned(replace(state, card=None), DATA, Pruning(0.5), tmp_path / "q")
    for wrong in ({"share": 0.0}, {"share": 1.0}, {"share": float("nan")}, {"rounds": 0}, {"epochs": 0}):
        with pytest.raises(OptionError):
            replace(Pruning(0.5), **wrong)  # type: ignore[arg-type]
