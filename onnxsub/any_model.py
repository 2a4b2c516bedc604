"""A model as people have it (path, bytes, message, `Model`, torch module) -> a `Model`. Modules are exported, and the export is
compared with the module."""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import onnx
from onnx import ModelProto

from onnxsub.errors import InputError, ModelError
from onnxsub.files import one_line
from onnxsub.model import Model, Reading, load_model
from onnxsub.ops.base import Array
from onnxsub.runtime import Runtime, one_hot
from onnxsub.scratch import scratch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
else:
    from onnxsub.lazy import torch

__all__ = ["AnyModel", "any_model", "export_difference"]

AnyModel: TypeAlias = "str | os.PathLike[str] | bytes | ModelProto | Model | nn.Module"
"""What `any_model` takes."""

_OPSET = 17
"""Of an export: the first with LayerNormalization as one operator, and one that both exporters of torch write."""

_TOLERANCE = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-4, np.dtype(np.float16): 1e-2}
"""Largest difference of the outputs between torch and onnxruntime, as a share of the largest one and at least of 1."""

_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".pt2", ".safetensors")


def any_model(model: AnyModel, example: Any = None, reading: Reading | None = None) -> Model:
    """The classifier that `model` stands for.

    A torch module is exported in eval mode (its modes are put back afterwards), with an open batch axis, by the exporter of torch
    that needs no other package; where that one fails and onnxscript is installed, by the other one. The same module and shape
    give the same file. The export is run with onnxruntime on eight inputs and must give what the module gives.

    Args:
        model: path of an `.onnx` file, its bytes, an `onnx.ModelProto`, a `Model`, or a `torch.nn.Module`.
        example: for a module: one input `(*shape)` or a batch of them `(N, *shape)`, an array or a tensor. Only its shape and
            whether it holds whole numbers matter, so that the anchors themselves do. Not used for other models.
        reading: which of several outputs is meant, and the per-sample shape of the input: for a module it says how `example`
            is meant, and stands for it where there is none.

    Raises:
        InputError: `model` is none of these, or nothing says what a module takes.
        ModelError: the file cannot be used (`load_model`), torch cannot export the module, or the export gives other values.
    """
    reading = reading or Reading()
    if isinstance(model, Model):
        return model if model.reading == reading or reading == Reading() else load_model(model.path or model.source, reading)
    if _is_module(model):
        return _export(getattr(model, "_orig_mod", model), example, reading)
    if isinstance(model, bytearray | memoryview):
        model = bytes(model)
    if isinstance(model, Mapping):
        raise InputError("a model is given as a dictionary, which may be the weights of one; load them into a torch.nn.Module")
    if not isinstance(model, str | os.PathLike | bytes | ModelProto):
        raise InputError(
            f"a model is given as {type(model).__name__}; give the path of an .onnx file, its bytes, an onnx.ModelProto, "
            "an onnxsub.Model or a torch.nn.Module"
        )
    if isinstance(model, str | os.PathLike) and Path(model).suffix.lower() in _CHECKPOINTS:
        raise ModelError(f"model file {os.fspath(model)!r} is a checkpoint and no ONNX file; load it in torch and give the module")
    return load_model(model, reading)


def export_difference(model: Model, module: nn.Module, x: Tensor, output: int = 0) -> float:
    """Largest difference between onnxruntime on `model` and torch on `module`, as a share of the largest value and at least of 1.

    Args:
        module: in eval mode.
        x: rows `(N, *shape)` as the module takes them.
        output: which of the module's outputs is that of `model`.
    """
    with torch.no_grad():
        wanted = np.concatenate([_array(_outputs(module(row[None]))[1][output]) for row in x.unbind()])
    if model.own.is_class:
        wanted = one_hot(wanted, model)
    own = Runtime(model).raw(x.detach().cpu().numpy(), one_by_one=True)
    if own.size != wanted.size:
        return float("inf")
    largest = max(1.0, float(np.abs(wanted).max()))
    return float(np.abs(own.reshape(wanted.shape).astype(np.float64) - wanted).max()) / largest


def _is_module(model: object) -> TypeGuard[nn.Module]:
    """Without importing torch: who has a module has it."""
    return any(kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module" for kind in type(model).__mro__)


def _export(module: nn.Module, example: Any, reading: Reading) -> Model:
    name = f"torch module {type(module).__name__}"
    with _evaluating(module):
        row, names = _row(module, example, reading, name)
        proto, told = _written(module, row, names, name)
        model = load_model(proto, Reading(reading.output, None, reading.sigmoids))
        chosen = names.index(model.own_output) if model.own_output in names else 0
        apart = export_difference(model, module, _rows(row), chosen)
    if not apart <= _TOLERANCE[np.dtype(model.input_dtype)]:
        raise ModelError(
            f"{name}: torch and onnxruntime differ by {apart:.2g} of the largest output on its export; it may draw random numbers, "
            "or branch on values, in forward(): remove that, or export it yourself and give the file"
        )
    for w in told:
        warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    notes = (*model.notes, *(f"torch's exporter warns: {one_line(w.message)}" for w in told))
    return replace(model, where=name, notes=notes)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """All parts in eval mode within the block; each has its own mode afterwards (exporters set the mode of the whole)."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def _row(module: nn.Module, example: Any, reading: Reading, name: str) -> tuple[Tensor, list[str]]:
    """One input `(1, *shape)` on the module's device and in its type, and the names of the outputs."""
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    dtype, device = (torch.float32, torch.device("cpu")) if first is None else (first.dtype, first.device)
    if example is None and reading.input_shape is None:
        raise InputError(f"{name} does not say what it takes; give an example input, or input_shape=(...) without the batch axis")
    x = torch.zeros(tuple(reading.input_shape or ())) if example is None else _tensor(example, name)
    x = x.to(device) if _whole(x) else x.to(device, dtype)
    if reading.input_shape is None:
        shapes = [tuple(x.shape), tuple(x.shape[1:])] if x.ndim > 1 else [tuple(x.shape)]
        if x.ndim > 3 and len(x) == 1:
            shapes.reverse()  # (1, C, H, W) is a batch of one, as torch's own users have it
    else:
        shapes = [tuple(reading.input_shape), tuple(reading.input_shape)[1:]]
    failures: list[str] = []
    odd: list[tuple[Tensor, list[str]]] = []
    for shape in shapes:
        size = int(np.prod(shape))
        if size == 0 or x.numel() == 0 or x.numel() % size:
            continue
        row = x.reshape(-1, *shape)[:1].contiguous()
        try:
            with torch.no_grad():
                names, tensors = _outputs(module(row))
        except Exception as error:  # whatever forward() raises
            failures.append(f"{list(row.shape)}: {one_line(error, 120)}")
            continue
        if len(tensors) > 1 or (tensors and tensors[0].ndim == 2 and len(tensors[0]) == 1):
            return row, names
        if tensors and _is_one_row(tensors[0]):
            odd.append((row, names))  # a Linear takes any number of axes in front: (1, 6) may be a batch of one
        shown = [list(t.shape) for t in tensors]
        failures.append(f"{list(row.shape)}: gives {shown or 'no tensor'}, not one row of scores")
    if odd:
        return odd[0]
    raise InputError(
        f"{name} does not take an input of shape {list(x.shape)} ({'; '.join(failures) or 'it fits no input_shape'}); "
        "give an example that it takes, or input_shape=(...) without the batch axis"
    )


def _is_one_row(y: Tensor) -> bool:
    """Scores of one sample: K of them, with axes of length 1 anywhere."""
    return y.ndim == 0 or (y.shape[0] == 1 and sum(d != 1 for d in y.shape) <= 1)


def _tensor(example: Any, name: str) -> Tensor:
    if isinstance(example, torch.Tensor):
        return example.detach()
    try:
        array = np.asarray(example)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"an array of {array.dtype}")
        return torch.from_numpy(np.array(array))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: the example is no array of numbers ({one_line(error)}); give an array or a tensor") from error


def _whole(x: Tensor) -> bool:
    return not x.is_floating_point()


def _array(y: Tensor) -> Array:
    return np.asarray(y.detach().cpu().reshape(1, -1))


def _outputs(y: Any) -> tuple[list[str], list[Tensor]]:
    """What a module returns, as names and tensors: one, several, or a mapping of names."""
    if isinstance(y, torch.Tensor):
        return ["logits"], [y]
    if isinstance(y, Mapping):
        kept = {str(k): v for k, v in y.items() if isinstance(v, torch.Tensor)}
        return list(kept), list(kept.values())
    tensors = [v for v in y if isinstance(v, torch.Tensor)] if isinstance(y, tuple | list) else []
    return (["logits"] if len(tensors) == 1 else [f"output_{i}" for i in range(len(tensors))]), tensors


def _rows(row: Tensor) -> Tensor:
    """Eight inputs to compare on: the example, and random ones in its type and around the usual ranges."""
    generator = np.random.default_rng(0)
    shape = tuple(row.shape[1:])
    values = [generator.random((4, *shape)), generator.standard_normal((3, *shape))]
    random = torch.from_numpy(np.concatenate(values))
    random = torch.clamp(torch.round(random.abs() * 100), max=255) if _whole(row) else random
    return torch.cat([row, random.to(dtype=row.dtype, device=row.device)])


def _written(module: nn.Module, row: Tensor, names: list[str], name: str) -> tuple[ModelProto, list[warnings.WarningMessage]]:
    """The export, and the warnings of the tracer."""
    try:
        return _heard(lambda: _traced(module, row, names))
    except Exception as error:  # exporters raise many unrelated classes
        first = error
    if importlib.util.find_spec("onnxscript") is None:
        raise ModelError(
            f"{name}: torch cannot export it ({_plain(first)}); `pip install onnxscript` gives torch's other exporter, "
            "or export it yourself and give the file"
        ) from first
    try:
        return _heard(lambda: _dynamo(module, row, names))
    except Exception as error:  # likewise
        both = f"{_plain(first)}; by the newer exporter: {_plain(error)}"
        raise ModelError(f"{name}: torch cannot export it ({both}); export it yourself and give the file") from first


def _plain(error: Exception) -> str:
    """An exporter's message on one line, without its colours."""
    return one_line(re.sub(r"\x1b\[[0-9;]*m", "", str(error)), 160)


def _traced(module: nn.Module, row: Tensor, names: list[str]) -> ModelProto:
    axes = {n: {0: "N"} for n in ("input", *names)}
    with scratch() as folder:
        file = folder / "module.onnx"
        torch.onnx.export(
            module, (row,), file, dynamo=False, opset_version=_OPSET, input_names=["input"], output_names=names, dynamic_axes=axes
        )
        return onnx.load(file)


def _dynamo(module: nn.Module, row: Tensor, names: list[str]) -> ModelProto:
    two = torch.cat([row, row])
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.onnx.export(
        module, (two,), dynamo=True, input_names=["input"], output_names=names, dynamic_shapes=shapes, verbose=False
    )
    if program is None:
        raise ModelError("torch gave nothing")
    proto: ModelProto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # where in the user's files it comes from
    return proto


def _heard(write: Callable[[], ModelProto]) -> tuple[ModelProto, list[warnings.WarningMessage]]:
    """What `write` gives, and the tracer's warnings. That torch means to replace this exporter is no news to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        proto = write()
    return proto, [w for w in caught if w.category.__name__ == "TracerWarning"]
