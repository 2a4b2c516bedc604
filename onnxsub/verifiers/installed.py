"""Whether verifiers, their solver and their programs are there, asked before the work begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from onnxsub.errors import MissingDependencyError
from onnxsub.verifiers.external.installed import check_interpreter, program_of
from onnxsub.verifiers.programs.solvers import get_solver
from onnxsub.verifiers.registry import external_tool

__all__ = ["check_engines"]


def check_engines(verifiers: Iterable[str], solver: str, *, here: bool = True) -> None:
    """Whether the verifiers and their solver can be started.

    Args:
        here: the units are done on this machine; else its programs need not be here.

    Raises:
        InputError: unknown.
        MissingDependencyError: a solver or a package is not installed, or a program does not exist.
    """
    for spec in verifiers:
        if not here:
            continue
        tool = external_tool(spec)
        if tool is None:
            get_solver(solver)
            continue
        program = program_of(tool)
        if program is not None and not _exists(program):
            raise MissingDependencyError(
                f"--verifier {spec}: there is no program {program!r} that can be started; install it, or give its path"
            )
        check_interpreter(tool)


def _exists(program: str) -> bool:
    """Whether a program of that name can be started; one with a slash in it counts from the working folder."""
    if "/" in program:
        return Path(program).is_file() and os.access(program, os.X_OK)
    return shutil.which(program) is not None
