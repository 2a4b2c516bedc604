"""torch, imported on first use.

Importing torch takes longer than `onnxsub --help` or `onnxsub info` may take, and reading a model needs none of it. Modules on
that path write

    if TYPE_CHECKING:
        import torch
    else:
        from onnxsub.lazy import torch
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["torch"]


class _LazyModule:
    """A stand-in that imports its module at the first attribute access, and keeps what it was asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        # kept, since operators ask thousands of times per second
        setattr(self, attribute, value)
        return value


torch = _LazyModule("torch")
