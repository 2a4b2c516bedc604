"""`onnxsub.evaluate` is a package and a call: `onnxsub.evaluate(...)` and `import onnxsub.evaluate.run` both work, in any order.

The import system makes every imported package an attribute of the package that it lies in. The class here, which `onnxsub` has,
gives each of the named ones the class `CallableModule` when that happens.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

__all__ = ["CALLS", "CallableModule", "Package"]

CALLS: Mapping[str, str] = {
    "evaluate": "onnxsub.api.runs:evaluate",
    "gate": "onnxsub.api.gated:gate",
    "report": "onnxsub.api.runs:report",
}
"""Name of a package -> the call that it stands for."""


class CallableModule(ModuleType):
    """A module that passes calls on."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        module, _, name = CALLS[self.__name__.rpartition(".")[2]].partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__wrapped__)


class Package(ModuleType):
    """The class of the package `onnxsub`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLS and type(value) is ModuleType and value is sys.modules.get(f"{self.__name__}.{name}"):
            value.__class__ = CallableModule
        super().__setattr__(name, value)
