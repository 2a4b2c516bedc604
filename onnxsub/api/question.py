"""From a model and anchors, as people have them, to queries: what the keywords of data space and reading mean."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from onnxsub.anchors import fit_shape, read_anchor
from onnxsub.any_model import AnyModel, any_model
from onnxsub.api.keywords import build
from onnxsub.errors import InputError
from onnxsub.evaluate.samples import anchor_of
from onnxsub.features import Weights
from onnxsub.files import one_line
from onnxsub.model import Model, Reading
from onnxsub.ops.base import Array, Shape
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.shown import Sight

__all__ = ["ASKED", "AnyInput", "AskedOptions", "Question", "as_array", "sight_of", "space_of"]

AnyInput: TypeAlias = Any
"""An anchor or a batch of them: an array, a tensor, nested lists, or the path of a file with one."""


@dataclass(frozen=True, eq=False)
class AskedOptions:
    """What is asked of a model, and where its inputs live.

    Attributes:
        label: class to defend, of a batch one for each or one for all; None: the predicted one.
        target: the one other class that counts; None: all.
        lower, upper: the valid input range, numbers or arrays per feature or channel; None: 0 and 1, of a model of bytes its range.
        mean, std: the model wants `(x - mean) / std`: a number, or one per channel.
        space: all of these four as one object.
        scale: weights per feature: radii and distances count units of them.
        output: which output of the model is meant. input_shape: per-sample lengths where the model leaves them open.
        index, array: of a file with many anchors, which row, and which array of an `.npz`.
        batch: whether `(1, *shape)` is a batch of one (True) or one anchor with a batch axis (None, False).
    """

    label: int | Array | None = None
    target: int | None = None
    lower: float | Array | None = None
    upper: float | Array | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    space: InputSpace | None = None
    scale: Array | Weights | None = None
    output: str | None = None
    input_shape: tuple[int, ...] | None = None
    index: int | None = None
    array: str | None = None
    batch: bool | None = None

    @property
    def reading(self) -> Reading:
        """How the model is read."""
        return Reading(self.output, self.input_shape)


ASKED = frozenset(f.name for f in fields(AskedOptions))
"""The keywords of `AskedOptions`."""


@dataclass(frozen=True, eq=False)
class Question:
    """A model and the anchors that it is asked about.

    Attributes:
        model: read, or exported. x: `(N, ...)` rows for a batch, `(1, ...)` for one anchor.
        many: whether a batch was given. asked: the rest. threads: of onnxruntime; None: all cores.
    """

    model: Model
    x: Array
    many: bool
    asked: AskedOptions
    threads: int | None

    @staticmethod
    def of(model: AnyModel, x: AnyInput, given: Mapping[str, Any], threads: int | None = None) -> Question:
        """Reads model and anchors and checks what can be checked before anything is computed.

        Args:
            given: keywords of `AskedOptions`.

        Raises:
            InputError: no model, no anchor, shapes that do not fit, values outside the domain, labels that are none.
        """
        asked = build(AskedOptions, given)
        if x is None:
            raise InputError("there is no anchor; give the input to ask about, an array of the model's shape, or a batch of them")
        if isinstance(x, str | os.PathLike):
            read = any_model(model, None, asked.reading)
            grey = space_of(asked, read).grey
            point = read_anchor(os.fspath(x), read.input_shape, index=asked.index, array=asked.array, domain=grey)
            question = Question(read, point[None], False, asked, threads)
        else:
            if asked.index is not None or asked.array is not None:
                raise InputError("index and array belong to a file; give x[i]")
            data = as_array(x, "the anchor")
            read = any_model(model, data[0] if asked.batch and data.ndim else data, asked.reading)
            question = Question(read, *_rows(data, read.input_shape, asked.batch), asked, threads)
        question.labels.shape  # noqa: B018 - looked at before anything is computed
        if question.many:
            question.check_rows()
        return question

    @cached_property
    def space(self) -> InputSpace | None:
        """Domain and normalisation; None where nothing is said of them."""
        return space_of(self.asked, self.model, stated=False)

    @cached_property
    def labels(self) -> Array:
        """One class per row, -1 for the predicted one."""
        if self.asked.label is None:
            return np.full(len(self.x), -1)
        labels = as_array(self.asked.label, "label")
        if labels.dtype.kind not in "iu" or labels.size not in (1, len(self.x)):
            raise InputError(f"label has shape {list(labels.shape)}, type {labels.dtype}; give one class, or one for each anchor")
        return np.broadcast_to(labels.reshape(-1), len(self.x))

    def check_rows(self) -> None:
        """Raises InputError where a row of a batch lies outside the domain or a class is none: before hours are spent."""
        space = space_of(self.asked, self.model)
        for i in range(len(self.x)):
            space.check(self._row(i), f"anchor {i}")
        classes = max(2, self.model.outputs)
        wrong = np.flatnonzero((self.labels >= classes) | (self.labels < -1))
        if len(wrong):
            raise InputError(f"label {self.labels[wrong[0]]} of anchor {wrong[0]} is out of range: classes are 0 to {classes - 1}")

    def query(self, row: int = 0) -> Query:
        """The query of one row."""
        label = int(self.labels[row])
        return make_query(
            self.model, self._row(row), None if label == -1 else label,
            space=self.space, threads=self.threads, target=self.asked.target, scale=self.asked.scale,
        )  # fmt: skip

    def queries(self) -> Iterator[Query]:
        """One after the other."""
        for row in range(len(self.x)):
            yield self.query(row)

    def _row(self, row: int) -> Array:
        data = fit_shape(self.x[row], self.model.input_shape, "the anchor")
        if data.dtype != np.uint8:
            return data
        return anchor_of(data, self.model.input_shape, space_of(self.asked, self.model).grey, "the anchor")


def space_of(asked: AskedOptions, model: Model, *, stated: bool = True) -> InputSpace:
    """The data space that the keywords describe, for a model; None (`stated` False) where they say nothing.

    Raises:
        InputError: `space` beside what it holds, ends that are no range, `mean` without `std`.
    """
    parts = {k: getattr(asked, k) for k in ("lower", "upper", "mean", "std")}
    given = {k: v for k, v in parts.items() if v is not None}
    if asked.space is not None:
        if given:
            raise InputError(f"space holds {next(iter(given))} already; give either")
        space = asked.space
    elif not given and not stated:
        return None  # type: ignore[return-value]
    else:
        space = InputSpace(**given)
    said = asked.space is not None or "lower" in given or "upper" in given
    return space.fitted(model.input_shape).over(model.feed.dtype, stated=said)


def sight_of(query: Query, point: Array | None, found: int | None) -> Sight:
    """Anchor and point as a notebook shows them."""
    plain = query.space.plain
    original = None if point is None else query.space.original(point)
    return Sight(query.space.original(query.x0), original, query.label, found, *plain.hull)


def as_array(x: Any, what: str) -> Array:
    """An array of numbers out of an array, a tensor on any device, an image or nested lists.

    Raises:
        InputError: it is none.
    """
    if hasattr(x, "detach") and hasattr(x, "cpu"):
        x = x.detach().cpu()
    try:
        data = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} is no array ({one_line(error, 120)}); give an array of numbers") from error
    if data.dtype.kind not in "fiub":
        kind = type(x).__name__ if data.ndim == 0 else f"an array of {data.dtype}"
        raise InputError(f"{what} is {kind}; give an array of numbers")
    return data


def _rows(data: Array, shape: Shape, batch: bool | None) -> tuple[Array, bool]:
    """The rows, and whether they are a batch: several of the model's input, or one where that is said."""
    size = math.prod(shape)
    if data.ndim and data.shape[1:] == shape:
        if not len(data):
            raise InputError("the batch of anchors is empty; give at least one")
        if batch is False and len(data) > 1:
            raise InputError(f"x holds {len(data)} anchors, and batch is False; give x[i]")
        return data, len(data) > 1 or bool(batch)
    if batch and data.size == size:
        raise InputError(f"x has shape {list(data.shape)} and is no batch; give (N, *{list(shape)})")
    if data.size == size:
        return data[None], False
    if data.ndim > 1 and len(data) > 1 and data[0].size == size:
        return data, True
    raise InputError(f"the anchor has shape {list(data.shape)}, the model wants {list(shape)}, or (N, ...) of these; reshape it")
