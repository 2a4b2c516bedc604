"""What every command is: options from files and variables, suggestions, what is shown while it works."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.config import untyped
from onnxsub.cli.option_types import DomainType, numbers_in
from onnxsub.cli.suggest import with_suggestions
from onnxsub.cli.waiting import shown
from onnxsub.errors import OptionError
from onnxsub.limits import VARIABLE, parse_limits
from onnxsub.process import apart

__all__ = ["Command", "Session", "typed"]

_TOLD = "onnxsub.told"  # of a context: what is said before the command begins, unless `--quiet` is typed
_NOTES = "onnxsub.notes"  # and unless it is quiet for any reason


@dataclass
class Session:
    """What must be known when a command has failed and its options are gone."""

    verbose: bool = False


class Command(click.Command):
    """A command whose `--mean` and `--std` take as many numbers as follow: `--mean 0.485 0.456 0.406`, or with commas.

    So does `--domain` where it may be a file as well: then it takes two numbers, or one name.
    """

    several = ("--mean", "--std")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": {"max_content_width": 100}, **kwargs})
        self.params.append(
            click.Option(["--config"], metavar="FILE", expose_value=False, help="TOML file of options.  [default: onnxsub.toml]")
        )
        self.params.append(
            click.Option(
                ["--limits"], metavar="NAME=N,..", expose_value=False, is_eager=True, callback=_limits,
                help="Raise a budget of reading for files that are trusted (docs/limits.md).",
            )
        )  # fmt: skip
        for parameter in self.params:
            parameter.type = with_suggestions(parameter.type)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command, and shows what it does while it works; what libraries print meanwhile goes to standard error."""
        quiet = bool(ctx.params.get("quiet"))
        _refuse_own_input(self, ctx.params)
        with apart(), shown(quiet=quiet, verbose=bool(ctx.params.get("verbose"))) as display:
            told = () if typed("quiet") else ctx.meta.get(_TOLD, ())
            for note in (*told, *(() if quiet else ctx.meta.get(_NOTES, ()))):
                display.say(f"note: {note}")
            with apart():
                return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts numbers that follow each other together; adds the options that nobody typed."""
        if not ctx.resilient_parsing and not {"--help", "-h"} & set(args):
            found = untyped(self, ctx, args)
            ctx.default_map = {**(ctx.default_map or {}), **found.values}
            ctx.meta[_TOLD], ctx.meta[_NOTES] = found.told, found.notes
        try:
            return super().parse_args(ctx, self._joined(args))
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def _joined(self, args: list[str]) -> list[str]:
        joined: list[str] = []
        rest = list(args)
        while rest:
            joined.append(rest.pop(0))
            if joined[-1] == "--":
                break
            most = 2 if joined[-1] == "--domain" and self._domain_is_joined else 10**6 if joined[-1] in self.several else 0
            if most:
                values: list[str] = []
                while rest and len(values) < most and numbers_in(rest[0]) is not None:
                    values.append(rest.pop(0))
                if values:
                    joined.append(",".join(values))
        return joined + rest

    @property
    def _domain_is_joined(self) -> bool:
        return any(isinstance(parameter.type, DomainType) for parameter in self.params)


def _limits(context: click.Context, _: click.Parameter, value: str | None) -> str | None:
    """Sets the variable, so that workers and helpers have the same limits."""
    if value:
        parse_limits(value)
        os.environ[VARIABLE] = value
    return value


_WRITTEN = frozenset({"--badge", "--junit", "--markdown", "--sarif"})
"""Options beside `-o` that name a file to write."""


def _refuse_own_input(command: click.Command, given: dict[str, Any]) -> None:
    """Raises OptionError where an output is a file that the command reads, or one file is to be two outputs."""
    outputs: dict[str, str] = {}
    for p in command.params:
        if isinstance(p, click.Option) and p.name and ("-o" in p.opts or _WRITTEN & set(p.opts)):
            outputs[p.name] = "-o" if "-o" in p.opts else p.opts[0]
    read = [path for name, value in given.items() if name not in outputs for path in _paths(value) if Path(path).is_file()]
    seen: dict[str, str] = {}
    for name, option in outputs.items():
        target = given.get(name)
        if not isinstance(target, str):
            continue
        if Path(target).is_file() and any(Path(path).samefile(target) for path in read):
            raise OptionError(f"{option} {target!r} is a file that is read here; give another name")
        other = seen.setdefault(os.path.realpath(target), option)
        if other != option:
            raise OptionError(f"{other} and {option} name one file, {target!r}; give each a name of its own")


def _paths(value: Any) -> tuple[str, ...]:
    """The texts of an option's value that may be names of files."""
    values = value if isinstance(value, tuple) else (value,)
    return tuple(v for v in (*values, getattr(value, "source", None)) if isinstance(v, str))


def typed(name: str) -> bool:
    """Whether the option of that name in the function was typed: not from a file, a variable or a default."""
    context = click.get_current_context()
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
