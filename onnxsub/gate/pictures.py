"""The samples that were lost and won, beside the counterexamples that made the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.evaluate.samples import anchor_of
from onnxsub.gate.measured import Measured, points_of
from onnxsub.gate.pairs import Pair, Seen
from onnxsub.gate.result import GateResult, witness_distance
from onnxsub.ops.base import Array
from onnxsub.report.images import image_of
from onnxsub.report.picture import Picture, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["pictures"]

_HEADINGS = ("sample", "counterexample", "difference")


def pictures(result: GateResult, most: int) -> tuple[Picture, ...]:
    """At most so many of the lost samples and of the won ones; none where the samples are no images.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    found = _pictures(result, "lost", result.lost[:most], result.new)
    if result.old is not None:
        found += _pictures(result, "won", result.won[:most], result.old)
    return tuple(found)


def _pictures(result: GateResult, change: str, pairs: Sequence[Pair], broken: Measured) -> list[Picture]:
    points = points_of(broken, frozenset(p.index for p in pairs))
    rows = {index: row for row, index in enumerate(result.samples.index)}
    found = []
    for pair in pairs:
        stored = result.samples.x[rows[pair.index]]
        anchor = anchor_of(stored, stored.shape, result.options.domain, f"sample {pair.index}")
        if image_of(anchor) is None:
            continue
        point = points.get(pair.index)
        seen = pair.new if change == "lost" else pair.old
        assert seen is not None
        found.append(_picture(result, pair, change, seen, anchor, None if point is None else point.reshape(anchor.shape)))
    return found


def _picture(result: GateResult, pair: Pair, change: str, seen: Seen, anchor: Array, point: Array | None) -> Picture:
    shown = point is not None and seen.verdict != "misclassified"

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, 3 if shown else 1, squeeze=False)[0]
        _show(axes[0], anchor, result.options.domain)
        if shown:
            assert point is not None
            _show(axes[1], point, result.options.domain)
            reach = max(float(np.abs(point.astype(np.float64) - anchor).max()), 1e-12)
            difference = image_of(point.astype(np.float64) - anchor)
            assert difference is not None
            signed = difference if difference.ndim == 2 else difference.mean(axis=2)
            drawn = axes[2].imshow(signed, cmap="PuOr", vmin=-reach, vmax=reach, interpolation="nearest")
            figure.colorbar(drawn, ax=axes[2], shrink=0.8, ticks=[-reach, 0, reach], format="%.2g")
        for one, heading in zip(axes, _HEADINGS, strict=False):
            one.set_title(heading)
            one.set(xticks=[], yticks=[])
            one.grid(visible=False)

    said = _said(pair, change, seen)
    name = f"{change}-{pair.index}"
    group = {"lost": "Pictures of the samples lost", "won": "Pictures of the samples won"}[change]
    title = f"sample {pair.index}" + ("" if pair.label is None else f", class {pair.label}")
    return draw(name, title, f"{title}. {said}", said, paint, size=(4.8, 1.75) if shown else (1.9, 1.75), group=group)


def _said(pair: Pair, change: str, seen: Seen) -> str:
    model = "new model" if change == "lost" else "baseline"
    other = "baseline" if change == "lost" else "new model"
    if seen.verdict == "misclassified":
        what = f"The {model} takes the sample itself for class {seen.row.predicted}"
    elif seen.verdict == "violated":
        distance = witness_distance(seen)
        at = "" if distance is None else f" at distance {distance:.4g}"
        what = f"The {model} gives another class{at}"
    else:
        what = f"The {model} is undecided: {seen.row.reason or 'the limits ended the search'}"
    robust = pair.old if change == "lost" else pair.new
    assert robust is not None
    return f"{what}; of the {other} the sample is {robust.verdict}."


def _show(axes: Axes, x: Array, domain: tuple[float, float]) -> None:
    image = image_of(x)
    assert image is not None
    low, high = domain
    axes.imshow(np.clip((image - low) / (high - low), 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
