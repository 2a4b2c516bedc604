"""Values to stand beside the distances of a run: published ones, or those of another tool, out of a CSV file."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxsub.documents import read_text
from onnxsub.errors import InputError
from onnxsub.evaluate.received import check_kept, keep_file
from onnxsub.evaluate.samples import parse_indices
from onnxsub.files import one_line

__all__ = ["REFERENCE", "keep_reference", "kept_reference", "read_reference"]

REFERENCE = "reference.csv"
"""In a run folder: the values that `onnxsub evaluate --reference` was given."""

_NAMES = {
    "sample": ("sample", "index"),
    "value": ("value", "distance", "d_bnd"),
    "network": ("network", "model"),
}
_MEANT = "give the columns sample (position in the data) and value, with several networks also network"


def read_reference(path: str | os.PathLike[str], models: Sequence[str], index: Sequence[int]) -> dict[tuple[str, int], float]:
    """(network, sample) -> value.

    The file has a line per value, and a first line that names its columns: `sample` (or `index`), `value` (or `distance`, `d_bnd`)
    and, where the run has several networks, `network` (or `model`); further columns are left alone. A file of two columns may leave
    that line out: sample, value. An empty value is no value.

    Args:
        models: names of the run's networks. index: its samples.

    Raises:
        InputError: unreadable, a column that is missing, a line that is not understood or says something twice, a value that is no
            distance, an unknown network, or no sample of the run.
    """
    name = repr(os.fspath(path))
    try:
        text = read_text(path, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"--reference {name} cannot be read: {one_line(error)}; give a CSV file") from error
    try:
        lines = [
            (number, [cell.strip() for cell in row]) for number, row in enumerate(csv.reader(io.StringIO(text)), 1) if any(row)
        ]
    except csv.Error as error:
        raise InputError(f"--reference {name} is no CSV file: {one_line(error)}; {_MEANT}") from error
    if not lines:
        raise InputError(f"--reference {name} is empty; {_MEANT}")
    columns, lines = _columns(name, lines)
    if "network" not in columns and len(models) > 1:
        raise InputError(f"--reference {name} does not say which of the {len(models)} networks it is about; add a column network")
    found: dict[tuple[str, int], float] = {}
    for number, cells in lines:
        where = f"--reference {name}, line {number}"
        if len(cells) <= max(columns.values()):
            raise InputError(f"{where} has {len(cells)} columns; {_MEANT}")
        model = cells[columns["network"]] if "network" in columns else models[0]
        if model not in models:
            raise InputError(f"{where} names the network {model!r}; those of the run are {', '.join(map(repr, models))}")
        sample, text = cells[columns["sample"]], cells[columns["value"]]
        if not text:
            continue
        key = (model, _whole(where, sample))
        if key in found:
            raise InputError(f"{where} names sample {sample} a second time; give each sample once")
        found[key] = _distance(where, text)
    wanted = set(index)
    inside = {key: value for key, value in found.items() if key[1] in wanted}
    if not inside:
        raise InputError(f"--reference {name} has no value of a sample of this run; samples are positions in the data, from 0")
    return inside


def keep_reference(values: Mapping[tuple[str, int], float], folder: Path) -> None:
    """Writes them into a run folder, all of them or nothing, so that later reports have them. Raises OutputError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("network", "sample", "value"))
    writer.writerows((model, sample, value) for (model, sample), value in values.items())
    keep_file(folder / REFERENCE, text.getvalue().encode())


def kept_reference(folder: Path, plan: Mapping[str, Any], given: str | None = None) -> dict[tuple[str, int], float]:
    """The values of a file that is given, else those that a run folder keeps; empty where there are none. Raises InputError."""
    path = folder / REFERENCE if given is None else Path(given)
    if given is None and not path.is_file():
        return {}
    if given is None:
        check_kept(path)
    return read_reference(path, [m["name"] for m in plan["model"]], parse_indices(plan["data"]["index"]))


def _columns(name: str, lines: list[tuple[int, list[str]]]) -> tuple[dict[str, int], list[tuple[int, list[str]]]]:
    """Which column is what, and the lines that hold values."""
    first = lines[0][1]
    if len(first) == 2 and _is_number(first[0]):
        return {"sample": 0, "value": 1}, lines
    heads = [head.lower() for head in first]
    found: dict[str, int] = {}
    for what, names in _NAMES.items():
        at = [i for i, head in enumerate(heads) if head in names]
        if len(at) > 1:
            raise InputError(f"--reference {name} has two columns of one meaning, {first[at[0]]!r} and {first[at[1]]!r}; keep one")
        if at:
            found[what] = at[0]
        elif what != "network":
            raise InputError(f"--reference {name} has no column {what!r}, only {', '.join(map(repr, first))}; {_MEANT}")
    return found, lines[1:]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _whole(where: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: {text!r} is no position in the data; give a whole number from 0") from None


def _distance(where: str, text: str) -> float:
    value = float(text) if _is_number(text) else math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where}: {text!r} is no distance; give a number from 0, or nothing where there is none")
    return value
