"""Verifiers by name: one explicit dictionary. A name may be followed by a colon and what the tool needs to know."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxsub.errors import OptionError

if TYPE_CHECKING:
    from onnxsub.verifiers.engine import Engine
    from onnxsub.verifiers.external.tool import Tool

__all__ = ["VERIFIERS", "check_verifier", "engine_of", "external_tool"]

ENGINES: Mapping[str, str] = MappingProxyType({"bab": "onnxsub.verifiers.bab.engine", "milp": "onnxsub.verifiers.milp.engine"})
"""Our own engines: name to the module with its `ENGINE`."""

TOOLS: Mapping[str, str] = MappingProxyType(
    {
        "marabou": "onnxsub.verifiers.external.marabou:from_detail",
        "nnenum": "onnxsub.verifiers.external.command:nnenum_from_detail",
        "command": "onnxsub.verifiers.external.command:from_detail",
    }
)
"""The tools of other people: name to the function that makes the tool of what stands behind the colon."""

VERIFIERS = (*ENGINES, *TOOLS)
"""All names."""

_NEED_A_COMMAND = frozenset({"command", "nnenum"})


def check_verifier(spec: str) -> None:
    """Raises InputError unless `spec` is `bab`, `milp`, `marabou`, `marabou:PYTHON`, `command:"..."` or `nnenum:"..."`."""
    name, colon, detail = spec.partition(":")
    if name not in VERIFIERS:
        known = ", ".join(f'{n}:"..."' if n in _NEED_A_COMMAND else n for n in VERIFIERS)
        raise OptionError(f"--verifier {spec!r} is unknown; choose one of {known}")
    if name in _NEED_A_COMMAND and not detail.strip():
        raise OptionError(f'--verifier {name} needs the command to run; give for example {name}:"tool/run_instance.sh"')
    if colon and name in ENGINES:
        raise OptionError(f"--verifier {spec!r}: {name} takes nothing behind a colon; give --verifier {name}")


def engine_of(spec: str) -> Engine | None:
    """The engine of ours that `spec` names; None for a tool of other people.

    Raises:
        InputError: unknown.
    """
    check_verifier(spec)
    if spec not in ENGINES:
        return None
    engine: Engine = importlib.import_module(ENGINES[spec]).ENGINE
    return engine


def external_tool(spec: str) -> Tool | None:
    """The tool of other people that `spec` names; None for our own verifiers.

    Raises:
        InputError: unknown, or a command that cannot be split.
        MissingDependencyError: maraboupy is not installed and no interpreter is named.
    """
    check_verifier(spec)
    name, _, detail = spec.partition(":")
    if name not in TOOLS:
        return None
    module, _, function = TOOLS[name].partition(":")
    tool: Tool = getattr(importlib.import_module(module), function)(detail)
    return tool
