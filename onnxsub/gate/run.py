"""`gate`: a new model over samples, beside a baseline over the same ones, and what of that passes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.any_model import AnyModel, any_model
from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.drive import Report, RunOptions
from onnxsub.evaluate.labels import Classes
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples
from onnxsub.files import make_folder, write_atomic
from onnxsub.gate.checks import check_asked, checks_of
from onnxsub.gate.comparison import compare
from onnxsub.gate.measured import Measured, make_cache, measured, recorded
from onnxsub.gate.options import GateOptions
from onnxsub.gate.pairs import pair_up
from onnxsub.gate.result import GateResult
from onnxsub.model_file import serialise

__all__ = ["CACHE", "run_gate", "samples_of"]

CACHE = ".onnxsub-gate"
"""Folder of the runs, in the current folder, unless another one is named."""


def samples_of(
    data: str | os.PathLike[str] | tuple[Any, Any] | Samples,
    choice: Choice,
    options: GateOptions,
    array: str | None = None,
    labels: str | None = None,
    classes: Classes | None = None,
) -> Samples:
    """The chosen rows of a file, of a data set by name, or of arrays.

    Raises:
        InputError: what `read_samples` raises; arrays of which no samples can be made.
    """
    if isinstance(data, Samples):
        if choice != Choice():
            raise InputError("data: these samples are chosen already; leave out index and limit")
        return data
    if not isinstance(data, tuple):
        return choose(options.settings, data, choice, array, labels, classes)
    x, y = (None if part is None else np.asarray(part) for part in data)
    if x is None or x.ndim < 2 or x.dtype.kind not in "fiub" or not len(x):
        raise InputError("data: the images are no array (N, ...) of numbers; give (x, y) with one label per image")
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "iu"):
        raise InputError(f"data: {len(x)} images need as many whole labels, not {list(y.shape)} of {y.dtype}; give (x, y)")
    digest = hashlib.sha256()
    for part in (x, y):
        digest.update(b"" if part is None else f"{part.dtype.str} {part.shape} ".encode() + np.ascontiguousarray(part).tobytes())
    index = choice.of(len(x))
    rows = list(index)
    named = PREDICTED if y is None else "y"
    chosen = None if y is None else y[rows].astype(np.int64)
    return Samples("(arrays)", digest.hexdigest(), "x", named, index, x[rows].copy(), chosen)


def run_gate(
    new: AnyModel,
    baseline: AnyModel | None,
    samples: Samples,
    options: GateOptions,
    *,
    cache: Path = Path(CACHE),
    run: RunOptions | None = None,
    progress: Report | None = None,
) -> GateResult:
    """Whether a model is as robust as its baseline on the same samples, and as robust as is asked.

    Args:
        new: the model: a path, bytes, a message, a `Model` or a torch module, which is exported.
        baseline: the model that it is compared with, or the folder of a finished run of it; None: nothing is compared.
        cache: folder of the runs; what lies there is not computed again.
        progress: told the share that is done, and what is being done.

    Raises:
        InputError, ModelError, MissingDependencyError, OutputError: as a run of `onnxsub robustness`.
        KeyboardInterrupt: what is done is kept in the cache.
    """
    start = time.perf_counter()
    run = run or RunOptions()
    settings = options.settings
    check_asked(options, compared=baseline is not None)
    old: Measured | None = None
    if isinstance(baseline, str | os.PathLike) and Path(baseline).is_dir():
        old = recorded(Path(baseline), samples, settings)
    elif baseline is not None:
        old = _measured(baseline, samples, settings, cache, run, _part(progress, 0.0, 0.5, "baseline"))
    begun = 0.5 if old is not None and old.computed else 0.0
    found = _measured(new, samples, settings, cache, run, _part(progress, begun, 1.0, "new model"))
    pairs = pair_up(samples, None if old is None else old.rows, found.rows, settings)
    comparison = None if old is None else compare(pairs, settings)
    checks = checks_of(pairs, comparison, options)
    return GateResult(options, samples, found, old, pairs, comparison, checks, time.perf_counter() - start)


def _measured(
    model: AnyModel, samples: Samples, settings: RobustnessSettings, cache: Path, run: RunOptions, tell: Report | None
) -> Measured:
    """A run that was not cut short; what one that was has done stays in its folder."""
    path = os.fspath(model) if isinstance(model, str | os.PathLike) else _written(model, samples, settings, cache)
    found = measured(path, samples, settings, cache, run, tell)
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def _written(model: AnyModel, samples: Samples, settings: RobustnessSettings, cache: Path) -> str:
    """A model that is no file yet as one in the cache, which workers can read and reports can name."""
    read = any_model(model, samples.x[0], settings.reading)
    if read.path is not None:
        return str(read.path)
    folder = make_cache(cache) / "models"
    name = "".join(c if c.isalnum() else "-" for c in read.where.removeprefix("torch module "))[:40]
    path = folder / f"{name}-{read.sha256[:12]}.onnx"
    make_folder(folder, "choose another cache")
    if not path.exists():
        write_atomic(path, serialise(read.source, read.where, OutputError))
    return str(path)


def _part(progress: Report | None, begin: float, end: float, what: str) -> Report | None:
    """The progress of one of the two runs."""
    if progress is None:
        return None
    return lambda share, text: progress(begin + share * (end - begin), f"{what}: {text}")
