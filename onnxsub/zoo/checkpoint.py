"""The state of a training as a file: what it is of, how far it is, and the weights."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onnxsub.errors import InputError
from onnxsub.files import one_line, write_atomic
from onnxsub.limits import check_regular
from onnxsub.ops.base import Shape
from onnxsub.zoo.recipe import Recipe, recipe_from_json

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]

SCHEMA = "onnxsub.checkpoint/1"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after `step` steps.

    Attributes:
        recipe: what is trained. data: name of the images, sha256 of those trained on.
        shape, classes: of the network's input and output.
        step: steps done. seconds: time spent on them.
        weights, optimiser: as torch gives them. card: figures and sources, once measured.
    """

    recipe: Recipe
    data: str
    shape: Shape
    classes: int
    data_sha256: str
    step: int
    seconds: float
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    card: Mapping[str, Any] | None = field(default=None)

    def check(self, recipe: Recipe, data_sha256: str, path: str | os.PathLike[str]) -> None:
        """Raises InputError unless this is a state of training `recipe` on these images; names the first difference."""
        ours, theirs = recipe.to_json(), self.recipe.to_json()
        for key in {**ours, **theirs}:
            there, here = theirs.get(key, "none"), ours.get(key, "none")  # only a regime may be absent
            if there != here:
                raise InputError(
                    f"checkpoint {os.fspath(path)!r} is of another training: {key} is {there} there and {here} here; "
                    "use the same options, another -o, or --restart"
                )
        if self.data_sha256 != data_sha256:
            raise InputError(
                f"checkpoint {os.fspath(path)!r} was trained on other images; use the same ones, another -o, or --restart"
            )


def write_checkpoint(state: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write all of it or nothing. Raises OutputError."""
    buffer = io.BytesIO()
    keys = {**vars(state), "schema": SCHEMA, "recipe": state.recipe.to_json(), "shape": list(state.shape)}
    torch.save(keys, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The inverse. Raises InputError for everything that is not a whole checkpoint of this version; runs no code from the file."""
    what = f"checkpoint {os.fspath(path)!r}"
    check_regular(Path(path), what)
    try:
        keys = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{what} does not exist; check the path") from None
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, OSError and more on other files
        raise InputError(f"{what} is damaged, or no checkpoint ({one_line(error, 80)}); train again with --restart") from error
    if not isinstance(keys, dict) or keys.pop("schema", None) != SCHEMA:
        raise InputError(f"{what} is not a checkpoint of this version of onnxsub; train again with --restart")
    try:
        return Checkpoint(**{**keys, "recipe": recipe_from_json(keys["recipe"]), "shape": tuple(keys["shape"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"{what} lacks something ({one_line(error, 80)}); train again with --restart") from error
