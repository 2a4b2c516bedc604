"""File layouts of a substitute: how it is written as an ordinary ONNX file. Adding one is one file and one entry here.

The modules behind the entries are imported when a layout is asked for: `onnxsub info` reads the provenance of a file without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from onnx import ModelProto

from onnxsub.budget import Budget
from onnxsub.layouts.context import LayoutContext, PrecisionError
from onnxsub.model import Model
from onnxsub.network import Network

__all__ = ["LAYOUTS", "Layout", "LayoutContext", "PrecisionError"]


class Layout(Protocol):
    """Writes a substituted network `g`, lowered from the model without normalisation, as a file with the model's input and output.

    Raises:
        OutOfTime: the budget ended.
    """

    def __call__(
        self, model: Model, network: Network, context: LayoutContext, *, budget: Budget | None = None
    ) -> ModelProto:
        """The file."""


def _inplace(model: Model, network: Network, context: LayoutContext, *, budget: Budget | None = None) -> ModelProto:
    from onnxsub.layouts.inplace import inplace

    return inplace(model, network, budget=budget)


def _compact(model: Model, network: Network, context: LayoutContext, *, budget: Budget | None = None) -> ModelProto:
    from onnxsub.layouts.compact import compact

    return compact(model, network, budget=budget)


def _chain(model: Model, network: Network, context: LayoutContext, *, budget: Budget | None = None) -> ModelProto:
    from onnxsub.layouts.chain import chain

    return chain(model, network, context, budget=budget)


LAYOUTS: Mapping[str, Layout] = MappingProxyType({"inplace": _inplace, "compact": _compact, "chain": _chain})
