"""Types of option values that click does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.suggest import did_you_mean
from onnxsub.errors import InputError

if TYPE_CHECKING:
    _Numbers = click.ParamType[tuple[float, ...]]
    _Text = click.ParamType[str]
    _Names = click.ParamType[tuple[str, ...]]
    _Positions = click.ParamType[tuple[int, ...]]
    _Pair = click.ParamType[tuple[float, float] | str]
    _Number = click.ParamType[float | str]
    _Float = click.ParamType[float]
else:
    _Names = _Numbers = _Positions = _Text = _Pair = _Number = _Float = click.ParamType  # generic only in newer versions of click

__all__ = [
    "BudgetType", "DomainType", "Names", "Numbers", "PerFeature", "Positions", "RadiusType", "SeedType", "VerifierName",
    "numbers_in",
]  # fmt: skip


class SeedType(click.types.IntParamType):
    """A whole number that generators take. Where it is negative, those who take it say so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number >= 2**63:
            self.fail(f"{number} is too large; give a number below 2^63", param, ctx)
        return number


class BudgetType(_Float):
    """A radius: `0.3`, or a fraction like `8/255`."""

    name = "radius"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        above, _, below = str(value).partition("/")
        try:
            number = float(above) / float(below or "1")
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is no radius; give a number like 0.3, or a fraction like 8/255", param, ctx)
        if not (math.isfinite(number) and number >= 0):
            self.fail(f"{value!r} is no radius; give 0 for clean training, or a positive number", param, ctx)
        return number


class DomainType(_Pair):
    """`LO HI`, which the command joins by a comma, or the name of a file."""

    name = "domain"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float] | str:
        if isinstance(value, tuple):
            return float(value[0]), float(value[1])
        parts = str(value).split(",")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            if str(value).lower().endswith(".npy"):
                return str(value)
            self.fail(f"{value!r} is neither two numbers LO HI nor a .npy file", param, ctx)
        if len(numbers) != 2:
            self.fail(f"{value!r} is {len(numbers)} number{'s' * (len(numbers) > 1)}; give LO and HI", param, ctx)
        return numbers[0], numbers[1]


class Names(_Names):
    """One or several of some names, with commas between them; as a tuple."""

    name = "names"

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        found = value if isinstance(value, tuple) else tuple(part.strip() for part in str(value).split(",") if part.strip())
        for name in found:
            if name not in self.choices:
                known = ", ".join(map(repr, self.choices))
                self.fail(f"{name!r} is not one of {known}.{did_you_mean(name, self.choices)}", param, ctx)
        if not found:
            self.fail(f"it is empty; choose from {', '.join(self.choices)}", param, ctx)
        return found


class Numbers(_Numbers):
    """One or several numbers with commas between them; as a tuple."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no number, nor numbers with commas between them", param, ctx)
        return found


class RadiusType(_Number):
    """A number, or the name of a file."""

    name = "radius"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        try:
            return float(value)
        except ValueError:
            if str(value).lower().endswith(".npy"):
                return str(value)
            self.fail(f"{value!r} is neither a number nor a .npy file", param, ctx)


class PerFeature(_Numbers):
    """Numbers with commas between them, or the name of a `.npy` or `.csv` file that holds them; as a tuple.

    A file holds one row or column of numbers; a CSV file may have a header. What is of another shape is refused, since its order
    might be another one than that of the model's input: three axes here, two where they meet the input (`features.fill`).
    """

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        numbers = numbers_in(str(value))
        if numbers is not None:
            return numbers
        if not str(value).lower().endswith((".npy", ".csv")):
            self.fail(f"{value!r} is neither a list of numbers nor a .npy or .csv file", param, ctx)
        return _features_in(str(value), param.opts[0] if param is not None else "the option")


class Positions(_Positions):
    """A list of positions, `0,5,10-20`, as a tuple."""

    name = "positions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        from onnxsub.evaluate.samples import parse_indices

        if isinstance(value, tuple):
            return value
        try:
            return parse_indices(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class VerifierName(_Text):
    """A name of `onnxsub.verifiers.registry`."""

    name = "verifier"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from onnxsub.verifiers.registry import check_verifier

        try:
            check_verifier(value)
        except InputError as error:
            self.fail(f"{error}.{did_you_mean(str(value), ('bab', 'milp', 'marabou'))}", param, ctx)
        return str(value)


def numbers_in(text: str) -> tuple[float, ...] | None:
    """The numbers of a text with commas between them; None: it is none."""
    try:
        return tuple(float(part) for part in text.rstrip(",").split(","))
    except ValueError:
        return None


def _features_in(path: str, option: str) -> tuple[float, ...]:
    """The numbers in a file, in their order. Raises InputError."""
    import numpy as np

    from onnxsub.array_files import read_array
    from onnxsub.features import Shaped
    from onnxsub.tables import open_table

    what = f"{option} {path!r}"
    name = Path(path)
    table = open_table(name, what) if name.suffix.lower() == ".csv" and name.is_file() else None
    headed = table is not None and table.headed
    found = table.values(table.names, range(table.count)) if table is not None and headed else read_array(name, None, what)
    found = found.squeeze()
    if found.ndim > 2 or found.size == 0:
        raise InputError(
            f"{what} has shape {list(found.shape)}; give one number, one per channel, or all features in the order of the "
            "model's input, as a flat array"
        )
    return Shaped.of(np.atleast_1d(found), path)
