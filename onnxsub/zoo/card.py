"""The card of a network: what it is, how it was trained, on what, and how good it is."""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import nn

from onnxsub.errors import InputError, ModelError
from onnxsub.model_file import serialise
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.attacks import robust_accuracy
from onnxsub.zoo.checkpoint import Checkpoint
from onnxsub.zoo.datasets import DATASETS
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.recipe import BUDGETS, model_name
from onnxsub.zoo.train import on_unit_scale, pick_device

__all__ = ["LICENCE", "RESTARTS", "SCHEMA", "STEPS", "Card", "Measured", "facts", "file_facts", "make_card", "measure"]

SCHEMA = "onnxsub.zoo-card/1"

STEPS, RESTARTS = 40, 3
"""Of the attack that a card speaks of."""

LICENCE = "Apache-2.0 (the network); the images keep the licence of their makers"

Report = Callable[[float, str], None]


class Measured(Protocol):
    """What `measure` reads of a recipe."""

    @property
    def data(self) -> str: ...

    @property
    def budget(self) -> float: ...

    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Card:
    """A card as it is written beside the network: the keys of `docs/zoo.md`."""

    keys: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.keys)


def measure(
    net: nn.Module,
    recipe: Measured,
    data: ImageSet,
    *,
    device: str = "cpu",
    attacked: int | None = None,
    progress: Report | None = None,
) -> dict[str, Any] | None:
    """Accuracy on all test images, clean and under attack; None where there are none.

    Under attack it is that of `robust_accuracy` with `STEPS` steps and `RESTARTS` restarts, an upper bound of the robust accuracy,
    at every budget that the data set has recipes for and at the recipe's own. The attack runs in float64: its steps follow signs,
    and in float32 one image in sixteen ends elsewhere when a processor adds in another order.

    Args:
        attacked: that many test images are attacked, the first ones; None for all of them. The clean accuracy is that of all.
    """
    if data.test is None:
        return None
    where = pick_device(device)
    net = net.to(where)
    x, y = on_unit_scale(torch.from_numpy(data.test.x)).to(where), torch.from_numpy(data.test.y).to(where)
    exact, points = copy.deepcopy(net).double(), on_unit_scale(torch.from_numpy(data.test.x), torch.float64).to(where)
    budgets = sorted({*BUDGETS.get(recipe.data, ()), recipe.budget} - {0.0})
    count = len(y) if attacked is None else min(attacked, len(y))
    under = []
    for i, budget in enumerate(budgets):
        if progress is not None:
            progress(i / len(budgets), f"attacking {count} test images at radius {budget:.4g}")
        share = robust_accuracy(exact, points[:count], y[:count], budget, steps=STEPS, restarts=RESTARTS, seed=recipe.seed)
        under.append({"radius": budget, "accuracy": share})
    clean = robust_accuracy(net, x, y, 0.0)
    net.cpu()
    return {
        "test_images": len(y),
        "accuracy": clean,
        "attack": {
            "method": "PGD", "steps": STEPS, "restarts": RESTARTS, "step": "2.5 radius / steps", "seed": recipe.seed,
            "dtype": "float64", "images": count,
        },
        "under_attack": under,
    }


def facts(data: ImageSet, figures: Mapping[str, Any] | None, device: str, command: str) -> dict[str, Any]:
    """What a finished training adds to its checkpoint for the card: plain values only."""
    return {
        "figures": figures,
        "sources": list(data.sources),
        "notes": _notes(data),
        "images": {"train": len(data.train), "test": 0 if data.test is None else len(data.test)},
        "machine": {
            "torch": str(torch.__version__),  # its own class is refused when the file is read
            "device": device,
            "threads": torch.get_num_threads(),
            "processor": platform.machine(),
        },
        "command": command,
    }


def make_card(proto: ModelProto, state: Checkpoint, data: ImageSet | None = None) -> Card:
    """The card of the file that `proto` becomes.

    Args:
        state: of the finished training, with its `card`.
        data: where given, the accuracy is also that of onnxruntime on the file, and must be the same.

    Raises:
        InputError: the training has not been measured.
        ModelError: onnxruntime finds another accuracy than torch did.
    """
    known = state.card
    if known is None:
        raise InputError("this checkpoint is of a training that is not finished; run the same onnxsub zoo train again")
    recipe, arch, figures = state.recipe, architecture(state.recipe.architecture), known["figures"]
    if data is not None and data.test is not None and figures is not None:
        _confirm(proto, data, figures)
    fixed = proto.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")
    return Card(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "name": model_name(recipe),
            "file": file_facts(proto),
            "input": {"name": "image", "shape": [1 if fixed else "N", *state.shape], "range": [0, 1], "normalisation": None},
            "output": {"name": "logits", "classes": state.classes},
            "architecture": {
                "name": arch.name,
                "layers": arch.summary,
                "parameters": arch.parameters(state.shape, state.classes),
                "units": arch.units(state.shape),
            },
            "recipe": recipe.to_json(),
            "data": {"name": state.data, **known["images"], "train_sha256": state.data_sha256, "sources": known["sources"]},
            "figures": figures,
            "training": {"steps": state.step, "seconds": round(state.seconds, 1), **known["machine"]},
            "command": known["command"],
            "notes": known["notes"],
            "licence": LICENCE,
        }
    )


def file_facts(proto: ModelProto) -> dict[str, Any]:
    """What a card says of the file that `proto` becomes."""
    content = serialise(proto, "the exported network", ModelError)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "opset": proto.opset_import[0].version,
        "ir_version": proto.ir_version,
        "onnx": onnx.__version__,
    }


def _confirm(proto: ModelProto, data: ImageSet, figures: Mapping[str, Any]) -> None:
    assert data.test is not None  # the caller has looked
    x = on_unit_scale(torch.from_numpy(data.test.x)).numpy()
    found = float((Runtime(proto).logits(x).argmax(axis=1) == data.test.y).mean())
    # one image may lie on a boundary up to rounding
    if not np.isclose(found, figures["accuracy"], rtol=0, atol=1.5 / len(x)):
        raise ModelError(f"onnxruntime finds an accuracy of {found:.4f}, torch {figures['accuracy']:.4f}; please report this")


def _notes(data: ImageSet) -> list[str]:
    """What a reader should know of the images."""
    notes = []
    known = DATASETS.get(data.name)
    if known is not None and len(data.train) < known.train:
        notes.append(f"trained on {len(data.train):,} of the {known.train:,} training images")
    if known is not None and data.test is not None and len(data.test) < known.test:
        notes.append(f"measured on {len(data.test):,} of the {known.test:,} test images")
    for source in data.sources:
        if "encoding" in source:
            notes.append(f"{source['train']:,} of the training images went through {source['encoding']}")
    return notes
