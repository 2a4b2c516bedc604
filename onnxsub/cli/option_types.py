"""Types of option values that click does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxsub.errors import InputError

if TYPE_CHECKING:
    _Numbers = click.ParamType[tuple[float, ...]]
    _Text = click.ParamType[str]
    _Pair = click.ParamType[tuple[float, float] | str]
    _Number = click.ParamType[float | str]
else:
    _Numbers = _Text = _Pair = _Number = click.ParamType  # generic only in newer versions of click

__all__ = ["DomainType", "RadiusType", "Several", "VerifierName", "numbers_in"]


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


class Several(_Numbers):
    """Numbers with commas between them, as a tuple."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        numbers = numbers_in(value)
        if numbers is None:
            self.fail(f"{value!r} is not a list of numbers", param, ctx)
        return numbers


class VerifierName(_Text):
    """A name of `onnxsub.verifiers.registry`."""

    name = "verifier"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from onnxsub.verifiers.registry import check_verifier

        try:
            check_verifier(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return str(value)


def numbers_in(text: str) -> tuple[float, ...] | None:
    """The numbers of a text with commas between them; None: it is none."""
    try:
        return tuple(float(part) for part in text.rstrip(",").split(","))
    except ValueError:
        return None
