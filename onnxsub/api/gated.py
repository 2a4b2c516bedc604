"""`gate`: whether a new model is as robust as the released one, from training code."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxsub.any_model import AnyModel
from onnxsub.api.keywords import build, checked, in_python, keywords_of, refuse_unknown, signed
from onnxsub.api.progress import AnyProgress, telling
from onnxsub.api.question import AnyInput, AskedOptions
from onnxsub.api.runs import SPACE, classes_of, index_of, inputs_of, labels_of, tell_notes
from onnxsub.api.stored import RUN, space_of_run, stored
from onnxsub.errors import InputError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.labels import class_numbers
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples
from onnxsub.gate.options import GateOptions
from onnxsub.gate.outputs import check_outputs, write_outputs
from onnxsub.gate.result import GateResult
from onnxsub.gate.run import CACHE, run_gate, samples_of
from onnxsub.scratch import scratch

__all__ = ["gate"]

_FILES = ("page", "junit", "markdown", "badge", "sarif")


def gate(
    new: AnyModel, baseline: AnyModel | None = None, data: AnyInput = None, labels: Any = None, eps: float | None = None, *,
    index: Any = None, limit: int | None = None, every: int = 1, array: str | None = None,
    classes: Any = None, cache: str | os.PathLike[str] = CACHE, progress: AnyProgress = False, **keywords: Any,
) -> GateResult:
    """Whether a model is as robust as its baseline on the same samples, and as robust as is asked: `passed`, `headline`.

    Args:
        new: the model, in any form that `distance` takes.
        baseline: what it is compared with, or the folder of a finished run of it; None: nothing is compared.
        data, labels, index, limit, every, array, classes: as of `evaluate`; where data is an array, labels are one too.
        eps: radius of the ball round each sample.
        cache: folder of the runs; what lies there is not computed again.
        progress: True: a bar. A function: told `(share, text)`.
        keywords: fields of `GateOptions` (`metric`, `max_drop`, `min_proved`, `nodes`, ...) and `RunOptions` (`jobs`, ...), the
            data space (`lower`, `upper`, `mean`, `std`), `output`, `input_shape`; and files to write: `page` (a folder),
            `junit`, `markdown`, `badge`, `sarif`.

    Raises:
        InputError: models, data or keywords that cannot be used.

    Warns:
        UserWarning: as `evaluate`.
    """
    with in_python():
        options = {k: v for k, v in keywords_of(GateOptions).items() if k != "domain"}
        refuse_unknown("gate", keywords, options, RUN, SPACE, _FILES)
        if eps is None or data is None:
            raise InputError(f"{'eps' if eps is None else 'data'} is missing; a gate needs data and a radius")
        asked = build(AskedOptions, {k: v for k, v in keywords.items() if k in SPACE})
        own = {k: v for k, v in keywords.items() if k in options and k not in SPACE}
        chosen = build(GateOptions, {**own, "eps": eps, **space_of_run(asked)})
        files = {k: os.fspath(v) for k, v in keywords.items() if k in _FILES and v is not None}
        check_outputs(files)
        choice = Choice(index_of(index), checked("every", every, int), checked("limit", limit, int | None))
        samples = _samples(data, labels, choice, chosen, array, classes)
        tell_notes(samples)
        how = build(RunOptions, {k: v for k, v in keywords.items() if k in RUN})
        where = Path(checked("cache", cache, str | os.PathLike))
        with telling(progress) as teller:
            tell = None if teller is None else teller.share()
            result = run_gate(new, baseline, samples, chosen, cache=where, run=how, progress=tell)
        write_outputs(result, files, ["onnxsub.gate"])
        return result


def _samples(data: AnyInput, labels: Any, choice: Choice, options: GateOptions, array: str | None, classes: Any) -> Samples:
    """The chosen rows; inputs and labels are each a file, a name or an array in memory."""
    x, y, known = inputs_of(data, array), labels_of(labels), classes_of(classes)
    if y is not None and not isinstance(y, str):
        y, _ = class_numbers(y, known, "labels")
    if isinstance(x, str):
        if y is None or isinstance(y, str):
            return samples_of(x, choice, options, array, y, known)
        with scratch() as folder:
            samples = samples_of(x, choice, options, array, stored(folder, "labels", y))
        return replace(samples, labels="y")  # the folder is gone; a run knows labels by their digest
    if isinstance(y, str):
        if y != PREDICTED:
            raise InputError(f"labels is {y!r}, and data is an array; give an array of labels, or {PREDICTED!r}")
        y = None
    return samples_of((x, y), choice, options)


signed(gate, GateOptions, RunOptions, hidden=("domain",))
