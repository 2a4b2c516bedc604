"""Keywords of a call, read off the dataclasses of its options: each field is a keyword, those of parts (`limits`, `milp`) too."""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from onnxsub.checked import checked
from onnxsub.errors import InputError, OnnxsubError

__all__ = ["Keyword", "build", "checked", "in_python", "keywords_of", "refuse_unknown", "signed", "spoken"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Path = tuple[str, ...]

EVERYWHERE = ("seed", "threads", "device", "attack", "restarts", "effort", "start")
"""Keywords that are meant for every part that has them, under the same annotation."""

_INSTEAD = {"keep": "gamma"}
"""Keyword -> the one that it stands in place of."""

_GIB = ("bab", "memory")


@dataclass(frozen=True)
class Keyword:
    """One keyword of a call.

    Attributes:
        name: of it. paths: where its value goes: names of fields, from the outermost dataclass on.
        kind: the annotation. default: of the field; `inspect.Parameter.empty` where there is none.
    """

    name: str
    paths: tuple[Path, ...]
    kind: Any
    default: Any


def keywords_of(options: type[Any]) -> Mapping[str, Keyword]:
    """The keywords of a dataclass of options. Of fields with one name the outermost and first is meant, or all (`EVERYWHERE`)."""
    found: Mapping[str, Keyword] = _read(options)  # type: ignore[arg-type, unused-ignore]
    return found


@functools.cache
def _read(options: Any) -> Mapping[str, Keyword]:
    found: dict[str, Keyword] = {}
    level: list[tuple[Path, type[Any]]] = [((), options)]
    while level:
        deeper: list[tuple[Path, type[Any]]] = []
        for path, kind in level:
            hints = typing.get_type_hints(kind)
            for f in fields(kind):
                here = (*path, f.name)
                part = _part(hints[f.name])
                if part is not None:
                    deeper.append((here, part))
                if f.name not in found:
                    found[f.name] = Keyword(f.name, (here,), hints[f.name], _default(f))
                elif f.name in EVERYWHERE and found[f.name].kind == hints[f.name]:
                    old = found[f.name]
                    found[f.name] = replace(old, paths=(*old.paths, here))
        level = deeper
    return found


def build(options: type[T], given: Mapping[str, Any], base: T | None = None) -> T:
    """Options with the values that are given, the others as in `base` or as they are by default.

    Args:
        given: keyword -> value, all of them keywords of `options`.

    Raises:
        InputError: a value of a wrong type, or one that the options refuse.
    """
    known = keywords_of(options)
    values: dict[Path, Any] = {}
    for name, value in given.items():
        keyword = known[name]
        right = checked(name, value, keyword.kind)
        for path in keyword.paths:
            values[path] = int(checked(name, value, float) * 2**30) if path[-2:] == _GIB else right
        other = _INSTEAD.get(name)
        if other is not None and other in known and other not in given and value is not None:
            values.update(dict.fromkeys(known[other].paths))
    return _made(options, values, base)


def refuse_unknown(call: str, given: Collection[str], *allowed: Collection[str]) -> None:
    """Raises InputError for a keyword that a call does not have, with the one that may be meant."""
    every = sorted({name for names in allowed for name in names})
    for name in given:
        if name not in every:
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"is {near[0]} meant?" if near else f"help(onnxsub.{call}) lists what there is"
            raise InputError(f"{call} has no keyword {name!r}; {hint}")


@contextmanager
def in_python() -> Iterator[None]:
    """Errors of the block that name options of the command line (`--exact-on`) name keywords instead (`exact_on`)."""
    try:
        yield
    except OnnxsubError as error:
        text = spoken(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from error


def spoken(text: str) -> str:
    """A message of the command line in the words of Python: keywords in place of options."""
    for option, keyword in (("--domain LO HI", "lower and upper"), ("--domain", "lower and upper"), ("--label-column", "labels")):
        text = text.replace(option, keyword)
    return re.sub(r"--([a-z][a-z0-9-]*)", lambda m: m[1].replace("-", "_"), text)


def signed(call: F, *options: type[Any], hidden: Collection[str] = ()) -> F:
    """`call` with the keywords of its options in its signature, for `help` and completion, in place of `**keywords`."""
    own = inspect.signature(call)
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    names = {p.name for p in kept} | set(hidden)
    for kind in options:
        for k in keywords_of(kind).values():
            if k.name not in names:
                names.add(k.name)
                default = None if k.default is inspect.Parameter.empty else k.default
                kept.append(inspect.Parameter(k.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=k.kind))
    call.__signature__ = own.replace(parameters=kept)  # type: ignore[attr-defined]
    return call


def _made(options: type[T], values: Mapping[Path, Any], base: T | None) -> T:
    own = {path[0]: value for path, value in values.items() if len(path) == 1}
    hints = typing.get_type_hints(options)
    for f in fields(options):  # type: ignore[arg-type]
        part = _part(hints[f.name])
        inner = {path[1:]: value for path, value in values.items() if path[0] == f.name and len(path) > 1}
        if part is None or not inner:
            continue
        current = own.get(f.name, None if base is None else getattr(base, f.name))
        absent = current is None and (f.default is None or base is not None)
        if absent and all(path[-1] in EVERYWHERE for path in inner):
            continue  # a seed alone asks for no substitute
        own[f.name] = _made(part, inner, current)
    return options(**own) if base is None else replace(base, **own)  # type: ignore[type-var]


def _part(kind: Any) -> type[Any] | None:
    """The dataclass that an annotation names, alone or beside None."""
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((c for c in choices if isinstance(c, type) and is_dataclass(c) and c.__name__.endswith(_PARTS)), None)


_PARTS = ("Options", "Limits", "Plan")


def _default(f: Any) -> Any:
    if f.default is not MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not MISSING else inspect.Parameter.empty
