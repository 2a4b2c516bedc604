"""`evaluate`, `robustness` and `report`: the experiments over a data set, in a run folder."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxsub.any_model import AnyModel
from onnxsub.api.keywords import build, checked, in_python, keywords_of, refuse_unknown, signed, spoken
from onnxsub.api.progress import AnyProgress, telling
from onnxsub.api.question import AnyInput, AskedOptions, as_array
from onnxsub.api.stored import RUN, model_file, space_of_run, stored
from onnxsub.errors import InputError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.labels import Classes, read_classes
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.grid import GridPlan, grid_of, plan_of
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.run import open_robustness
from onnxsub.evaluate.robustness.run import robustness as drive_robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.run import EvaluateResult, open_run
from onnxsub.evaluate.run import evaluate as drive_evaluate
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples, parse_indices, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.ops.base import Array
from onnxsub.reading import Reading
from onnxsub.report.report import ReportOptions, ReportResult, report_joined
from onnxsub.report.report import report as write_report

__all__ = ["SPACE", "classes_of", "evaluate", "index_of", "inputs_of", "labels_of", "report", "robustness", "tell_notes"]

SPACE = ("lower", "upper", "mean", "std", "space", "output", "input_shape")
"""Keywords of the data space and of reading that a run has."""

_ALIASES = {"property": "prop", "range": "value_range"}


def evaluate(
    models: AnyModel | Sequence[AnyModel] | None = None, data: AnyInput = None, labels: Any = None, *,
    run: str | os.PathLike[str], index: Any = None, limit: int | None = None, every: int = 1, array: str | None = None,
    classes: str | Sequence[str] | None = None, reference: str | os.PathLike[str] | None = None, progress: AnyProgress = False,
    **keywords: Any,
) -> EvaluateResult:
    """The distances of models and of their substitutes, sample by sample, in a run folder that can be gone on with at any time.

    Args:
        models: one or several, in any form that `distance` takes; None: go on with the run as its `run.toml` says.
        data: an array of inputs `(N, ...)`, the path of an `.npz` or `.npy` file, or a data set's name.
        labels: one class per input, the name of an array of the `.npz` or an `.npy` file; None: the file's own, or of an array
            of inputs the predicted ones.
        run: the folder.
        index, limit, every: which samples: positions, at most so many, each so-manieth. array: which one of an `.npz` file.
        classes: which class a name among the labels is: the names in order, `cat=0,dog=1`, or a file.
        reference: a `.csv` file of values that stand beside the distances: sample, value.
        progress: True: a bar. A function: told `(share, text)`.
        keywords: fields of `Settings` (`methods`, `gammas`, `verifiers`, `timeout`, `protocol`, ...), of `RunOptions` (`jobs`,
            `engine`, ...), and `lower`, `upper`, `mean`, `std`, `output`, `input_shape`.

    Raises:
        InputError: the folder holds another run, or data, models or values that cannot be used.

    Warns:
        UserWarning: something about the data was chosen without being asked for, as the order of class names.
    """
    with in_python():
        folder = Path(checked("run", run, str | os.PathLike))
        settings = {k: v for k, v in keywords_of(Settings).items() if k != "domain"}
        refuse_unknown("evaluate", keywords, settings, RUN, SPACE)
        how = build(RunOptions, {k: v for k, v in keywords.items() if k in RUN})
        own = {k: v for k, v in keywords.items() if k not in RUN}
        if models is None:
            _nothing_new(data, labels, index, limit, own)
            plan = open_run(folder, allow_commands=how.allow_commands)
        else:
            values = {k: v for k, v in own.items() if k in settings and k not in SPACE}
            asked = build(AskedOptions, {k: v for k, v in own.items() if k in SPACE})
            done = build(Settings, {**values, **space_of_run(asked)})
            several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
            samples = read_samples(*_data(folder, data, labels, (index, limit, every), array), classes_of(classes))
            tell_notes(samples)
            plan = Plan.of(_files(several, samples.x[:1], asked.reading, folder), samples, done)
        with telling(progress) as teller:
            tell = None if teller is None else teller.share()
            beside = None if reference is None else os.fspath(checked("reference", reference, str | os.PathLike))
            return drive_evaluate(plan, folder, how, progress=tell, reference=beside)


def robustness(
    model: AnyModel | Sequence[AnyModel] | None = None, data: AnyInput = None, labels: Any = None,
    eps: float | Sequence[float] | None = None, *,
    run: str | os.PathLike[str], index: Any = None, limit: int | None = None, every: int = 1, array: str | None = None,
    classes: str | Sequence[str] | None = None, batch: int | None = None, progress: AnyProgress = False, **keywords: Any,
) -> RobustnessResult:
    """The robustness of models over a data set: numbers with their intervals, and what is guaranteed.

        result = robustness(["a.onnx", "b.onnx"], "mnist.npz", eps=(0.01, 0.1), metric=("satisfaction", "security"), run="grid")
        result.cell_of(model="a", metric="security", eps=0.1).measure.interval

    Args:
        model: one or several; several models, or several values of `eps`, `metric` or `property`, make a grid of figures.
        data, labels, run, index, limit, every, array, classes, progress: as of `evaluate`.
        eps: radius of the ball round each sample.
        batch: of `security` in a grid: samples attacked together; 0: each by itself.
        keywords: fields of `RobustnessSettings` (`metric`, `property`, `timeout`, ...), of `RunOptions`, and of the data space.

    Raises:
        InputError: the folder holds another run, or data, model or values that cannot be used.
    """
    with in_python():
        folder = Path(checked("run", run, str | os.PathLike))
        given = {_ALIASES.get(k, k): v for k, v in keywords.items()}
        settings = {k: v for k, v in keywords_of(RobustnessSettings).items() if k != "domain"}
        refuse_unknown("robustness", given, settings, RUN, SPACE)
        how = build(RunOptions, {k: v for k, v in given.items() if k in RUN})
        own = {k: v for k, v in given.items() if k not in RUN}
        plan: GridPlan
        if model is None:
            _nothing_new(data, labels, index, limit, {"eps": eps, "batch": batch, **own})
            plan = open_robustness(folder, allow_commands=how.allow_commands)
        else:
            if eps is None:
                raise InputError("eps is missing; a new run needs a radius in un-normalised input units")
            several: list[Any] = list(model) if isinstance(model, list | tuple) else [model]
            asked = build(AskedOptions, {k: v for k, v in own.items() if k in SPACE})
            shared = {
                k: checked(k, v, settings[k].kind) for k, v in own.items() if k in settings and k not in (*SPACE, "metric", "prop")
            }
            done = grid_of(
                len(several), checked("metric", own.get("metric", "satisfaction"), tuple[str, ...]),
                checked("property", own.get("prop", "cr"), tuple[str, ...]), checked("eps", eps, tuple[float, ...]),
                checked("batch", batch, int | None), {**shared, **space_of_run(asked)},
            )  # fmt: skip
            samples = choose(done, *_data(folder, data, labels, (index, limit, every), array), classes_of(classes))
            tell_notes(samples)
            plan = plan_of(_files(several, samples.x[:1], asked.reading, folder), samples, done)
        with telling(progress) as teller:
            return drive_robustness(plan, folder, how, progress=None if teller is None else teller.share())


def report(*runs: Any, progress: AnyProgress = False, **keywords: Any) -> ReportResult:
    """Tables, figures and one page of a run folder, finished or not; of several runs of one kind a page with them side by side.

    Args:
        runs: folders, or what `evaluate`, `robustness` or a table gave.
        progress: True: a bar. A function: told `(share, text)`.
        keywords: fields of `ReportOptions` (`output`, `images`, `title`, ...).

    Raises:
        InputError: no run folder, nothing done yet.
        MissingDependencyError: matplotlib is not installed.
    """
    with in_python():
        refuse_unknown("report", keywords, keywords_of(ReportOptions))
        if not runs:
            raise InputError("there is no run to report; give its folder")
        options = build(ReportOptions, keywords)
        folders = [getattr(run, "folder", None) or getattr(run, "run", None) or run for run in runs]
        where = tuple(Path(checked("run", folder, str | os.PathLike)) for folder in folders)
        with telling(progress) as teller:
            tell = None if teller is None else teller.share()
            if len(where) > 1:
                return report_joined(where, options, progress=tell)
            return write_report(where[0], options, progress=tell)


def _data(
    folder: Path, data: AnyInput, labels: Any, which: tuple[Any, int | None, int], array: str | None
) -> tuple[str, Choice, str | None, str | None]:
    """Arguments of `read_samples`; arrays become files of the run folder."""
    if data is None:
        raise InputError("a new run needs data: an array of inputs, an .npz or .npy file, or a data set's name")
    index, limit, every = which
    choice = Choice(index_of(index), checked("every", every, int), checked("limit", limit, int | None))
    x, y = inputs_of(data, array), labels_of(labels)
    if not isinstance(x, str) and y is None:
        y = PREDICTED
    source = x if isinstance(x, str) else stored(folder, "x", x)
    return source, choice, array, y if y is None or isinstance(y, str) else stored(folder, "labels", y)


def inputs_of(data: AnyInput, array: str | None) -> str | Array:
    """The path or the name of data, or the array itself. Raises InputError where `array` names a part of what is no file."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    if array is not None:
        raise InputError("array names an array of an .npz file; leave it out where data is an array itself")
    return as_array(data, "data")


def labels_of(labels: Any) -> str | Array | None:
    """The path or the name of labels, or `(N,)` int64. Raises InputError where they are no whole numbers."""
    if labels is None or isinstance(labels, str | os.PathLike):
        return None if labels is None else os.fspath(labels)
    y = as_array(labels, "labels")
    if y.dtype.kind not in "iu":
        raise InputError(f"labels hold {y.dtype} values; give one whole number per input")
    return y.reshape(-1).astype("int64")


def tell_notes(samples: Samples) -> None:
    """Warns, in the line that called the package, of what was chosen without being asked for."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "onnxsub":
        level, frame = level + 1, frame.f_back
    for note in samples.notes:
        warnings.warn(spoken(note), UserWarning, stacklevel=level)


def index_of(index: Any) -> tuple[int, ...] | None:
    """Positions out of a sequence of them, or of text like `0,5,10-20`."""
    if index is None:
        return None
    found: tuple[int, ...] = parse_indices(index) if isinstance(index, str) else checked("index", index, tuple[int, ...])
    return found


def classes_of(classes: Any) -> Classes | None:
    """Names of classes out of text or a sequence of names."""
    if classes is None:
        return None
    return read_classes(classes if isinstance(classes, str) else ",".join(checked("classes", classes, tuple[str, ...])))


def _files(models: Sequence[AnyModel], example: Any, reading: Reading, folder: Path) -> tuple[str, ...]:
    names = ["model"] if len(models) == 1 else [f"model-{i + 1}" for i in range(len(models))]
    return tuple(model_file(m, example, reading, folder, name) for m, name in zip(models, names, strict=True))


def _nothing_new(data: Any, labels: Any, index: Any, limit: Any, own: dict[str, Any]) -> None:
    """Raises InputError where something is said about a run that is only gone on with."""
    named = {"data": data, "labels": labels, "index": index, "limit": limit, **own}
    given = [k for k, v in named.items() if v is not None]
    if given:
        raise InputError(f"{given[0]} is about a new run; name its model too, or go on by run= alone")


signed(evaluate, Settings, RunOptions, hidden=("domain", "index", "array"))
signed(robustness, RobustnessSettings, RunOptions, hidden=("domain",))
signed(report, ReportOptions)
