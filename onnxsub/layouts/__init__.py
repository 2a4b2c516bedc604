"""File layouts of a substitute: how it is written as an ordinary ONNX file. Adding one is one file and one entry here.

The modules behind the entries are imported when a layout is asked for: `onnxsub info` reads the provenance of a file without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from onnx import ModelProto

from onnxsub.layouts.context import LayoutContext
from onnxsub.model import Model
from onnxsub.network import Network

__all__ = ["LAYOUTS", "Layout", "LayoutContext"]

Layout = Callable[[Model, Network, LayoutContext], ModelProto]
"""Writes a substituted network `g`, lowered from the model without normalisation, as a file with the model's input and output."""


def _inplace(model: Model, network: Network, context: LayoutContext) -> ModelProto:
    from onnxsub.layouts.inplace import inplace

    return inplace(model, network)


def _compact(model: Model, network: Network, context: LayoutContext) -> ModelProto:
    from onnxsub.layouts.compact import compact

    return compact(model, network)


def _chain(model: Model, network: Network, context: LayoutContext) -> ModelProto:
    from onnxsub.layouts.chain import chain

    return chain(model, network, context)


LAYOUTS: Mapping[str, Layout] = MappingProxyType({"inplace": _inplace, "compact": _compact, "chain": _chain})
