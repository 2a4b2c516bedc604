"""What a user may have meant: the nearest of the known words, for commands, values and names in files."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import click

__all__ = ["SuggestingGroup", "did_you_mean", "with_suggestions"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known word is near."""
    near = get_close_matches(word.lower(), list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


class SuggestingGroup(click.Group):
    """Names the nearest command for one that it does not have."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] in known or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        raise click.UsageError(f"No such command {args[0]!r}.{did_you_mean(args[0], known)}", ctx)


def with_suggestions(kind: click.ParamType[Any]) -> click.ParamType[Any]:
    """The same type, which names the nearest value for a wrong one where there are only a few right ones."""
    if type(kind) is click.Choice:
        return _Choice(kind.choices, kind.case_sensitive)
    return kind


class _Choice(click.Choice):  # type: ignore[type-arg]  # generic only in newer versions of click
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = did_you_mean(str(value), self.choices)
            raise click.BadParameter(f"{error.message.rstrip('.')}.{near}", ctx, param) from error
