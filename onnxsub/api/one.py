"""Calls about one anchor or none: `load`, `make_query`, `info`, `annotate`, `bounds`, `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto

import onnxsub.passes.annotate as annotating
import onnxsub.passes.bounds as bounding
import onnxsub.passes.compare as comparing
from onnxsub import model_info
from onnxsub.any_model import AnyModel, any_model
from onnxsub.api.answer import check_alone, in_time, split
from onnxsub.api.keywords import build, checked, in_python, keywords_of, signed
from onnxsub.api.question import AnyInput, AskedOptions, Question, as_array
from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.features import Weights
from onnxsub.model import Model, Reading
from onnxsub.model_info import InfoResult
from onnxsub.passes.bounds import BoundsOptions, BoundsResult
from onnxsub.passes.compare import CompareOptions, CompareResult
from onnxsub.query import Query

__all__ = ["annotate", "bounds", "compare", "info", "load", "make_query", "radius_of"]


def load(
    model: AnyModel, reading: Reading | None = None, *, example: AnyInput = None, output: str | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> Model:
    """Reads and checks a classifier.

    Args:
        model: path, bytes, `onnx.ModelProto`, torch module (exported with `example` or `input_shape`) or `Model`.
        reading: or `output` and `input_shape`: which output is meant, and lengths of the input that are open.

    Raises:
        ModelError: it is no classifier that is read, or torch cannot export it.
    """
    with in_python():
        asked = build(AskedOptions, {k: v for k, v in (("output", output), ("input_shape", input_shape)) if v is not None})
        if reading is not None and asked.reading != Reading():
            raise InputError("reading says output and input_shape already; give either")
        return any_model(model, example, reading or asked.reading)


def make_query(
    model: AnyModel, x0: AnyInput, label: int | None = None, *, threads: int | None = None, **keywords: Any
) -> Query:
    """One model, one anchor, the class to defend, checked against each other; for several calls about one anchor.

    Args:
        model, x0: as of `distance`, one anchor.
        label: class to defend; None: the predicted one. threads: of onnxruntime; None: all cores.
        keywords: of the data space (`lower`, `upper`, `mean`, `std`, or `space`), `target`, `scale`, `output`, `input_shape`.

    Raises:
        InputError: model, anchor or keywords that cannot be used.
    """
    with in_python():
        given = keywords if label is None else {**keywords, "label": label}
        _, asked = split("make_query", given)
        return _one("make_query", model, x0, asked, threads)


def annotate(model: AnyModel, result: BoundsResult) -> ModelProto:
    """A copy of the model's file in which the statistics of `result` are metadata."""
    with in_python():
        return annotating.annotate(any_model(model), result)


def info(
    model: AnyModel, x: AnyInput = None, *, output: str | None = None, input_shape: tuple[int, ...] | None = None
) -> InfoResult:
    """What a model holds, and what of it is not supported.

    Args:
        x: for a torch module, an input that it takes. output, input_shape: see `AskedOptions`.
    """
    with in_python():
        asked = build(AskedOptions, {k: v for k, v in (("output", output), ("input_shape", input_shape)) if v is not None})
        return model_info.info(any_model(model, x, asked.reading))


def bounds(
    model: AnyModel | Query, x: AnyInput = None, eps: Any = None, options: BoundsOptions | None = None, *,
    budget: Budget | None = None, timeout: float | None = None, threads: int | None = None, **keywords: Any,
) -> BoundsResult:
    """The interval of the input of every activation, and of the logits, on the ball of radius `eps` round one anchor.

    Args:
        model, x, options: as of `distance`, one anchor. eps: as of `verify`. timeout: seconds. threads: of onnxruntime.
        keywords: fields of `BoundsOptions` (`method`, ...), of model and anchor.

    Raises:
        OutOfTimeError: the time ended; bounds are all or nothing.
    """
    with in_python():
        if isinstance(model, Query) and isinstance(x, BoundsOptions) and options is None:
            x, options = None, x
        elif isinstance(model, Query) and eps is None:
            x, eps = None, x
        own, asked = split("bounds", keywords, keywords_of(BoundsOptions))
        radius, asked = radius_of("bounds", eps if eps is not None or options is None else options.eps, asked)
        done = build(BoundsOptions, {**own, "eps": radius}, options)
        budget = budget or Budget(checked("timeout", timeout, float | None))
        query = _one("bounds", model, x, asked, threads)
        with in_time("bounds"):
            return bounding.bounds(query, done, budget=budget)


def compare(
    model: AnyModel | Query, other: AnyModel, x: AnyInput = None, eps: Any = None, options: CompareOptions | None = None, *,
    budget: Budget | None = None, timeout: float | None = None, threads: int | None = None, **keywords: Any,
) -> CompareResult:
    """How far the logits of two models differ on the ball of radius `eps` round one anchor: what is attained and what is certified.

    Args:
        model, x, options: as of `distance`, one anchor. other: a second model of the same input.
        eps: radius. timeout: seconds. threads: of onnxruntime.
        keywords: fields of `CompareOptions` (`samples`, `method` of the bounds, ...), of model and anchor.
    """
    with in_python():
        if isinstance(model, Query) and isinstance(x, CompareOptions) and options is None:
            x, options = None, x
        elif isinstance(model, Query) and eps is None:
            x, eps = None, x
        own, asked = split("compare", keywords, keywords_of(CompareOptions))
        if eps is None and options is None:
            raise InputError("eps is missing; compare needs a radius in un-normalised input units")
        own |= {} if eps is None else {"eps": eps}
        done = build(CompareOptions, own, options)
        budget = budget or Budget(checked("timeout", timeout, float | None))
        query = _one("compare", model, x, asked, threads)
        second = _other(other, query, asked)
        with in_time("compare"):
            return comparing.compare(query, second, done, budget=budget)


def radius_of(call: str, eps: Any, asked: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """The radius and the keywords: a radius per feature is the radius 1 in units of itself."""
    if eps is None:
        raise InputError(f"eps is missing; {call} needs a radius in un-normalised input units")
    if np.ndim(eps) == 0 and not hasattr(eps, "detach"):
        return float(checked("eps", eps, float)), asked
    each = as_array(eps, "eps").astype(np.float64)
    if each.ndim == 0:
        return float(each), asked
    if asked.get("scale") is not None:
        raise InputError("eps per feature is a scale already; leave out scale, or give eps a number")
    return 1.0, {**asked, "scale": Weights(each, "--eps")}


def _one(call: str, model: AnyModel | Query, x: AnyInput, asked: Mapping[str, Any], threads: int | None) -> Query:
    if isinstance(model, Query):
        check_alone(x, asked)
        return model
    question = Question.of(model, x, asked, threads)
    if question.many:
        raise InputError(f"{call} takes one anchor, not a batch of {len(question.x)}; give x[i]")
    return question.query()


def _other(other: AnyModel, query: Query, asked: Mapping[str, Any]) -> Model:
    """The second model: as it is, or read as the first one is where it leaves the same choice."""
    example = query.space.original(query.x0)
    try:
        return any_model(other, example)
    except InputError:
        reading = Reading(asked.get("output"), asked.get("input_shape"))
        if reading == Reading():
            raise
        return any_model(other, example, reading)


signed(bounds, BoundsOptions, AskedOptions)
signed(compare, CompareOptions, AskedOptions)
signed(make_query, AskedOptions)
