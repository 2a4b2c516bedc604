"""Processes that import nothing out of the working folder: a `torch.py` beside somebody's model is data, not a module.

`python -m` and `python -c` put the working folder first on the path of modules; `-P` and `PYTHONSAFEPATH` keep it out. This package
itself is found by where it lies, so that a worker is of the same version, without its folder on the path of everything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["leave_working_folder", "python_environment", "python_module", "python_path", "safe_children", "source_root"]

_SAFE = "PYTHONSAFEPATH"
_START = (
    "import sys; root, module = sys.argv[1:3]; sys.path.insert(0, root); import onnxsub; sys.path.remove(root); "
    "import runpy; runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def source_root() -> str:
    """Where this package was imported from: a worker must not find another one."""
    return str(Path(__file__).resolve().parents[1])


def python_module(module: str) -> list[str]:
    """The command that runs a module of this package in a process of its own."""
    return [sys.executable, "-P", "-c", _START, source_root(), module]


def python_path() -> dict[str, str]:
    """PYTHONPATH without empty entries, as `PYTHONPATH=$PYTHONPATH:folder` makes one: it would be the working folder."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))}


def python_environment() -> dict[str, str]:
    """What keeps the working folder out of the path of a Python process, and of those that it starts."""
    return {_SAFE: "1", **python_path()}


@contextmanager
def safe_children() -> Iterator[None]:
    """For the time of the block, processes that a library starts get that environment."""
    before = {name: os.environ.get(name) for name in (_SAFE, "PYTHONPATH")}
    os.environ.update(python_environment())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def leave_working_folder() -> None:
    """Takes the working folder off the path where `python -m` put it there; an entry of the user's own stays."""
    if sys.flags.safe_path or sys.flags.isolated or not sys.path:
        return
    own = {Path(entry).absolute() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    if Path(sys.path[0]).absolute() == Path.cwd() and Path.cwd() not in own:
        del sys.path[0]
