"""Whether the program of a tool is there, asked before a run of many questions."""

from __future__ import annotations

import shlex
from pathlib import Path

from onnxsub.errors import MissingDependencyError
from onnxsub.isolation import python_environment
from onnxsub.verifiers.external.command import CommandTool
from onnxsub.verifiers.external.marabou import Marabou
from onnxsub.verifiers.external.process import run_child
from onnxsub.verifiers.external.tool import Tool

__all__ = ["check_interpreter", "program_of"]

_LIMIT = 60.0
_LOOK = "import importlib.util, sys; sys.exit(3 if importlib.util.find_spec('maraboupy') is None else 0)"


def program_of(tool: Tool) -> str | None:
    """What the tool starts first; None where that is not known."""
    if isinstance(tool, CommandTool):
        return shlex.split(tool.command)[0]
    return tool.python if isinstance(tool, Marabou) else None


def check_interpreter(tool: Tool) -> None:
    """Raises MissingDependencyError where the interpreter that Marabou is to run in has no maraboupy (which is not imported)."""
    if not isinstance(tool, Marabou):
        return
    try:
        # from the root: a file in the working folder must not stand for a module
        done = run_child([tool.python, "-c", _LOOK], cwd=Path("/"), limit=_LIMIT, env=python_environment())
    except OSError as error:
        raise MissingDependencyError(
            f"--verifier marabou: {tool.python!r} is no interpreter that can be started ({type(error).__name__}); "
            "name another one: --verifier marabou:PYTHON"
        ) from error
    if done.code == 3:
        raise MissingDependencyError(
            f"--verifier marabou: {tool.python!r} has no maraboupy; run `pip install maraboupy==2.0.0` there, "
            "or name another interpreter"
        )
    if done.code != 0:
        raise MissingDependencyError(
            f"--verifier marabou: {tool.python!r} is no Python interpreter (exit code {done.code}); name one: marabou:PYTHON"
        )
