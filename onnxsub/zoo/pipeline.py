"""From a recipe to files: train, measure, export, with a checkpoint that knows how far all of that is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnx import ModelProto
from torch import nn

from onnxsub.documents import read_json
from onnxsub.errors import InputError, OptionError
from onnxsub.files import write_atomic
from onnxsub.model import save_model
from onnxsub.results import dumps
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.build import build, without_clamp
from onnxsub.zoo.card import SCHEMA, Card, facts, make_card, measure
from onnxsub.zoo.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from onnxsub.zoo.export import check_export, to_onnx
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.recipe import Recipe
from onnxsub.zoo.train import train

__all__ = ["card_path", "exported", "network_of", "read_cards", "trained", "write_model"]

Report = Callable[[float, str], None]


def trained(
    recipe: Recipe,
    data: ImageSet,
    checkpoint: str | os.PathLike[str],
    *,
    command: str = "",
    device: str = "cpu",
    attacked: int | None = None,
    progress: Report | None = None,
) -> Checkpoint:
    """Train by `recipe`, measure, and return the finished state; what `checkpoint` holds of it is not done again.

    Args:
        command: that does the same, for the card.
        attacked: test images that `measure` attacks; None for all.

    Raises:
        InputError, OutputError: as `train` says.
        OptionError: `attacked` is below 1.
    """
    if attacked is not None and attacked < 1:
        raise OptionError(f"{attacked} attacked test images are not possible; give 1 or more, or leave it out for all")
    net = train(recipe, data, checkpoint, device=device, progress=progress)
    state = read_checkpoint(checkpoint)
    if state.card is None:
        figures = measure(net, recipe, data, device=device, attacked=attacked, progress=progress)
        state = replace(state, card=facts(data, figures, device, command))
        write_checkpoint(state, checkpoint)
    return state


def exported(
    state: Checkpoint, data: ImageSet | None = None, *, one_row: bool = False, relus: bool = False
) -> tuple[ModelProto, Card]:
    """The ONNX form of a finished training and its card.

    Args:
        data: where given, onnxruntime's accuracy on its test images must be that of the card.
        one_row: fix the batch axis to 1.
        relus: write a clamp as two Relus per logit (`without_clamp`).

    Raises:
        InputError: the training is not finished. ModelError: onnxruntime and torch do not agree on the file.
    """
    net = network_of(state)
    proto = to_onnx(without_clamp(net) if relus else net, state.shape, state.recipe, one_row=one_row)
    clamp = architecture(state.recipe.architecture).clamp
    check_export(proto, net, state.shape, max(1.0, clamp) if relus and clamp else 1.0)
    return proto, make_card(proto, state, data)


def network_of(state: Checkpoint) -> nn.Sequential:
    """The network of a state, on the CPU."""
    net = build(architecture(state.recipe.architecture), state.shape, state.classes).eval()
    net.load_state_dict(state.weights)
    return net


def write_model(proto: ModelProto, card: Card, path: str | os.PathLike[str]) -> Path:
    """Write the model to `path` and its card beside it. Returns the card's path. Raises OutputError."""
    save_model(proto, path)
    beside = card_path(path)
    write_atomic(beside, (dumps(card) + "\n").encode())
    return beside


def card_path(model: str | os.PathLike[str]) -> Path:
    """Where the card of a model file is: the same name with `.json`."""
    return Path(model).with_suffix(".json")


def read_cards(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All cards in a folder, by file name, each with its `path`. Raises InputError when there is no such folder."""
    where = Path(folder)
    if not where.is_dir():
        raise InputError(f"there is no folder {str(where)!r}; give one that holds networks and their cards")
    cards = []
    for path in sorted(where.glob("*.json")):
        try:
            keys = read_json(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{str(path)!r} is no readable JSON; delete it, or write it again with onnxsub zoo export") from error
        if isinstance(keys, dict) and keys.get("schema") == SCHEMA:
            cards.append({"path": str(path.with_suffix(".onnx")), **keys})
    return cards
