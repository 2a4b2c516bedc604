"""Options that nobody typed: those of a TOML file, and of environment variables.

The command line comes first, then `ONNXSUB_<COMMAND>_<OPTION>`, `ONNXSUB_<OPTION>` for the few options in `SHARED`, the command's
table in the file, the file's own keys, the default.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.suggest import did_you_mean
from onnxsub.documents import read_toml
from onnxsub.errors import InputError
from onnxsub.files import one_line

__all__ = ["FILE", "SHARED", "Untyped", "untyped"]

FILE = "onnxsub.toml"
"""Read where it lies in the working folder."""

SHARED = (
    "device", "engine", "jobs", "json", "memory", "nodes", "quiet", "seed", "solver", "threads", "timeout", "verbose", "verifier",
)  # fmt: skip
"""Options with a variable for all commands. No input is among them: `ONNXSUB_DATA` is where the tests find their networks."""

_INSTEAD = {"keep": ("gamma",), "gamma": ("keep",), "index": ("limit", "every"), "limit": ("index",), "every": ("index",)}
"""An option that is typed takes the place of these."""

_OWN = ("config", "help", "limits", "version")  # no file raises the limits of what it lies beside
_PRESENTATION = {"jobs", "json", "quiet", "verbose"}
"""How a command is shown, and how many samples run side by side: this turns no verdict and need not be told."""


@dataclass(frozen=True)
class Untyped:
    """Values that were not typed.

    Attributes:
        values: name of a parameter -> its value, as a text, or texts where it takes several, or a bool.
        told: where values come from that nobody asked for on this command line. They may turn a verdict, so that only a typed
            `--quiet` silences these notes: no file and no variable hides itself.
        notes: what else the user should know about where values come from; any `quiet` silences them.
    """

    values: dict[str, Any]
    told: tuple[str, ...]
    notes: tuple[str, ...]


def untyped(command: click.Command, ctx: click.Context, args: Sequence[str]) -> Untyped:
    """The values for a command that is about to be parsed.

    Raises:
        UsageError: a key that is no option, a value that it cannot have, a program to start in a file that nobody named.
        InputError: a file that cannot be read.
    """
    typed = {word.partition("=")[0] for word in _before_dashes(args)}
    skipped = {key for word in typed for key in (word[2:], *_INSTEAD.get(word[2:], ()))}
    options = {key: option for key, option in _options(command).items() if key not in skipped}
    path = ctx.command_path.split()[1:]
    prefix = "_".join(["ONNXSUB", *path]).upper().replace("-", "_") + "_"
    variables = _variables(options, prefix)
    values: dict[str, Any] = {}
    told: list[str] = []
    notes: list[str] = []
    file, named = _file(args)
    if file is not None:
        found = {key: value for key, value in _of_file(file, ctx, path, named=named).items() if key in options}
        for key, given in found.items():
            values[_name(options[key])] = _checked(options[key], given, ctx, f"{file}: {key}")
        replaced = {_name(options[key]) for key in variables}
        used = {key: value for key, value in found.items() if _name(options[key]) not in replaced}
        if used:
            asked_for = "--config" in typed or used.keys() <= _PRESENTATION
            texts = ", ".join(f"{key} = {one_line(value, 60)}" for key, value in used.items())
            (notes if asked_for else told).append(f"options from {file}: {texts}")
    for key, variable in variables.items():
        option, text = options[key], os.environ[variable]
        value: Any = text.replace(",", " ").split() if option.nargs > 1 else [text] if option.multiple else text
        values[_name(option)] = _checked(option, value, ctx, variable)
    texts = ", ".join(f"{v}={one_line(os.environ[v], 60)}" for key, v in variables.items() if key not in _PRESENTATION)
    if texts:
        told.append(f"options from the environment: {texts}")
    known = {prefix + _variable(key) for key in _options(command)}
    for variable in sorted(v for v in os.environ if v.startswith(prefix) and v not in known):
        near = did_you_mean(variable.removeprefix(prefix).replace("_", "-"), options)
        notes.append(f"{variable} names no option of {' '.join(path)} and is not used.{near}")
    return Untyped(values, tuple(told), tuple(notes))


def _variables(options: Mapping[str, click.Option], prefix: str) -> dict[str, str]:
    """Key -> the variable that is set for it, the command's own one first."""
    found = {}
    for key in options:
        names = (prefix + _variable(key), *(["ONNXSUB_" + _variable(key)] if key in SHARED else []))
        name = next((n for n in names if os.environ.get(n)), None)
        if name is not None:
            found[key] = name
    return found


def _before_dashes(args: Sequence[str]) -> list[str]:
    ours = list(args)
    return ours[: ours.index("--")] if "--" in ours else ours


def _file(args: Sequence[str]) -> tuple[Path | None, bool]:
    """The file to read, and whether the user named it."""
    ours = _before_dashes(args)
    named = os.environ.get("ONNXSUB_CONFIG")
    for i, word in enumerate(ours):
        if word == "--config" and i + 1 < len(ours):
            named = ours[i + 1]
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    if named is not None:
        return (Path(named), True) if named else (None, True)
    return (Path(FILE), False) if Path(FILE).is_file() else (None, False)


def _of_file(file: Path, ctx: click.Context, path: Sequence[str], *, named: bool) -> dict[str, Any]:
    """Key -> value for one command; the whole file is checked, so that a mistake is found whichever command is run."""
    try:
        document = read_toml(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(f"--config {str(file)!r} cannot be read: {why}; give a TOML file of options") from error
    root = ctx.find_root()
    found: dict[str, Any] = {}
    _walk(root.command, root, document, str(file), list(path), found)
    for key, value in found.items():
        programs = [v for v in (value if isinstance(value, list) else [value]) if key == "address" or ":" in str(v)]
        if not named and key in ("verifier", "address") and programs:
            what = f"{file}: {key} = {programs[0]!r} starts a program or reaches another machine"
            raise click.UsageError(
                f"{what}, which a file that nobody named may not; type --{key}, or name the file: --config {file}", ctx
            )
    return found


def _walk(
    command: click.Command, ctx: click.Context, table: Mapping[str, Any], where: str, path: list[str] | None, found: dict[str, Any]
) -> None:
    """Checks a table, and takes what is for the command at `path`; None: that is another one."""
    group = command if isinstance(command, click.Group) else None
    inner = {} if group is None else {name: group.get_command(ctx, name) for name in group.list_commands(ctx)}
    known = {key for one in _leaves(command, ctx) for key in _options(one)}
    for key, value in table.items():
        if isinstance(value, dict) and key in inner:
            continue
        option = key.replace("_", "-")
        if option not in known or isinstance(value, dict):
            near = did_you_mean(option, known | inner.keys())
            raise click.UsageError(f"{where} has {key!r}, which is no {'command' if isinstance(value, dict) else 'option'}.{near}")
        if path is not None:
            found[option] = value
    for name, one in inner.items():
        if one is not None and name in table:
            further = path[1:] if path and path[0] == name else None
            _walk(one, ctx, table[name], f"{where}, table {name}", further, found)


def _leaves(command: click.Command, ctx: click.Context) -> Iterator[click.Command]:
    if not isinstance(command, click.Group):
        yield command
        return
    for name in command.list_commands(ctx):
        inner = command.get_command(ctx, name)
        if inner is not None:
            yield from _leaves(inner, ctx)


def _options(command: click.Command) -> dict[str, click.Option]:
    """Long name without dashes -> option; an option of two long names has two."""
    found: dict[str, click.Option] = {}
    for option in command.params:
        if isinstance(option, click.Option):
            found |= {name[2:]: option for name in option.opts if name.startswith("--") and name[2:] not in _OWN}
    return found


def _checked(option: click.Option, value: Any, ctx: click.Context, where: str) -> Any:
    """A value as the command line would give it. Raises UsageError where the option cannot have it."""
    given = _given(option, value)
    try:
        if given is None:
            raise click.BadParameter(f"{one_line(value, 60)} is no value of it")
        option.type_cast_value(ctx, given)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.message}", ctx) from error
    return given


def _given(option: click.Option, value: Any) -> Any:
    """Texts, as if they were typed; flags as they are; None: it is nothing that an option takes."""
    if isinstance(value, dict) or (isinstance(value, bool) and not option.is_flag):
        return None
    if option.is_flag:
        return value if isinstance(value, bool | str) else None
    texts = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if option.multiple:
        return texts
    if option.nargs > 1:
        return texts if len(texts) == option.nargs else None
    return ",".join(texts)


def _name(option: click.Option) -> str:
    assert option.name is not None
    return option.name


def _variable(key: str) -> str:
    return key.upper().replace("-", "_")
