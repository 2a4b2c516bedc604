"""Commands whose run is a folder: the options of how it is done, and whether it is begun or gone on with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxsub.cli.command import typed
from onnxsub.cli.engine_options import engine_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Function
from onnxsub.cli.output import Output

if TYPE_CHECKING:
    from onnxsub.evaluate.drive import RunOptions

__all__ = ["new_or_open", "run_ended", "run_options"]

P = TypeVar("P")

_ODD = {"property_": "property", "value_range": "range"}  # options whose names Python or a help text cannot have


def run_options(units: str, unit: str) -> Callable[[Function], Function]:
    """Who does the units of a run, their hard limit, and what is done again; the function gets them as `how: RunOptions`.

    Args:
        units, unit: what is done side by side, and one of them, in the words of the help.
    """

    def apply(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(
            *, jobs: int, engine: str, address: str | None, kill_after: float | None, retry_failed: bool, allow_commands: bool,
            **kwargs: Any,
        ) -> Any:  # fmt: skip
            from onnxsub.evaluate.drive import RunOptions

            return function(how=RunOptions(jobs, engine, address, kill_after, retry_failed, allow_commands), **kwargs)

        found = wrapper
        for option in (
            click.option(
                "--allow-commands", is_flag=True, help="The folder's run.toml may name programs to start: it is your own."
            ),
            click.option("--retry-failed", is_flag=True, help=f"Do {units.lower()} again that had failed or were altered."),
            click.option("--kill-after", type=float, metavar="S", help=f"Hard limit of {unit}.  [default: 2 x --timeout + 60]"),
        ):
            found = option(found)
        return engine_options(units)(found)

    return apply


def new_or_open(
    models: tuple[str, ...],
    folder: str,
    given: Mapping[str, Any],
    make: Callable[[tuple[str, ...], Mapping[str, Any]], P],
    reopen: Callable[..., P],
    how: RunOptions,
) -> P:
    """The plan of a new run of some models, or that of a folder which is gone on with.

    Args:
        given: options that say what a new run is.

    Raises:
        click.UsageError: one of these was typed about a run that is only gone on with.
    """
    if models:
        return make(models, given)
    found = sorted(filter(typed, given))
    if found:
        option = _ODD.get(found[0], found[0].replace("_", "-"))
        raise click.UsageError(f"--{option} is about a new run; name its models too, or go on with {folder!r} by --run alone")
    return reopen(Path(folder), allow_commands=how.allow_commands)


def run_ended(out: Output, failures: Mapping[str, int], interrupted: bool, meaning: str = "") -> int | None:
    """Tells what failed, and the exit code where Ctrl-C ended the run.

    Args:
        meaning: what becomes of a failed unit.
    """
    for reason, count in failures.items():
        out.note(f"{count} failed{meaning}: {reason}")
    if not interrupted:
        return None
    out.note("interrupted; the same command goes on with the run")
    return Exit.INTERRUPTED
