"""Which of two ways long loops go: by torch at first, compiled once a process has had many of them.

Nothing can stop a compiler or an import halfway, so neither is begun where the budget at work has less time left than they take:
torch goes on then. Both ways give sound bounds of the same problem, so what is proved does not hang on the choice.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Hashable
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import Tensor

from onnxsub.budget import time_left

__all__ = ["compiled"]

_PAYS = 2**29  # numbers that torch goes over (a second or two) before the compiled loops are fetched

_FRESH, _STORED = 3.0, 0.8
"""Seconds of one core that the first use of a loop takes, numba's import included: compiled anew (1.3 to 2.9, the zonotopes of four
layers take most), and with its machine code in numba's cache (0.7 to 0.8)."""

_CUTS = "onnxsub.verifiers.bab.relu.compiled"


class _Loops:
    """What is known so far: numbers gone over, the modules that were fetched, by name, and which of their loops were begun with."""

    gone = 0
    modules: ClassVar[dict[str, ModuleType]] = {}
    stored: ClassVar[dict[str, bool]] = {}
    ready: ClassVar[set[tuple[str, Hashable]]] = set()
    absent = importlib.util.find_spec("numba") is None


def compiled(like: Tensor, numbers: int, name: str = _CUTS, kind: Hashable = None) -> ModuleType | None:
    """The compiled loops, or None where torch serves: on a GPU, without numba, for what ends soon, or with little time left.

    Args:
        like: lies where the numbers do.
        numbers: that are about to be gone over.
        name: the module that has the loops.
        kind: what its loops are compiled for anew: types, or how many layers there are.
    """
    if like.device.type != "cpu" or _Loops.absent:
        return None
    if (name, kind) not in _Loops.ready:
        _Loops.gone += numbers
        if _Loops.gone < _PAYS or not _begins(name):
            return None
        _Loops.ready.add((name, kind))
    return _Loops.modules[name]


def _begins(name: str) -> bool:
    """Whether the loops of a module can be begun with, in the time that is left."""
    left = time_left()
    if left < _STORED:
        return False
    if name not in _Loops.modules:
        try:
            _Loops.modules[name] = importlib.import_module(name)
        except ImportError:  # a numba that does not go with the numpy that is installed
            _Loops.absent = True
            return False
    return left >= _FRESH or _stored(name)


def _stored(name: str) -> bool:
    """Whether numba's cache has machine code of all loops of a module, made after its source was written."""
    if name not in _Loops.stored:
        module = _Loops.modules[name]
        loops = [f for f in vars(module).values() if hasattr(f, "stats") and f.__module__ == name]
        _Loops.stored[name] = all(_is_stored(f.stats.cache_path, f.__name__, Path(str(module.__file__))) for f in loops)
    return _Loops.stored[name]


def _is_stored(folder: str | None, function: str, source: Path) -> bool:
    if folder is None:  # there is no place for it
        return False
    try:
        written = source.stat().st_mtime
        pattern = f"{source.stem}.{function}-*.py{sys.version_info[0]}{sys.version_info[1]}*.nbi"
        return any(found.stat().st_mtime >= written for found in Path(folder).glob(pattern))
    except OSError:
        return False
