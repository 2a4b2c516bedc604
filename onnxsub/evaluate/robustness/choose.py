"""Which samples a run takes: the same for every model and place."""

from __future__ import annotations

import os

from onnxsub.errors import OptionError
from onnxsub.evaluate.labels import Classes
from onnxsub.evaluate.robustness.grid import Grid
from onnxsub.evaluate.samples import PREDICTED, Choice, Samples, read_samples
from onnxsub.metrics.globally import shuffled
from onnxsub.metrics.intervals import require_samples

__all__ = ["choose"]


def choose(
    settings: Grid,
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
            named = " and ".join(dict.fromkeys(prop for _, prop, _ in settings.places))
            raise OptionError(f"--labels: property {named} does not speak of classes; leave it out")
        labels = PREDICTED
    samples = read_samples(source, choice, array, labels, classes)
    (place, *_) = settings.places.values()
    if place.error is None or place.sequential:
        return samples
    low, high = place.values
    needed = require_samples(len(samples.index), place.error, place.confidence, high - low)
    # a data set may be sorted by class: the first rows of it are no random sample
    rows = sorted(shuffled(len(samples.index), place.seed)[:needed])
    return read_samples(source, Choice(tuple(samples.index[i] for i in rows)), array, labels, classes)
