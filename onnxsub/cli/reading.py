"""`--output` and `--input-shape`: how a model file is read where it leaves a choice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxsub.cli.options import Request
    from onnxsub.model import Model
    from onnxsub.ops.base import Array
    from onnxsub.reading import Reading
    from onnxsub.region import InputSpace

__all__ = ["READING", "read_model", "read_other", "reading_options", "rounded", "space_of", "stated"]

READING = (
    click.option("--output", "scores", metavar="NAME", help="Which output of MODEL is meant, where it has several."),
    click.option("--input-shape", metavar="N,N..", help="Lengths of the input, where MODEL leaves them open: 3,224,224."),
)
"""Their names in the function: `scores`, `input_shape`."""


def stated(scores: str | None, input_shape: str | None) -> Reading:
    """The two options as the library takes them. Raises InputError."""
    from onnxsub.errors import OptionError
    from onnxsub.reading import Reading

    if input_shape is None:
        return Reading(scores)
    try:
        lengths = tuple(int(part) for part in input_shape.replace("x", ",").split(","))
    except ValueError:
        lengths = ()
    if not lengths or min(lengths) < 1:
        raise OptionError(f"--input-shape {input_shape} is no list of lengths; give whole numbers, for instance 3,224,224")
    return Reading(scores, lengths)


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Both options; the function gets `reading: Reading`."""

    @functools.wraps(function)
    def wrapper(*, scores: str | None, input_shape: str | None, **kwargs: Any) -> Any:
        return function(reading=stated(scores, input_shape), **kwargs)

    wrapped: Callable[..., Any] = wrapper
    for option in reversed(READING):
        wrapped = option(wrapped)
    return wrapped


def read_model(request: Request, *, sigmoids: bool = False) -> Model:
    """The model of a command with an anchor, or of one with a property (`sigmoids`, as of `Reading`)."""
    from onnxsub.model import load_model

    return load_model(request.model, replace(stated(request.scores, request.input_shape), sigmoids=sigmoids))


def read_other(request: Request, path: str) -> Model:
    """A second model: as it is, or as the first one is read where it leaves the same choice."""
    from onnxsub.errors import ModelError
    from onnxsub.model import load_model

    reading = stated(request.scores, request.input_shape)
    try:
        return load_model(path)
    except ModelError:
        if reading.output is None and reading.input_shape is None:
            raise
        return load_model(path, reading)


def rounded(space: InputSpace, x0: Array) -> tuple[str, ...]:
    """A note where an anchor is not of whole numbers, and these are all that the model takes."""
    import numpy as np

    between = int((np.rint(x0) != x0).sum()) if space.whole else 0
    return (f"{between} of {x0.size} values of the anchor lie between whole numbers and are rounded",) if between else ()


def space_of(model: Model, space: InputSpace) -> InputSpace:
    """The domain for a model's input: of bytes their range, unless `--domain` says another one."""
    context = click.get_current_context(silent=True)
    given = context is None or context.get_parameter_source("domain") is not click.core.ParameterSource.DEFAULT
    return space.over(model.feed.dtype, stated=given)
