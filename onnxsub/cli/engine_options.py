"""The options of commands that have units of work: how many side by side, and where."""

from __future__ import annotations

from collections.abc import Callable

import click

from onnxsub.cli.options import Function

__all__ = ["engine_options"]

_ENGINES = click.Choice(["processes", "ray"])


def engine_options(units: str) -> Callable[[Function], Function]:
    """`--jobs`, `--engine` and `--address` of a command.

    Args:
        units: what is done side by side, in the words of the help.
    """

    def apply(function: Function) -> Function:
        for option in (
            click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster.  [default: a local one]"),
            click.option("--engine", type=_ENGINES, default="processes", show_default=True, help="Who does them."),
            click.option("--jobs", type=int, default=1, show_default=True, metavar="N", help=f"{units} side by side."),
        ):
            function = option(function)
        return function

    return apply
