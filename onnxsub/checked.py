"""Values against annotations: what came from a caller or out of a file, as a dataclass wants it."""

from __future__ import annotations

import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnxsub.errors import InputError

__all__ = ["checked"]


def checked(name: str, value: Any, kind: Any) -> Any:
    """`value` as the annotation `kind` wants it: NumPy's numbers become Python's, sequences tuples.

    Raises:
        InputError: it is of another type.
    """
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union else (kind,)
    for choice in choices:
        right, found = _as(value, choice)
        if right:
            return found
    wanted = " or ".join(dict.fromkeys(_words(c) for c in choices if c is not type(None)))
    shown = repr(value)
    shown = shown if len(shown) <= 40 and "\n" not in shown else f"of type {type(value).__name__}"
    raise InputError(f"{name} is {shown}; give {wanted}")


def _as(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a value is of a type, and the value as it is wanted."""
    origin = typing.get_origin(kind) or kind
    if kind is Any:
        return True, value
    if kind is type(None):
        return value is None, None
    truth = isinstance(value, bool | np.bool_)
    if kind is bool:
        return truth, bool(value) if truth else None
    if kind is int:
        right = isinstance(value, numbers.Integral) and not truth
        return right, int(value) if right else None
    if kind is float:
        right = isinstance(value, numbers.Real) and not truth
        return right, float(value) if right else None
    if origin is tuple:
        return _as_tuple(value, typing.get_args(kind))
    if origin is np.ndarray:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError):
            return False, None
        return array.dtype.kind in "fiub", array
    return isinstance(value, origin), value


def _as_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[bool, Any]:
    single = isinstance(value, str if kinds[0] is str else numbers.Number)
    if isinstance(value, str | bytes | Mapping) and not single:
        return False, None
    if not single and not isinstance(value, Sequence | np.ndarray) and not hasattr(value, "__len__"):
        return False, None
    parts = [value] if single else list(value)
    each = [kinds[0]] * len(parts) if len(kinds) == 2 and kinds[1] is Ellipsis else list(kinds)
    if len(each) != len(parts):
        return False, None
    found = [_as(v, k) for v, k in zip(parts, each, strict=True)]
    return all(right for right, _ in found), tuple(v for _, v in found)


def _words(kind: Any) -> str:
    origin = typing.get_origin(kind) or kind
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a string", np.ndarray: "an array of numbers"}
    if origin in names:
        return names[origin]
    if origin is tuple:
        inner = typing.get_args(kind)
        many = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"a sequence of {many}{ {float: 'numbers', int: 'whole numbers', str: 'strings'}.get(inner[0], 'values')}"
    return getattr(origin, "__name__", str(origin))
