"""File layouts of a substitute: how it is written as an ordinary ONNX file. Adding one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from onnx import ModelProto

from onnxsub.layouts.compact import compact
from onnxsub.layouts.inplace import inplace
from onnxsub.model import Model
from onnxsub.network import Network

__all__ = ["LAYOUTS", "Layout"]

Layout = Callable[[Model, Network], ModelProto]
"""Writes a substituted network `g`, lowered from the model without normalisation, as a file with the model's input and output."""

LAYOUTS: Mapping[str, Layout] = MappingProxyType({"inplace": inplace, "compact": compact})
