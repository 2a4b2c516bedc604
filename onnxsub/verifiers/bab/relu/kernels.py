"""Which of two ways long loops go: by torch at first, compiled once a process has had many of them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import ClassVar

from torch import Tensor

__all__ = ["compiled"]

_PAYS = 2**29  # numbers that torch goes over (a second or two) before the compiled loops are fetched, which takes one


_CUTS = "onnxsub.verifiers.bab.relu.compiled"


class _Loops:
    """What is known so far: numbers gone over, and the modules that were fetched, by name."""

    gone = 0
    modules: ClassVar[dict[str, ModuleType]] = {}
    absent = importlib.util.find_spec("numba") is None


def compiled(like: Tensor, numbers: int, name: str = _CUTS) -> ModuleType | None:
    """The compiled loops, or None where torch serves: on a GPU, without numba, and for what ends soon.

    Args:
        like: lies where the numbers do.
        numbers: that are about to be gone over.
        name: the module that has the loops.
    """
    if like.device.type != "cpu" or _Loops.absent:
        return None
    if name not in _Loops.modules:
        _Loops.gone += numbers
        if _Loops.gone < _PAYS:
            return None
        try:
            _Loops.modules[name] = importlib.import_module(name)
        except ImportError:  # a numba that does not go with the numpy that is installed
            _Loops.absent = True
            return None
    return _Loops.modules[name]
