"""The pass `annotate`: statistics of bounds into the file's own metadata, full arrays beside it.

A node that writes an activation gets `onnxsub.bounds.units`, `.stable_on`, `.stable_off`, `.unstable`, `.width_min`, `.width_mean`,
`.width_max`; the model gets method, radius and the hashes of model and anchor. Viewers show both. What one node is read as in
several steps (a LayerNormalization, a quotient) has no tensor in the file for the steps between: they are in the arrays only.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from onnx import ModelProto

from onnxsub.errors import OutputError
from onnxsub.files import write_atomic
from onnxsub.model import Model, save_model
from onnxsub.passes.bounds import BoundsResult
from onnxsub.surgery import annotate as set_properties

__all__ = ["annotate", "save_annotated"]


def annotate(model: Model, result: BoundsResult) -> ModelProto:
    """A copy of the model's file in which the statistics of `result` are metadata."""
    nodes = {}
    for layer in result.layers:
        keys = layer.to_json()
        nodes[layer.name] = {f"onnxsub.bounds.{k}": _text(v) for k, v in keys.items() if k not in ("name", "op_type")}
    properties = {
        "onnxsub.bounds.method": result.options.method,
        "onnxsub.bounds.eps": _text(result.options.eps),
        "onnxsub.model.sha256": str(result.head["model"]["sha256"]),
        "onnxsub.anchor.sha256": str(result.head["anchor"]["sha256"]),
    }
    scale = result.head["input"]["scale"]
    if scale is not None:
        properties["onnxsub.scale.sha256"] = str(scale["sha256"])
    own, form = ({name for node in proto.graph.node for name in node.output} for proto in (model.source, model.form))
    known = {name: props for name, props in nodes.items() if name in own | form}
    return set_properties(model.source if known.keys() <= own else model.form, properties, known)


def save_annotated(model: Model, result: BoundsResult, path: str | os.PathLike[str]) -> Path:
    """Writes the annotated model to `path` and all arrays to the `.npz` of the same name; returns the path of the latter.

    Raises:
        OutputError: the folder is missing or cannot be written, or `path` ends in `.npz` itself.
    """
    arrays = Path(path).with_suffix(".npz")
    if arrays == Path(path):
        raise OutputError(f"{os.fspath(path)!r} is where the arrays go; give the model a name that ends in .onnx")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **result.arrays())  # type: ignore[arg-type]  # the names are arrays, none is `allow_pickle`
    save_model(annotate(model, result), path)
    write_atomic(arrays, buffer.getvalue())
    return arrays


def _text(value: float) -> str:
    return repr(value) if isinstance(value, float) else str(value)
