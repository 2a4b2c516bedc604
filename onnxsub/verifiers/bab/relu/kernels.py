"""Which of two ways the loops over all inputs go: by torch at first, compiled once a process has had many of them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from torch import Tensor

__all__ = ["compiled"]

_PAYS = 2**29  # numbers that torch goes over (a second or two) before the compiled loops are fetched, which takes one


class _Loops:
    """What is known so far: numbers gone over, and the module, once it was fetched."""

    gone = 0
    module: ModuleType | None = None
    absent = importlib.util.find_spec("numba") is None


def compiled(like: Tensor, numbers: int) -> ModuleType | None:
    """The compiled loops (`compiled.py`), or None where torch serves: on a GPU, without numba, and for what ends soon.

    Args:
        like: lies where the numbers do.
        numbers: that are about to be gone over.
    """
    if like.device.type != "cpu" or _Loops.absent:
        return None
    if _Loops.module is None:
        _Loops.gone += numbers
        if _Loops.gone < _PAYS:
            return None
        try:
            _Loops.module = importlib.import_module("onnxsub.verifiers.bab.relu.compiled")
        except ImportError:  # a numba that does not go with the numpy that is installed
            _Loops.absent = True
    return _Loops.module
