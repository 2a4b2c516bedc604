"""The original file under onnxruntime: the judge of every witness, and what the tests compare with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto

from onnxsub.errors import InputError, MissingDependencyError, ModelError
from onnxsub.files import one_line
from onnxsub.model import Model, load_model
from onnxsub.model_file import serialise
from onnxsub.ops.base import Array

__all__ = ["Runtime", "check_onnxruntime"]

_ROWS = 1024
"""Rows that are run at once, so that memory does not grow with the number of rows."""


def check_onnxruntime() -> None:
    """Raise MissingDependencyError unless exactly one onnxruntime is installed.

    `onnxruntime` and `onnxruntime-gpu` install the same folder: with both, one overwrites part of the other.
    """
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(both) > 1:
        raise MissingDependencyError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            'run `pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install "onnxsub[cpu]"` (or [gpu])'
        )
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingDependencyError(
            "onnxruntime is not installed, which every answer is checked with; "
            'run `pip install "onnxsub[cpu]"` (or "onnxsub[gpu]", never both)'
        )


class Runtime:
    """A model under onnxruntime on the CPU.

    Rows are run together where the file has an open batch axis and treats rows apart (tested once, on two random rows), else one by
    one. Values of the same row may differ in the last bits between the two; `one_by_one=True` gives what anybody
    gets who runs the file on that row alone, and is meant for verdicts.

    Args:
        model: what `load_model` gives, or what it takes.
        threads: of one run; None means 1, which is fastest for a single row of the small networks that are verified.

    Raises:
        MissingDependencyError: no onnxruntime, or two.
        ModelError: the model cannot be read, or onnxruntime does not accept it.
    """

    def __init__(self, model: Model | ModelProto | bytes | str | os.PathLike[str], threads: int | None = None) -> None:
        check_onnxruntime()
        if threads is not None and threads < 1:
            raise InputError(f"{threads} threads: give a number of at least 1")
        self.model = model if isinstance(model, Model) else load_model(model)
        self._threads = threads or 1
        self._sessions: dict[str, Any] = {}
        self._batched: dict[str, bool] = {}
        self._session(self.model.output)

    def logits(self, x: Array, *, one_by_one: bool = False) -> Array:
        """The logits `(N, model.outputs)` of `x` `(N, *input_shape)`, before any Softmax at the end of the file.

        `x` is cast to the model's input type; the result has the type that the file computes in.
        """
        y = self._run(self.model.output, x, one_by_one)
        return y.reshape(len(y), self.model.outputs)

    def raw(self, x: Array, *, one_by_one: bool = False) -> Array:
        """The file's own output `(N, ...)` of `x` `(N, *input_shape)`, its Softmax included."""
        return self._run(self.model.raw_output, x, one_by_one)

    def _run(self, output: str, x: Array, one_by_one: bool) -> Array:
        x = np.asarray(x)
        if x.ndim != len(self.model.input_shape) + 1 or x.shape[1:] != self.model.input_shape:
            wanted = ", ".join(str(d) for d in self.model.input_shape)
            raise InputError(f"{self.model.where} takes rows of shape (N, {wanted}), not {x.shape}; reshape the array")
        if len(x) == 0:
            raise InputError(f"{self.model.where} was given an array without rows; give at least one")
        x = np.ascontiguousarray(x, dtype=self.model.input_dtype)
        if one_by_one or len(x) == 1 or not self._rows_apart(output):
            return np.concatenate([self._call(output, x[i : i + 1]) for i in range(len(x))])
        return np.concatenate([self._call(output, x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)])

    def _rows_apart(self, output: str) -> bool:
        """Whether the file may be given many rows: its batch axis is open, and two rows together give what each gives alone."""
        if output not in self._batched:
            self._batched[output] = not self.model.batch_fixed and self._probe(output)
        return self._batched[output]

    def _probe(self, output: str) -> bool:
        rows = np.random.default_rng(0).random((2, *self.model.input_shape)).astype(self.model.input_dtype)
        alone = np.concatenate([self._call(output, rows[:1]), self._call(output, rows[1:])])
        try:
            together = self._call(output, rows)
        except ModelError:  # a batch of 1 is written into the graph somewhere; rows one by one do work, as was just seen
            return False
        scale = 1.0 + np.abs(alone).max()
        tolerance = 1e-2 if alone.dtype == np.float16 else 1e-4
        return together.shape == alone.shape and bool(np.abs(together - alone).max() <= tolerance * scale)

    def _call(self, output: str, x: Array) -> Array:
        session = self._session(output)
        try:
            (y,) = session.run([output], {self.model.input: x})
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ModelError(f"{self.model.where}: onnxruntime cannot run it ({one_line(error)}); check the model") from error
        result: Array = np.asarray(y)
        return result

    def _session(self, output: str) -> Any:
        if output not in self._sessions:
            self._sessions[output] = self._open(output)
        return self._sessions[output]

    def _open(self, output: str) -> Any:
        import onnxruntime

        proto = self.model.source
        if output != self.model.raw_output:
            proto = ModelProto()
            proto.CopyFrom(self.model.source)
            del proto.graph.output[:]
            # no type: onnxruntime infers it, and drops what no longer leads to an output
            proto.graph.output.append(ValueInfoProto(name=output))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions; nothing else is to be printed
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        data = serialise(proto, self.model.where, ModelError)
        try:
            return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ModelError(
                f"{self.model.where}: onnxruntime {onnxruntime.__version__} does not accept it ({one_line(error)}); "
                "export it with a lower opset or IR version, or upgrade onnxruntime"
            ) from error


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
