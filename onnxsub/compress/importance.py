"""`importance`: scores of a model's units, written into its file too."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto

from onnxsub.budget import Budget
from onnxsub.compress.options import ImportanceOptions, ImportanceResult
from onnxsub.compress.solve import Report, importance_scores
from onnxsub.documents import parse_json, read_json
from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.surgery import annotate as set_properties

__all__ = ["SCORES", "annotated", "has_scores", "importance", "same_model", "scores_in", "scores_of", "without_scores"]

SCORES = "onnxsub.importance.scores"
"""Key of a node's scores in the file: a JSON list, one number per unit or channel of the tensor that it writes."""

_SCORED = "onnxsub.model.sha256"


def importance(
    model: Model, x: Array, labels: Array, options: ImportanceOptions, *,
    data: Mapping[str, Any] | None = None, budget: Budget | None = None, progress: Report | None = None,
) -> ImportanceResult:  # fmt: skip
    """Scores of all units of `model` for the images `x` `(B, *input_shape)`, as the model is fed, with classes `labels`.

    Args:
        data: where the images are from, for the result.

    Raises:
        InputError: no image, a class that the model does not have, or a program that is too large.
        SolverError, UnsupportedOperatorError, MissingDependencyError: see `importance_scores`.
    """
    began = time.perf_counter()
    network = lower(model)
    labels = np.asarray(labels, dtype=np.int64)
    if len(x) == 0:
        raise InputError("no image was given; give at least one")
    if len(beyond := labels[(labels < 0) | (labels >= network.classes)]):
        raise InputError(f"label {int(beyond[0])} is no class of {model.where}, which has {network.classes}; check the labels")
    solved = importance_scores(network, x, labels, options, budget=budget, progress=progress)
    head = {
        "model": {"path": None if model.path is None else str(model.path), "sha256": model.sha256},
        "data": {"images": len(x), **(data or {})},
    }
    total = {"total": time.perf_counter() - began}
    return ImportanceResult(
        options, head, solved.layers, solved.status, solved.value, solved.bound, solved.rounds, solved.size, total
    )


def annotated(model: Model, result: ImportanceResult) -> ModelProto:
    """A copy of the model's file in which every scored node has its scores as metadata."""
    nodes = {layer.name: {SCORES: json.dumps([round(float(s), 6) for s in layer.scores])} for layer in result.layers}
    properties = {
        "onnxsub.importance.images": str(result.head["data"]["images"]),
        "onnxsub.importance.weight": repr(result.options.weight),
        "onnxsub.importance.status": result.status,
        _SCORED: model.sha256,
    }
    written = {name for node in model.source.graph.node for name in node.output}
    return set_properties(model.source if nodes.keys() <= written else model.form, properties, nodes)


def without_scores(proto: ModelProto) -> ModelProto:
    """A copy without scores: those of a network whose units or weights have changed are of another one."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for owner in (copy, *copy.graph.node):
        kept = [p for p in owner.metadata_props if not p.key.startswith("onnxsub.importance.")]
        del owner.metadata_props[:]
        owner.metadata_props.extend(kept)
    return copy


def has_scores(proto: ModelProto) -> bool:
    """Whether a file holds scores, readable or not."""
    return any(prop.key == SCORES for node in proto.graph.node for prop in node.metadata_props)


def scores_in(proto: ModelProto) -> dict[str, Array]:
    """The scores that a file holds, by the tensor that the node writes. Raises InputError where there are none."""
    found = {}
    for node in proto.graph.node:
        for prop in node.metadata_props:
            if prop.key == SCORES:
                try:
                    found[node.output[0]] = _row(parse_json(prop.value))
                except (ValueError, TypeError) as error:
                    raise InputError(f"the scores of tensor {node.output[0]!r} are no list of numbers; write them again") from error
    if not found:
        raise InputError("the model holds no scores; run onnxsub importance MODEL --data D -o SCORED.onnx first, or --by magnitude")
    return found


def scores_of(path: str) -> dict[str, Array]:
    """The scores of a document of `onnxsub importance --json`. Raises InputError."""
    try:
        keys = read_json(path)
        return {layer["name"]: _row(layer["scores"]) for layer in keys["layers"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = type(error).__name__
        raise InputError(f"{path!r} is no document of onnxsub importance --json ({why}); write it again") from error


def same_model(path: str, model: Model) -> bool:
    """Whether the scores of a scored file or of a document are those of `model`, as far as they say of which file they are."""
    if path.endswith(".onnx"):
        scored = load_model(path).metadata.get(_SCORED)
    else:
        keys = read_json(path).get("model")
        scored = keys.get("sha256") if isinstance(keys, Mapping) else None
    # a scored file is another form of the one that was scored
    first = model.metadata.get(_SCORED) if has_scores(model.source) else None
    return scored in (None, model.sha256, first)


def _row(scores: Any) -> Array:
    """One number per unit. Raises ValueError or TypeError."""
    row = np.asarray(scores, dtype=np.float64)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise ValueError("a list of finite numbers is expected")
    return row
