"""Which samples a metric takes."""

from __future__ import annotations

import os

from onnxsub.errors import OptionError
from onnxsub.evaluate.labels import Classes
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples, read_samples
from onnxsub.metrics.globally import shuffled
from onnxsub.metrics.intervals import require_samples

__all__ = ["choose"]


def choose(
    settings: RobustnessSettings,
    source: str | os.PathLike[str],
    choice: Choice,
    array: str | None = None,
    labels: str | None = None,
    classes: Classes | None = None,
) -> Samples:
    """The samples of a run: the chosen rows, or as many of them, drawn by the seed, as the wanted error needs.

    The labels are read where the property speaks of classes. With `sequential` all chosen rows stay, of which the run takes as many
    as it needs.

    Raises:
        InputError: fewer rows than the error needs, labels that are missing or that nothing needs, what `read_samples` raises.
    """
    if not settings.needs_label:
        if labels not in (None, PREDICTED):
            raise OptionError(f"--labels: property {settings.prop} does not speak of classes; leave it out")
        labels = PREDICTED
    samples = read_samples(source, choice, array, labels, classes)
    if settings.error is None or settings.sequential:
        return samples
    low, high = settings.values
    needed = require_samples(len(samples.index), settings.error, settings.confidence, high - low)
    # a data set may be sorted by class: the first rows of it are no random sample
    rows = sorted(shuffled(len(samples.index), settings.seed)[:needed])
    return read_samples(source, Choice(tuple(samples.index[i] for i in rows)), array, labels, classes)
