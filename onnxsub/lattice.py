"""Domains of whole numbers: of files whose inputs are bytes or other integers. Ends are one number for all, or one per feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.ops.base import Array
from onnxsub.reading.integers import RANGES

__all__ = ["check_lattice", "nearest_whole", "range_of", "whole_ends"]

_WHOLE = 2**24
"""Whole numbers up to here are float32 numbers, each of them."""


def check_lattice(lower: float | Array, upper: float | Array) -> None:
    """Raises InputError where a feature has no whole number, or one that float32 may not hold."""
    low, high = np.broadcast_arrays(lower, upper)
    for wrong, why in (
        (np.ceil(low) > np.floor(high), "holds no whole number, which the model takes; widen it"),
        (np.maximum(np.abs(low), np.abs(high)) > _WHOLE, f"holds whole numbers beyond {_WHOLE}, which are not read"),
    ):
        if wrong.any():
            raise InputError(f"{_named(low, high, wrong)} {why}")


def range_of(dtype: np.dtype[Any], lower: float | Array, upper: float | Array, *, stated: bool) -> tuple[Any, Any]:
    """The ends of a domain of inputs of an integer type: as they are stated, or the usual ones of the type.

    Raises:
        InputError: a type that has no usual range, and none was given; ends beyond the type.
    """
    if not stated:
        if str(dtype) not in RANGES:
            raise InputError(f"the model's input is {dtype}, which has no usual range; say the valid one with --domain LO HI")
        lower, upper = RANGES[str(dtype)]
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = np.broadcast_arrays(lower, upper)
    wrong = (low < least) | (high > most)
    if wrong.any():
        raise InputError(f"{_named(low, high, wrong)} leaves the range of the model's input, {dtype}: {least} to {most}")
    return lower, upper


def nearest_whole(x: Array, lower: float | Array, upper: float | Array) -> Array:
    """The nearest whole numbers inside the domain, float32."""
    return np.asarray(np.clip(np.rint(x), np.ceil(lower), np.floor(upper)).astype(np.float32))


def whole_ends(lower: Array, upper: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Both ends of a box moved inward to whole numbers of an integer type, float64; `lower > upper` where a side holds none."""
    kind = np.iinfo(dtype)
    return np.maximum(np.ceil(lower), float(kind.min)), np.minimum(np.floor(upper), float(kind.max))


def _named(low: Array, high: Array, wrong: Array) -> str:
    """The first range that is wrong."""
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    if not at:
        return f"--domain {float(low):g} {float(high):g}"
    return f"--domain of feature {at[0] if len(at) == 1 else list(at)}, [{low[at]:g}, {high[at]:g}],"
