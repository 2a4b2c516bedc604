"""Training that goes on from the weights of a model file, any that is supported: `compress --retrain`, `zoo finetune`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import torch
from onnx import ModelProto

from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.query import two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.zoo.export import METADATA
from onnxsub.zoo.file_net import as_module, images_for, with_weights
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.recipe import Phase, Recipe
from onnxsub.zoo.train import on_unit_scale, train

__all__ = ["accuracy_of", "tune_recipe", "tuned"]

_STEPS, _SIZE = 7, 0.3  # of the attack on each batch, as in the recipe `full`
Report = Callable[[float, str], None]


def tune_recipe(
    data: str, model: Model, space: InputSpace, *, budget: float = 0.0, epochs: int = 5, rate: float = 1e-3, seed: int = 0
) -> Recipe:
    """Adam from the weights of `model`; the rate climbs over a tenth of the steps and falls to 0.

    Args:
        data: name of the images. budget: radius of the attack on every batch, in units of images in [0, 1]; 0 for clean images.

    Raises:
        OptionError, InputError: a number is impossible.
    """
    phase = Phase(epochs, _STEPS, _SIZE) if budget else Phase(epochs)
    fed = hashlib.sha256(f"{model.sha256} {space.interval} {space.mean} {space.std}".encode()).hexdigest()
    return Recipe(data, "file", budget, (phase,), batch=100, rate=rate, climb=0.1, seed=seed, start=fed)


def tuned(
    model: Model, recipe: Recipe, data: ImageSet, checkpoint: str | os.PathLike[str] | None = None, *,
    space: InputSpace | None = None, device: str = "cpu", progress: Report | None = None,
) -> ModelProto:  # fmt: skip
    """`model` with the weights that training by `recipe` on `data` leads to; a checkpoint is gone on with, as `train` does.

    Raises:
        InputError, OutputError, OptionError: as `train` and `as_module`. ModelError: as `with_weights`.
    """
    space = space or InputSpace()
    start = as_module(model, space, data.shape, data.classes)
    net = train(recipe, data, checkpoint, device=device, progress=progress, start=start)
    proto = with_weights(model, net, space, data.shape)
    # the recipe that the file may hold made other weights
    kept = [prop for prop in proto.metadata_props if prop.key != METADATA]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return proto


def accuracy_of(model: Model, images: Labelled, space: InputSpace | None = None) -> float:
    """Share of the images that the file classifies rightly, under onnxruntime."""
    space = space or InputSpace()
    runtime, right = Runtime(model), 0
    for i in range(0, len(images), 1000):
        x: Array = on_unit_scale(torch.from_numpy(images.x[i : i + 1000])).numpy()
        found = two_classes(runtime.logits(images_for(model, space, x))).argmax(axis=1)
        right += int((found == images.y[i : i + 1000]).sum())
    return right / len(images)
