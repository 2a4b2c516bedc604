"""What every unit of a run would fail on, found out before the first one: then there is no run folder to be repaired."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from onnxsub.errors import MissingDependencyError
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import check_method
from onnxsub.query import Query, analysis_network
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.external.installed import check_interpreter, program_of
from onnxsub.verifiers.programs.solvers import get_solver
from onnxsub.verifiers.registry import external_tool

__all__ = ["check_engines", "check_substitute", "probe"]


def probe(model: Model, space: InputSpace) -> Query:
    """A question about the middle of the domain, whatever the model says there: for checks that do not depend on the sample.

    Raises:
        UnsupportedOperatorError: an operator of the model is not in the table.
        InputError: normalisation that does not fit the model's input.
        ModelError: onnxruntime does not accept the model.
    """
    space.check_fed(model.input_dtype)
    network = analysis_network(model, space)
    middle = np.full(model.input_shape, space.lower + (space.upper - space.lower) / 2)
    return Query(model, space, np.ascontiguousarray(space.inside(middle)), 0, 0, network, Runtime(model, threads=1))


def check_engines(verifiers: Iterable[str], solver: str, *, here: bool) -> None:
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


def check_substitute(network: Network, method: str, select: SelectOptions) -> None:
    """Raises InputError where no substitute of this kind exists, whatever the sample."""
    check_method(network, method)
    select.pruned_of(network.units)


def _exists(program: str) -> bool:
    """Whether a program of that name can be started; one with a slash in it counts from the working folder."""
    if "/" in program:
        return Path(program).is_file() and os.access(program, os.X_OK)
    return shutil.which(program) is not None
