"""Score, remove, retrain, and the same again: the core of `onnxsub compress --retrain`, and a part of the study of importance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.compress.choose import Choice
from onnxsub.compress.importance import importance, without_scores
from onnxsub.compress.options import ImportanceOptions
from onnxsub.compress.remove import check_equal, remove_units
from onnxsub.errors import InputError, OptionError
from onnxsub.files import write_atomic
from onnxsub.lower import lower
from onnxsub.model import Model, load_model, save_model
from onnxsub.model_file import serialise
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.study.steps import Steps
from onnxsub.zoo.file_net import images_for
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.recipe import Recipe
from onnxsub.zoo.train import on_unit_scale
from onnxsub.zoo.tune import accuracy_of, tune_recipe, tuned

__all__ = ["RoundsOptions", "RoundsResult", "in_turn", "rounds"]

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class RoundsOptions:
    """How units are chosen and the rest is trained.

    Attributes:
        choice: which units go. rounds: how often. images: training images that scores are computed from, the classes in turn.
        importance: of the scores. timeout: seconds for the scores of a round; the best by then are taken.
        budget: radius of the attack in training, in units of images in [0, 1]; 0 for clean ones. epochs, rate: of a round; with no
            epochs nothing is trained. seed: of the training.
    """

    choice: Choice = field(default_factory=Choice)
    rounds: int = 1
    images: int = 10
    importance: ImportanceOptions = field(default_factory=ImportanceOptions)
    timeout: float | None = None
    budget: float = 0.0
    epochs: int = 5
    rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("rounds", self.rounds), ("images", self.images)):
            if value < 1:
                raise OptionError(f"--{name} {value} is not possible; give 1 or more")
        if self.epochs < 0:
            raise OptionError(f"--epochs {self.epochs} is not possible; give 0 for no training, or more")
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError(f"--timeout {self.timeout:g} is not possible; give a positive number of seconds")

    def recipe(self, data: str, model: Model, space: InputSpace) -> Recipe:
        """How what is left of the model is trained."""
        return tune_recipe(
            data, model, space, budget=self.budget, epochs=max(1, self.epochs), rate=self.rate, seed=self.seed
        )


@dataclass(frozen=True)
class RoundsResult:
    """What each round did.

    Attributes:
        file: the last network.
        before: accuracy of the first one on the test images; None without any.
        rounds: `layers` [{`name`, `units`, `removed`, `reason`, `positions`}], `scores` (status of the program; None: none was
            solved), `bytes`, `difference` from the masked network, `accuracy` {`removed`, `retrained`}, `file`. Fewer than asked
            for where a round found nothing to remove (then without a file).
    """

    file: Path
    before: float | None
    rounds: tuple[Mapping[str, Any], ...]


def rounds(
    model: Model, data: ImageSet, options: RoundsOptions, folder: Path, *,
    scores: Mapping[str, Array] | None = None, space: InputSpace | None = None, progress: Report | None = None,
) -> RoundsResult:  # fmt: skip
    """Remove units of `model` and train what is left, `options.rounds` times; what `folder` holds of it is not done again.

    Args:
        data: trained on and measured on. scores: of the first round; None: they are computed. space: how the model is fed.

    Raises:
        InputError: the folder is of other options, model or images; a training diverged; see `importance`, `remove_units`, `tuned`.
        SolverError, UnsupportedOperatorError, ModelError, OutputError.
    """
    space = space or InputSpace()
    options.recipe(data.name, model, space)  # refuses numbers before anything is written
    known = None if scores is None else {name: [float(v) for v in s] for name, s in scores.items()}
    steps = Steps(folder, {
        **asdict(options), "model": model.sha256, "train_sha256": data.train.sha256, "scores": known, "domain": space.interval,
        "mean": space.mean, "std": space.std, "test_sha256": None if data.test is None else data.test.sha256,
    })  # fmt: skip
    before = steps.once("before", partial(_accuracy, model, data, space))
    done: list[Mapping[str, Any]] = []
    now, file = model, folder / "round-0.onnx"
    if not file.exists():
        write_atomic(file, serialise(model.source, "the model", InputError))
    for turn in range(options.rounds):
        one = _Round(steps, turn, now, data, options, space, progress)
        chosen = steps.once(f"chosen-{turn + 1}", partial(one.chosen, scores if turn == 0 else None))
        if not any(chosen["positions"].values()):
            break
        removed = steps.once(f"removed-{turn + 1}", partial(one.removed, chosen["positions"]))
        if not any(layer["removed"] for layer in removed["layers"]):
            same = {"removed": removed["accuracy"], "retrained": None}
            done.append({**removed, "scores": chosen["scores"], "accuracy": same, "file": None})
            break
        trained = steps.once(f"trained-{turn + 1}", one.trained)
        file = folder / trained["file"]
        accuracy = {"removed": removed["accuracy"], "retrained": trained["accuracy"]}
        done.append({**removed, "scores": chosen["scores"], "accuracy": accuracy, "file": trained["file"]})
        now = load_model(file, model.reading)
    return RoundsResult(file, before, tuple(done))


def in_turn(images: Labelled, count: int) -> Labelled:
    """`count` images, as many of each class as that allows: the first one of each, then the second ones.

    Raises:
        InputError: there are fewer images.
    """
    if count > len(images):
        raise InputError(f"{count} images are more than the {len(images)} there are; give fewer --images")
    rank = np.zeros(len(images), dtype=np.int64)  # how many of its class come before it
    for label in np.unique(images.y):
        own = np.flatnonzero(images.y == label)
        rank[own] = np.arange(len(own))
    first = np.lexsort((images.y, rank))[:count]
    return Labelled(images.x[first], images.y[first])


@dataclass(frozen=True)
class _Round:
    """The steps of one round, each from files and plain values to files and plain values."""

    steps: Steps
    turn: int
    model: Model
    data: ImageSet
    options: RoundsOptions
    space: InputSpace
    progress: Report | None

    def say(self, share: float, text: str) -> None:
        if self.progress is not None:
            self.progress((self.turn + share) / self.options.rounds, f"round {self.turn + 1} of {self.options.rounds}: {text}")

    def chosen(self, scores: Mapping[str, Array] | None) -> dict[str, Any]:
        choice, status = self.options.choice, None
        if choice.scored and scores is None:
            self.say(0.0, "scores")
            some = in_turn(self.data.train, self.options.images)
            x = images_for(self.model, self.space, on_unit_scale(torch.from_numpy(some.x)).numpy())
            found = importance(
                self.model, x, some.y, self.options.importance, budget=Budget(self.options.timeout),
                progress=lambda share, text: self.say(share / 3, text),
            )  # fmt: skip
            scores, status = {layer.name: layer.scores for layer in found.layers}, found.status
        gone = choice.of(lower(self.model), scores, self.turn)
        return {"scores": status, "positions": {name: positions.tolist() for name, positions in gone.items()}}

    def removed(self, positions: Mapping[str, list[int]]) -> dict[str, Any]:
        self.say(1 / 3, "removal")
        gone = {name: np.array(p, dtype=np.int64) for name, p in positions.items()}
        smaller, layers = remove_units(self.model, gone)
        smaller = without_scores(smaller)
        went = {x.name: gone[x.name] for x in layers if x.removed}
        apart = check_equal(self.model, smaller, went) if went else 0.0
        save_model(smaller, self._smaller)
        return {
            "layers": [{**vars(x), "positions": went[x.name].tolist() if x.removed else []} for x in layers],
            "bytes": {"before": self.model.source.ByteSize(), "after": smaller.ByteSize()},
            "difference": apart,
            "accuracy": _accuracy(load_model(smaller, self.model.reading), self.data, self.space),
        }

    def trained(self) -> dict[str, Any]:
        smaller, file = load_model(self._smaller, self.model.reading), self.steps.folder / f"round-{self.turn + 1}.onnx"
        if not self.options.epochs:
            save_model(smaller.source, file)
            return {"file": file.name, "accuracy": _accuracy(smaller, self.data, self.space)}
        recipe = self.options.recipe(self.data.name, smaller, self.space)
        proto = tuned(
            smaller, recipe, self.data, file.with_suffix(".pt"), space=self.space,
            progress=lambda share, text: self.say((1 + 2 * share) / 3, text),
        )  # fmt: skip
        save_model(proto, file)
        return {"file": file.name, "accuracy": _accuracy(load_model(proto, self.model.reading), self.data, self.space)}

    @property
    def _smaller(self) -> Path:
        return self.steps.folder / f"round-{self.turn + 1}-removed.onnx"


def _accuracy(model: Model, data: ImageSet, space: InputSpace) -> float | None:
    return None if data.test is None else accuracy_of(model, data.test, space)
