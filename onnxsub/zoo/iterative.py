r"""Iterative magnitude pruning: take the smallest weights away, train what is left, again and again.

After round k of R the share `1 - (1 - share)^(k / R)` of all weights is 0, those of the smallest absolute value in the whole
network (`torch.nn.utils.prune.global_unstructured`); biases stay. Each round goes on from the weights of the one before.

Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks"; the shares are those of Frankle and
Carbin 2019. Here the weights that are left are not set back to where they began.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.utils import prune

from onnxsub.errors import InputError, OptionError
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.build import build, weighted
from onnxsub.zoo.card import Card, facts, make_card, measure
from onnxsub.zoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from onnxsub.zoo.export import check_export, layers_onnx, zoo_model
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.pipeline import network_of
from onnxsub.zoo.recipe import Phase, model_name
from onnxsub.zoo.train import train

__all__ = ["Pruning", "pruned", "sparsity"]

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Pruning:
    """What is taken away.

    Attributes:
        share: of all weights, at the end. rounds: R. epochs: of training after each round. rate: highest learning rate of these.
    """

    share: float
    rounds: int = 1
    epochs: int = 2
    rate: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise OptionError(f"--share {self.share:g} is not possible; give a number between 0 and 1, such as 0.9")
        for name in ("rounds", "epochs"):
            if getattr(self, name) < 1:
                raise OptionError(f"--{name} {getattr(self, name)} is not possible; give 1 or more")

    @property
    def suffix(self) -> str:
        """Behind the name of the network: `pruned90x2`."""
        return f"pruned{100 * self.share:g}x{self.rounds}"


def pruned(
    state: Checkpoint,
    data: ImageSet,
    how: Pruning,
    stem: Path,
    *,
    attacked: int | None = None,
    command: str = "",
    progress: Report | None = None,
) -> tuple[ModelProto, Card]:
    """The file and the card of a finished training's network after all rounds.

    Args:
        data: that the network was trained on. stem: of the checkpoints, one per round (`STEM.1.pt`); finished rounds are not done
            again. attacked: test images that are attacked for the card; None for all.

    Raises:
        InputError: the training is not finished, or was on other images; a checkpoint is of other rounds; the training diverged.
        OptionError, OutputError: as `train`.
    """
    if state.card is None:
        raise InputError("this checkpoint is of a training that is not finished; run the same onnxsub zoo train again")
    if state.data_sha256 != data.train.sha256:
        raise InputError("the network was trained on other images; give those that it was trained on")
    arch = architecture(state.recipe.architecture)
    net = network_of(state)
    total = sum(layer.weight.numel() for layer in weighted(net))
    seconds = 0.0
    for k in range(1, how.rounds + 1):
        count = round(total * (1 - (1 - how.share) ** (k / how.rounds)))
        recipe = replace(
            state.recipe, phases=_shortened(state.recipe.phases, how.epochs), rate=how.rate, warm_up=0,
            start=f"{_digest(net)} without {count} weights",
        )  # fmt: skip
        path = stem.with_name(f"{stem.name}.{k}.pt")

        def say(share: float, text: str, k: int = k) -> None:
            if progress is not None:
                progress((k - 1 + share) / how.rounds, f"round {k} of {how.rounds}: {text}")

        masked = train(recipe, data, path, progress=say, start=_masked(net, count))
        for layer in weighted(masked):
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
        net = build(arch, state.shape, state.classes).eval()  # there parameters stand in the usual order
        net.load_state_dict(masked.state_dict())
        seconds += read_checkpoint(path).seconds
    last = read_checkpoint(path)
    if last.card is None:
        figures = measure(net, state.recipe, data, attacked=attacked, progress=progress)
        last = replace(last, card=facts(data, figures, "cpu", command))
        write_checkpoint(last, path)
    return _file(replace(last, recipe=state.recipe, weights=net.state_dict(), seconds=state.seconds + seconds), data, how)


def sparsity(net: nn.Sequential) -> float:
    """Share of the weights that are 0; biases do not count."""
    weights = [layer.weight for layer in weighted(net)]
    return float(sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights))


def _file(state: Checkpoint, data: ImageSet, how: Pruning) -> tuple[ModelProto, Card]:
    net = network_of(state)
    name = f"{model_name(state.recipe)}-{how.suffix}"
    extra: dict[str, Any] = {"pruning": {**asdict(how), "sparsity": sparsity(net)}}
    proto = zoo_model(layers_onnx(net, state.shape, name), {**state.recipe.to_json(), **extra})
    check_export(proto, net, state.shape)
    return proto, Card({**make_card(proto, state, data).to_json(), "name": name, **extra})


def _masked(net: nn.Sequential, count: int) -> nn.Sequential:
    """A copy in which the `count` smallest weights are 0 and stay so."""
    masked = copy.deepcopy(net)
    with torch.no_grad():  # else the masked weight belongs to a graph, and the network cannot be copied
        prune.global_unstructured(
            [(layer, "weight") for layer in weighted(masked)], pruning_method=prune.L1Unstructured, amount=count
        )
    return masked


def _shortened(phases: tuple[Phase, ...], epochs: int) -> tuple[Phase, ...]:
    """The last phase for so many epochs: its attack is the one that the network has to hold out against."""
    return (replace(phases[-1], epochs=epochs),)


def _digest(net: nn.Sequential) -> str:
    digest = hashlib.sha256()
    value: Tensor
    for value in net.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
