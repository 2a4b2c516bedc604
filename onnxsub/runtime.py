"""The original file under onnxruntime: the judge of every witness, and what the tests compare with."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, ValueInfoProto

from onnxsub.errors import InputError, MissingDependencyError, ModelError, OnnxsubError
from onnxsub.files import one_line
from onnxsub.model import Model, load_model
from onnxsub.model_file import serialise
from onnxsub.ops.base import Array
from onnxsub.watched import Watched, has_programs, only_live, refuse_programs

__all__ = ["Runtime", "check_onnxruntime", "squares_deviations"]

_ROWS = 1024
"""Rows that are run at once, so that memory does not grow with the number of rows."""

_OTHER_FUNCTIONS = ("DoubleQDQPairsRemover", "WeightBiasQuantization")
"""Optimisers of onnxruntime that change what a file computes by more than rounding, by up to a step of its quantisers and more:
one makes a single quantiser of two with different steps, the other quantises float weights of layers that stand between quantisers.
Bounds and proofs speak of the file as it is, so these two are left out."""

_DEVIATIONS = 1, 28
"""The version of onnxruntime whose normalisations take squared deviations: LayerNormalization of 1000 + N(0, 1) is off by 3e-5,
with 1.26 by 0.57."""


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


def squares_deviations() -> bool:
    """Whether onnxruntime sums a variance of squared deviations.

    Older kernels take the mean square less the squared mean, which is off by 2^-24 of that square, however small the variance is.
    """
    for name in ("onnxruntime", "onnxruntime-gpu"):
        if _installed(name):
            major, minor = importlib.metadata.version(name).split(".")[:2]
            return (int(major), int(minor)) >= _DEVIATIONS
    return False


class _Run(NamedTuple):
    """Which tensor, and whether of the file or of the form that is analysed."""

    tensor: str
    file: bool


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
        refuse_programs(self.model)
        self._sessions: dict[_Run, Any] = {}
        self._watched: dict[_Run, Watched] = {}
        self._batched: dict[_Run, bool] = {}
        self._session(_Run(self.model.output, self._in_file))
        if not self.model.feed.plain:
            self._check_rows()

    def __reduce__(self) -> tuple[type[Runtime], tuple[Model, int]]:
        return Runtime, (self.model, self._threads)  # a session cannot be pickled; it is opened again

    def logits(self, x: Array, *, one_by_one: bool = False) -> Array:
        """The logits `(N, model.outputs)` of `x` `(N, *input_shape)`, before any Softmax at the end of the file.

        `x` is cast to the model's input type; the result has the type that the file computes in. Where the file has no such
        tensor, or cannot be given `x` (whole numbers), the form that is analysed is run.
        """
        y = self._run(self._logits_of(np.asarray(x)), x, one_by_one)
        return y.reshape(len(y), self.model.outputs)

    def raw(self, x: Array, *, one_by_one: bool = False) -> Array:
        """The file's own output `(N, ...)` of `x` `(N, *input_shape)`, its Softmax included.

        Where that is a class, 1 for that one and 0 for the others: `(N, outputs)`.

        Raises:
            InputError: `x` is no input of the file, which takes whole numbers.
        """
        if self.model.whole and not is_whole(np.asarray(x)):
            raise InputError(f"{self.model.where} takes whole numbers; round the input")
        y = self._run(_Run(self.model.own.tensor, True), x, one_by_one)
        return one_hot(y, self.model) if self.model.own.is_class else y

    def _check_rows(self) -> None:
        """Raises ModelError where a file with a batch axis of its own (none, or several samples) does not compute its form."""
        x = np.random.default_rng(0).random((3, *self.model.input_shape))
        x = np.rint(100 * x) if self.model.whole else x
        form = self._run(_Run(self.model.raw_output, False), x, True)
        model = self.model
        scores = form.reshape(len(form), -1)
        own = self._run(_Run(model.own.tensor, True), x, True)
        file = (one_hot(own, model) if model.own.is_class else own).reshape(len(form), -1)
        if model.own.tensor == model.raw_output and file.shape == scores.shape:
            apart = np.abs(file.astype(np.float64) - scores).max()
            same = bool(apart <= 1e-3 * (1.0 + np.abs(scores).max()))
        else:  # the same class, as the scores themselves are others
            same = file.shape == scores.shape and bool((file.argmax(1) == scores.argmax(1)).all())
        if not same:
            raise ModelError(
                f"{model.where}: samples are mixed, or the batch axis is not the first one; export the model with batch 1"
            )

    def _logits_of(self, x: Array) -> _Run:
        model = self.model
        return _Run(model.output, self._in_file and (not model.whole or is_whole(x)))

    @cached_property
    def _in_file(self) -> bool:
        """Whether the logits are a tensor of the file."""
        model = self.model
        return model.form is model.source or any(model.output in node.output for node in model.source.graph.node)

    def _run(self, run: _Run, x: Array, one_by_one: bool) -> Array:
        x = np.asarray(x)
        if x.ndim != len(self.model.input_shape) + 1 or x.shape[1:] != self.model.input_shape:
            wanted = ", ".join(str(d) for d in self.model.input_shape)
            raise InputError(f"{self.model.where} takes rows of shape (N, {wanted}), not {x.shape}; reshape the array")
        if len(x) == 0:
            raise InputError(f"{self.model.where} was given an array without rows; give at least one")
        x = np.ascontiguousarray(x, dtype=self.model.feed.dtype if run.file else self.model.input_dtype)
        if one_by_one or len(x) == 1 or not self._rows_apart(run):
            return np.concatenate([self._call(run, x[i : i + 1]) for i in range(len(x))])
        return np.concatenate([self._call(run, x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)])

    def _rows_apart(self, run: _Run) -> bool:
        """Whether many rows may be given at once: the batch axis is open, and two rows together give what each gives alone."""
        if run not in self._batched:
            free = not self.model.batch_fixed and (self.model.feed.plain or not run.file)
            self._batched[run] = free and self._probe(run)
        return self._batched[run]

    def _probe(self, run: _Run) -> bool:
        rows = np.random.default_rng(0).random((2, *self.model.input_shape))
        rows = (np.rint(100 * rows) if self.model.whole else rows).astype(
            self.model.feed.dtype if run.file else self.model.input_dtype
        )
        alone = np.concatenate([self._call(run, rows[:1]), self._call(run, rows[1:])])
        try:
            together = self._call(run, rows)
        except ModelError:  # a batch of 1 is written into the graph somewhere; rows one by one do work, as was just seen
            return False
        if alone.dtype.kind not in "f":
            return together.shape == alone.shape and bool((together == alone).all())
        scale = 1.0 + np.abs(alone).max()
        tolerance = 1e-2 if alone.dtype == np.float16 else 1e-4
        return together.shape == alone.shape and bool(np.abs(together - alone).max() <= tolerance * scale)

    def _call(self, run: _Run, x: Array) -> Array:
        """One run: of rows, or (the file has a batch axis of its own) of one row as the file takes it."""
        session, feed = self._session(run), self.model.feed
        odd = run.file and not feed.plain
        if odd:
            x = x[0] if feed.bare else np.repeat(x, feed.copies, axis=0)
        try:
            (y,) = self._watched[run](session, run.tensor, {self.model.input: x}, self.model.where)
        except OnnxsubError:
            raise
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ModelError(f"{self.model.where}: onnxruntime cannot run it ({one_line(error)}); check the model") from error
        result: Array = np.asarray(y)
        if odd:
            result = result.reshape(1, -1) if feed.bare else result[:1]
        return result

    def _session(self, run: _Run) -> Any:
        if run not in self._sessions:
            self._sessions[run] = self._open(run)
            self._watched[run] = Watched()
        return self._sessions[run]

    def _open(self, run: _Run) -> Any:
        # its wheels for Linux collect usage from 1.31 on: an identifier and a database in the home folder, sent to its maker
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        output, proto = run.tensor, self.model.source if run.file else self.model.form
        if [v.name for v in proto.graph.output] != [output] or has_programs(proto):
            copy = ModelProto()
            copy.CopyFrom(proto)
            proto = copy
            del proto.graph.output[:]
            # no type: onnxruntime infers it, and drops what no longer leads to an output
            proto.graph.output.append(ValueInfoProto(name=output))
            if has_programs(proto):
                only_live(proto, output)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions; nothing else is to be printed
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        data = serialise(proto, self.model.where, ModelError)
        try:
            return onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_OTHER_FUNCTIONS)
            )
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ModelError(
                f"{self.model.where}: onnxruntime {onnxruntime.__version__} does not accept it ({one_line(error)}); "
                "export it with a lower opset or IR version, or upgrade onnxruntime"
            ) from error


def is_whole(x: Array) -> bool:
    """Whether every number is whole."""
    return bool((np.rint(x) == x).all())


def one_hot(y: Array, model: Model) -> Array:
    """The classes that a file gives, `(N, ...)` of one value each, as scores: 1 for that one, 0 for the others, float32.

    Where it has one score, `(N, 1)`: 1 for class 1.
    """
    values = np.asarray(y).reshape(len(y), -1)
    if values.shape[1] != 1:
        raise ModelError(f"{model.where}: output {model.own.tensor!r} gives {values.shape[1]} values for a sample, not one class")
    labels = np.asarray(model.own.labels if model.own.labels else range(model.outputs))
    labels = labels if len(labels) > 1 else np.ones(1)
    return np.asarray((values == labels[None]).astype(np.float32))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
