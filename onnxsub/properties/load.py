"""Reading a property: a `.vnnlib` file, gzipped or not, of either version."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.limits import check_regular, limits
from onnxsub.model import Model
from onnxsub.properties.fit import check_fits
from onnxsub.properties.property import Property
from onnxsub.properties.sexpr import Source, parse
from onnxsub.properties.vnnlib1 import read_version_1
from onnxsub.properties.vnnlib2 import read_version_2

__all__ = ["load_property", "parse_property"]


def load_property(path: str | os.PathLike[str], model: Model | None = None, *, budget: Budget | None = None) -> Property:
    """The property of a file; with a model, sizes and head are checked against it.

    Raises:
        InputError: the file cannot be read, is not VNN-LIB, uses what is not supported, or does not fit the model. Messages
            about the text begin with `file:line:column`.
        OutOfTime: the budget ended before it was read.
    """
    shown = os.fspath(path)
    found = parse_property(_read(Path(path)), shown, budget)
    if model is not None:
        check_fits(found, model)
    return found


def parse_property(text: str, where: str = "property", budget: Budget | None = None) -> Property:
    """The property of a text; `where` is what messages call it. Raises as `load_property` does."""
    source = Source(text, where, budget)
    commands = parse(source)
    if not commands:
        raise source.error(0, "there is no command in it; give a VNN-LIB property")
    heads = {source.tokens[c[1]] for c in commands if len(c) > 1 and isinstance(c[1], int)}
    if heads & {"vnnlib-version", "declare-network"}:
        return read_version_2(source, commands)
    return read_version_1(source, commands)


def _read(path: Path) -> str:
    try:
        check_regular(path, f"the property {str(path)!r}")
        packed = path.stat().st_size
        limits().check("text", packed, f"the property {str(path)!r}: bytes")
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                data = file.read(int(min(limits().text, 2.0**62)) + 1)
            limits().check("text", len(data), f"the property {str(path)!r}: bytes of its contents")
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error or type(error).__name__
        raise InputError(f"cannot read the property {str(path)!r}: {why}; give a .vnnlib or .vnnlib.gz file") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"the property {str(path)!r} is not text (byte {error.start}); give a .vnnlib file") from error
