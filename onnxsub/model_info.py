"""What a model holds, and what of it is not supported: the `info` command. Reads the file only: no torch, no onnxruntime."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower_nodes, unsupported
from onnxsub.model import Model, load_model
from onnxsub.ops import READERS
from onnxsub.ops.base import Activation, Operator, Shape
from onnxsub.ops.moved_batch import sample_of
from onnxsub.ops.node import Node
from onnxsub.ops.windows import Windows
from onnxsub.provenance import Provenance, read_provenance
from onnxsub.results import VERSION
from onnxsub.shown import Shown

__all__ = ["ActivationInfo", "InfoResult", "Limit", "info"]


@dataclass(frozen=True)
class ActivationInfo:
    """One activation: its node, operator type, per-sample shape and number of units."""

    name: str
    operator: str
    shape: Shape
    units: int


@dataclass(frozen=True)
class WindowInfo:
    """One operator with windows (MaxPool, ReduceMax, Max of tensors, ...): its node, type, per-sample shape, number of windows."""

    name: str
    operator: str
    shape: Shape
    windows: int


@dataclass(frozen=True)
class Limit:
    """A meaning that an operator of the model lacks (`interval`, `linear` or `milp`), and why. Everything else works."""

    operator: str
    node: str
    meaning: str
    reason: str


@dataclass(frozen=True, repr=False)
class InfoResult(Shown):
    """What `info` says.

    Attributes:
        model: the file.
        operators: how often each operator type occurs, as prepared (constants folded, a trailing softmax left out).
        activations: in topological order.
        parameters: number of float constants that the nodes read.
        unsupported: what the operator table lacks, one line per node; empty for a model that every command takes.
        limits: meanings that single operators lack.
        time_s: seconds in all.
        provenance: where a substitute comes from; None for other models.
        windowed: operators with windows, which are pruned like units, in topological order.
    """

    model: Model
    operators: Mapping[str, int]
    activations: tuple[ActivationInfo, ...]
    parameters: int
    unsupported: tuple[str, ...]
    limits: tuple[Limit, ...]
    time_s: float
    provenance: Provenance | None = None
    windowed: tuple[WindowInfo, ...] = ()

    @property
    def line(self) -> str:
        shape = "x".join(map(str, self.model.input_shape))
        state = "supported" if not self.unsupported else f"{len(self.unsupported)} operators unsupported"
        return f"{shape} -> {self.classes} classes, {self.units:,} units, {self.parameters:,} parameters, {state}"

    @property
    def units(self) -> int:
        return sum(a.units for a in self.activations)

    @property
    def windows(self) -> int:
        return sum(w.windows for w in self.windowed)

    @property
    def classes(self) -> int:
        """Number of classes; a single logit is two."""
        return max(2, self.model.outputs)

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.info/1`."""
        m = self.model
        return {
            "schema": "onnxsub.info/1",
            "version": VERSION,
            "model": {"path": None if m.path is None else str(m.path), "sha256": m.sha256},
            "opset": m.opset,
            "ir_version": m.source.ir_version,
            "producer": " ".join(p for p in (m.source.producer_name, m.source.producer_version) if p),
            "input": {
                "name": m.input,
                "shape": list(m.input_shape),
                "dtype": str(m.feed.dtype),
                "batch": "fixed" if m.batch_fixed else "dynamic",
            },
            "output": {"name": m.own_output, "logits": m.output, "classes": self.classes},
            "operators": dict(self.operators),
            "activations": [
                {"name": a.name, "operator": a.operator, "shape": list(a.shape), "units": a.units} for a in self.activations
            ],
            "units": self.units,
            "windowed": [
                {"name": w.name, "operator": w.operator, "shape": list(w.shape), "windows": w.windows} for w in self.windowed
            ],
            "windows": self.windows,
            "parameters": self.parameters,
            "unsupported": list(self.unsupported),
            "limits": [{"operator": x.operator, "node": x.node, "meaning": x.meaning, "reason": x.reason} for x in self.limits],
            "notes": list(m.notes),
            "metadata": dict(m.metadata),
            "substitute": None if self.provenance is None else self.provenance.to_json(),
            "time_s": {"total": self.time_s},
        }


def info(model: Model | str | os.PathLike[str]) -> InfoResult:
    """What `model` (loaded, or the path of an `.onnx` file) holds.

    An operator that is not supported is listed, not raised.

    Raises:
        ModelError: the file cannot be read as a classifier at all.
    """
    start = time.perf_counter()
    if not isinstance(model, Model):
        model = load_model(model)
    # behind an operator that ONNX does not know there are no shapes: what stands there cannot be judged, the rest one by one
    known = tuple(n for n in model.nodes if n.op_type not in READERS or _shaped(n))
    hidden = len(model.nodes) - len(known)
    refused: tuple[str, ...] = ()
    if hidden:
        refused = tuple(line for node in known for line in unsupported((node,), _written(node)))
        refused += (f"{hidden} nodes behind that cannot be judged: their shapes are unknown",)
    else:
        try:
            ops = lower_nodes(model.nodes, model.input, model.input_shape, model.output).ops
        except UnsupportedOperatorError:
            refused = unsupported(known, model.output)
            if not refused:
                raise
    if refused:  # what can be said of the others, one by one
        ops = tuple(op for node in known for op in (_single(node) or _several(node)))
    constants = {name: value.size for node in model.nodes for name, value in node.constants.items() if _is_float(value)}
    return InfoResult(
        model=model,
        operators=dict(sorted(Counter(n.op_type for n in model.nodes).items())),
        activations=tuple(
            ActivationInfo(op.node, op.op_type, op.out_shape, op.out_size)
            for op in ops
            if isinstance(op, Activation) and not op.inner
        ),
        parameters=sum(constants.values()),
        unsupported=refused,
        limits=tuple(dict.fromkeys(Limit(op.op_type, op.node, m, why) for op in ops for m, why in op.unsupported.items())),
        time_s=time.perf_counter() - start,
        provenance=read_provenance(model),
        windowed=tuple(
            WindowInfo(op.node, op.op_type, op.out_shape, op.out_size)
            for op in ops
            if isinstance(op, Windows)
        ),
    )


def _single(node: Node) -> tuple[Operator, ...]:
    """The operators of a node that reads one tensor, as every activation and every MaxPool does; () for any other and for
    one that is refused."""
    if len(node.variables) != 1 or node.op_type not in READERS:
        return ()
    source = node.variables[0]
    try:
        return lower_nodes((node,), source, sample_of(node.shapes[source]), _written(node)).ops
    except UnsupportedOperatorError:
        return ()


def _several(node: Node) -> tuple[Operator, ...]:
    """The operators of a node that reads several tensors and has windows; () for any other and for one that is refused."""
    if node.op_type not in ("Max", "Min"):
        return ()
    try:
        return READERS[node.op_type](node)
    except UnsupportedOperatorError:
        return ()


def _written(node: Node) -> str:
    """The first output that anybody can read."""
    return next(n for n in node.outputs if n)


def _shaped(node: Node) -> bool:
    return all(n in node.shapes for n in (*node.inputs, _written(node)) if n)


def _is_float(value: np.ndarray[Any, np.dtype[Any]]) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating))
