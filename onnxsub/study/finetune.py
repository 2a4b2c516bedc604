"""Fine-tuning on the examples of runs: the core of `onnxsub zoo finetune` (Bastani et al. 2016, section 5)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from onnxsub.compress.importance import without_scores
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.examples import Points, read_points
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.query import two_classes
from onnxsub.region import InputSpace
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime
from onnxsub.zoo.file_net import images_from
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.train import on_unit_scale
from onnxsub.zoo.tune import accuracy_of, tune_recipe, tuned

__all__ = ["FinetuneOptions", "Finetuned", "adversarial_to", "finetune", "with_examples"]

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class FinetuneOptions:
    """How the weights move.

    Attributes:
        epochs, rate, seed: of the training, which starts from the model's weights. budget: radius of an attack on every batch
            besides; 0: none.
        repeat: an example counts as so many images.
        device: `cpu` or `cuda`.
    """

    epochs: int = 5
    rate: float = 1e-3
    budget: float = 0.0
    repeat: int = 1
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise OptionError(f"--repeat {self.repeat} is not possible; give 1 or more")


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A network before and after.

    Attributes:
        proto: with the new weights.
        points: that the runs hold. examples: of them, those that the model gives another class than the defended one; these are
            trained on. fooled: of these, those that the new network gives a wrong class.
        accuracy: on the test images, before and after; None without any.
    """

    proto: ModelProto = field(repr=False)
    points: int
    examples: int
    fooled: int
    accuracy: tuple[float, float] | None
    options: FinetuneOptions

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.finetune/1`."""
        before, after = self.accuracy or (None, None)
        return {
            "schema": "onnxsub.finetune/1", "version": VERSION, "settings": vars(self.options), "points": self.points,
            "examples": self.examples, "fooled": self.fooled, "accuracy": {"before": before, "after": after},
        }  # fmt: skip


def adversarial_to(model: Model, points: Points, space: InputSpace) -> Array:
    """Which of the points the file gives another class than the defended one, under onnxruntime: `(N,)` boolean."""
    x = space.normalise(points.x.reshape(-1, *model.input_shape))
    return np.asarray(two_classes(Runtime(model).logits(x)).argmax(axis=1) != points.y)


def with_examples(data: ImageSet, examples: Labelled, repeat: int = 1) -> ImageSet:
    """The training images and the examples behind them, `repeat` times. Raises InputError: labels that no image has."""
    if len(examples) and int(examples.y.max()) >= data.classes:
        raise InputError(
            f"an example has the label {int(examples.y.max())}, training images have 0 to {data.classes - 1}; give the images that "
            "the runs are of"
        )
    x = on_unit_scale(torch.from_numpy(data.train.x)).numpy()
    joined = Labelled(np.concatenate([x, *[examples.x] * repeat]), np.concatenate([data.train.y, *[examples.y] * repeat]))
    return replace(data, train=joined)


def finetune(
    model: Model, runs: Sequence[Path], data: ImageSet, options: FinetuneOptions,
    checkpoint: str | os.PathLike[str] | None = None, *, space: InputSpace | None = None, progress: Report | None = None,
) -> Finetuned:  # fmt: skip
    """Train on `data` and on the examples of `runs`, each with the class that is defended at its anchor, from the model's weights.

    A point counts as an example where the model itself gives it another class, under onnxruntime.

    Raises:
        InputError: see `read_points`, `tuned`; no point is an example. OptionError, OutputError, ModelError.
    """
    space = space or InputSpace()
    recipe = tune_recipe(
        data.name, model, space, budget=options.budget, epochs=options.epochs, rate=options.rate, seed=options.seed
    )
    found = [read_points(folder, int(np.prod(model.input_shape))) for folder in runs]
    points = Points(np.concatenate([p.x for p in found]), np.concatenate([p.y for p in found]))
    wrong = adversarial_to(model, points, space)
    if not wrong.any():
        raise InputError(f"no point of these {len(points)} is adversarial to {model.where}; give runs of this model")
    examples = Points(points.x[wrong], points.y[wrong])
    images = images_from(model, space, examples.x, data.shape)
    more = with_examples(data, Labelled(images, examples.y), options.repeat)
    proto = without_scores(tuned(model, recipe, more, checkpoint, space=space, device=options.device, progress=progress))
    after = load_model(proto, model.reading)
    fooled = int(adversarial_to(after, examples, space).sum())
    shares = None if data.test is None else (accuracy_of(model, data.test, space), accuracy_of(after, data.test, space))
    return Finetuned(proto, len(points), len(examples), fooled, shares, options)
