"""Labels as they are stored, as classes: numbers from 0, one-hot rows, or names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from onnxsub.documents import parse_json, read_text
from onnxsub.errors import InputError, OptionError
from onnxsub.files import one_line
from onnxsub.ops.base import Array

__all__ = ["NUMERIC", "SORTED", "Classes", "class_numbers", "classes_of", "read_classes"]

Classes = tuple[str, ...]
"""What `--classes` says: `name=number` for each name, or one of the words below."""

SORTED, NUMERIC = "sorted", "numeric"
"""Names are classes in the order of their texts; names are the numbers of their classes."""


def read_classes(text: str) -> Classes:
    """`cat,dog` (0 and 1), `cat=0,dog=1`, `sorted`, `numeric`, or a file.

    A `.txt` file has a name a line, a `.json` file a list of names, or an object of names and numbers.

    Raises:
        InputError: unreadable, a name twice, a number that is none.
    """
    if text in (SORTED, NUMERIC):
        return (text,)
    path = Path(text)
    if path.suffix.lower() not in (".txt", ".json"):
        return _checked([part.strip() for part in text.split(",") if part.strip()], text)
    try:
        content = read_text(path, encoding="utf-8-sig")
        names = parse_json(content) if path.suffix.lower() == ".json" else content.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"--classes {text!r} cannot be read: {one_line(error)}; give a name of a class a line") from error
    if isinstance(names, dict):
        names = [f"{name}={number}" for name, number in names.items()]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"--classes {text!r} is neither a list of names nor name: number; give one of these")
    return _checked([name.strip() for name in names if name.strip()], text)


def _checked(parts: list[str], text: str) -> Classes:
    pairs = [part.rpartition("=") for part in parts]
    stated = [bool(sign) for _, sign, _ in pairs]
    if not any(stated):
        pairs = [(name, "=", str(i)) for i, name in enumerate(parts)]
    elif not all(stated) or not all(number.strip().isdecimal() for _, _, number in pairs):
        raise OptionError(f"--classes {one_line(text, 80)!r} mixes names and numbers; give cat,dog or cat=0,dog=1")
    names = [name.strip() for name, _, _ in pairs]
    if not names or len(set(names)) < len(names):
        raise OptionError(f"--classes {one_line(text, 80)!r} names nothing, or a class twice; give each name once")
    return tuple(f"{name}={int(number)}" for name, (_, _, number) in zip(names, pairs, strict=True))


def classes_of(names: Iterable[str], stated: Classes | None, what: str) -> dict[str, int]:
    """The class of each name: as stated, else the place of the name among the sorted ones.

    Raises:
        InputError: names that are numbers in another order than that, a name that is not stated.
    """
    found = sorted(set(names))
    if stated == (NUMERIC,):
        wrong = [name for name in found if not name.isdecimal()]
        if wrong:
            raise InputError(f"{what} has the class name {wrong[0]!r}, which is no number; leave out --classes {NUMERIC}")
        return {name: int(name) for name in found}
    if stated is not None and stated != (SORTED,):
        known = {name: int(number) for name, _, number in (part.rpartition("=") for part in stated)}
        missing = [name for name in found if name not in known]
        if missing:
            raise InputError(f"{what} has the class name {missing[0]!r}, which --classes does not name; add it")
        return known
    places = {name: i for i, name in enumerate(found)}
    if stated is None and all(name.isdecimal() for name in found) and any(int(name) != i for name, i in places.items()):
        name, i = next((name, i) for name, i in places.items() if int(name) != i)
        raise InputError(
            f"{what} names its classes by numbers, and {name!r} is number {i} in the order of the names; say with "
            f"--classes {NUMERIC} that {name!r} is class {int(name)}, or with --classes {SORTED} that it is class {i}"
        )
    return places


def class_numbers(y: Array, stated: Classes | None, what: str) -> tuple[Array, dict[str, int] | None]:
    """Labels as class numbers, `(N,)` int64, and the names' classes where they are names.

    Whole numbers of any type, one-hot rows, and names. With `stated` numbers are names too.

    Raises:
        InputError: what is none of these, a name that is not stated.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "fiub" and bool(np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
        y = y.argmax(axis=1)
    if y.ndim == 1 and y.dtype.kind in "fb":
        whole = y.astype(np.float64)
        if bool((whole == np.rint(whole)).all() and (np.abs(whole) < 2**53).all()):
            y = whole.astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "iuUS":
        raise InputError(
            f"{what} has shape {list(y.shape)}, type {y.dtype}; labels are one integer per image, a one-hot row, or a name"
        )
    if y.dtype.kind in "iu" and stated is None:
        return y.astype(np.int64), None
    names = _names(y)
    classes = classes_of(names, stated, what)
    return np.array([classes[name] for name in names], dtype=np.int64), classes


def _names(y: Array) -> Sequence[str]:
    values = y.tolist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value).strip() for value in values]
