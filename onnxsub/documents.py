"""JSON and TOML of strangers: a regular file of a bounded length, and brackets that nest as deep as Python follows."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxsub.limits import check_regular, limits

__all__ = ["parse_json", "parse_toml", "read_json", "read_text", "read_toml"]


def parse_json(text: str) -> Any:
    """The value that a text stands for. Raises ValueError."""
    return _parsed(text, json.loads)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text. Raises ValueError."""
    found: dict[str, Any] = _parsed(text, tomllib.loads)
    return found


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value of a file. Raises ValueError and OSError where it is none, InputError for a pipe, a device or too much text."""
    return parse_json(read_text(path))


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a file. Raises as `read_json` does."""
    return parse_toml(read_text(path))


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text of a file. Raises as `read_json` does."""
    file = Path(path)
    check_regular(file, repr(os.fspath(path)))
    limits().check("text", file.stat().st_size, f"{os.fspath(path)!r}: bytes")
    return file.read_text(encoding=encoding)


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("its brackets nest too deep") from None
