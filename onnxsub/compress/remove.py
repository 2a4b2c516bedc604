"""Units out of a file: smaller weights, or the same weights with a mask behind every layer (what the smaller file must equal)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs
from onnx import ModelProto, helper, shape_inference

from onnxsub.compress.graph import Fixed, Removal, plan_removal
from onnxsub.errors import InputError, ModelError
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array, Shape
from onnxsub.runtime import Runtime
from onnxsub.surgery import edit

__all__ = ["TOLERANCE", "Removed", "check_equal", "check_scores", "masked", "remove_units"]

TOLERANCE = 1e-5
"""Largest difference of the scores between the smaller file and the masked one, as a share of the largest score, at least of 1."""


@dataclass(frozen=True)
class Removed:
    """What became of one layer: units before, those that went, and why those below the threshold stayed (empty: they went)."""

    name: str
    units: int
    removed: int
    reason: str = ""


def check_scores(model: Model, scores: Mapping[str, Array]) -> None:
    """Raises InputError where a layer of the model has more or fewer units than scores."""
    shapes = _shapes(model)
    for name, row in scores.items():
        if name in shapes and shapes[name][1] != len(row):
            units = shapes[name][1]
            raise InputError(
                f"{model.where}: layer {name!r} has {units} units, scored were {len(row)}; the scores are of another model"
            )


def remove_units(model: Model, gone: Mapping[str, Array]) -> tuple[ModelProto, tuple[Removed, ...]]:
    """The model without the units `gone` (positions, by the tensor that the scored node writes), and what became of each layer.

    One unit of every layer stays. A layer whose units cannot be removed is left as it is, and says why.

    Raises:
        InputError: a tensor that the model does not have, or positions beyond it.
    """
    proto = model.source
    shapes = before = _shapes(model)
    written = {name for node in proto.graph.node for name in node.output}
    told = []
    for name, positions in gone.items():
        if name not in shapes or name not in written:
            raise InputError(f"{model.where} has no tensor {name!r} with scores; the scores are of another model")
        units = before[name][1]
        keep = np.ones(units, dtype=bool)
        if len(positions) and int(np.max(positions)) >= units:
            raise InputError(f"{model.where}: layer {name!r} has {units} units, scored were more; the scores are of another model")
        keep[positions] = False
        if keep.all():
            told.append(Removed(name, units, 0))
            continue
        if not keep.any():
            keep[0] = True
        if shapes[name][1] != units:  # the positions are those of the model as it was
            told.append(Removed(name, units, 0, "its units went with those of a layer before it"))
            continue
        reasons: list[str] = []
        proto = edit(proto, partial(_apply, shapes=shapes, name=name, keep=keep, reasons=reasons))
        told.append(Removed(name, units, 0 if reasons else int((~keep).sum()), "".join(reasons)))
        if not reasons:
            shapes = _shapes(load_model(proto, model.reading))
    return proto, tuple(told)


def _apply(graph: gs.Graph, shapes: Mapping[str, Shape], name: str, keep: Array, reasons: list[str]) -> None:
    try:
        removal = plan_removal(graph, shapes, name, keep)
    except Fixed as why:
        reasons.append(str(why))
        return
    _write(graph, removal)


def _write(graph: gs.Graph, removal: Removal) -> None:
    by_id = {id(node): node for node in graph.nodes}
    taken = set(graph.tensors())
    for (identity, position), values in removal.constants.items():
        node = by_id[identity]
        old = node.inputs[position].name if position < len(node.inputs) else f"{node.outputs[0].name}.bias"
        readers = len(node.inputs[position].outputs) if position < len(node.inputs) else 0
        name = old
        while name in taken and (readers != 1 or not isinstance(node.inputs[position], gs.Constant)):
            name = f"{name}.smaller"
        taken.add(name)
        fresh = gs.Constant(name, np.ascontiguousarray(values))
        if position < len(node.inputs):
            node.inputs[position] = fresh
        else:
            node.inputs.append(fresh)
    for name, tensor in graph.tensors().items():
        if name in removal.touched and isinstance(tensor, gs.Variable):
            tensor.shape = None
    graph.cleanup()


def _shapes(model: Model) -> dict[str, Shape]:
    return {name: tuple(shape) for node in model.nodes for name, shape in node.shapes.items()}


def masked(model: Model, gone: Mapping[str, Array]) -> ModelProto:
    """The model with the units `gone` set to 0 behind the scored nodes: a Mul by a constant of zeros and ones."""
    shapes = _shapes(model)
    inferred = shape_inference.infer_shapes(model.source).graph
    types = {v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in inferred.value_info}

    def change(graph: gs.Graph) -> None:
        tensors = graph.tensors()
        for name, positions in gone.items():
            if not len(positions):
                continue
            tensor = tensors[name]
            shape = shapes[name]
            kind = types.get(name, model.input_dtype)  # a float32 file may compute in float16
            mask = np.ones((1, shape[1], *[1] * (len(shape) - 2)), dtype=kind)
            mask[:, positions] = 0.0
            readers = list(tensor.outputs)
            out = gs.Variable(f"{name}.masked", dtype=kind)
            for reader in readers:
                for i, read in enumerate(list(reader.inputs)):
                    if read is tensor:
                        reader.inputs[i] = out
            graph.nodes.append(gs.Node("Mul", f"{name}.mask", inputs=[tensor, gs.Constant(f"{name}.mask", mask)], outputs=[out]))
        graph.toposort()

    return edit(model.source, change)


def check_equal(model: Model, smaller: ModelProto, gone: Mapping[str, Array], rows: int = 16) -> float:
    """Largest difference of the scores, under onnxruntime on random inputs, between the smaller file and the masked one.

    Raises:
        ModelError: it is above `TOLERANCE`.
    """
    x = np.random.default_rng(0).random((rows, *model.input_shape)).astype(model.input_dtype)
    wanted = Runtime(load_model(masked(model, gone), model.reading)).logits(x).astype(np.float64)
    found = Runtime(load_model(smaller, model.reading)).logits(x).astype(np.float64)
    apart = float(np.abs(wanted - found).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ModelError(f"the smaller network differs by {apart:.2g} from the masked one and was not written; please report it")
    return apart
