"""Anchors beside their adversarial points and the difference, for inputs that are images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.evaluate.ledger import Ledger
from onnxsub.ops.base import Array
from onnxsub.report.figures import slug
from onnxsub.report.picture import Picture, draw
from onnxsub.shown import image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["image_of", "images"]

_HEADINGS = ("anchor", "adversarial point", "difference")


def images(
    ledger: Ledger, model: str, domain: tuple[float, float], *, count: int, samples: Sequence[int] | None = None
) -> Picture | None:
    """`count` samples of a model, spread over their distances, or those that are named; None where there are no images."""
    found = [
        (index, result, anchor.reshape(result["shape"]), point.reshape(result["shape"]))
        for index, result, anchor, point in ledger.attacks(model)
        if (samples is None or index in samples) and image_of(np.zeros(result["shape"])) is not None
    ]
    if not found or count < 1:
        return None
    if samples is None and len(found) > count:
        found.sort(key=lambda f: float(f[1]["d_adv"]))
        found = [found[i] for i in np.linspace(0, len(found) - 1, count).round().astype(int)]

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(found), 3, squeeze=False)
        for row, (index, result, anchor, point) in zip(grid, found, strict=True):
            reach = float(result["d_adv"])
            _show(row[0], anchor, domain)
            _show(row[1], point, domain)
            difference = image_of(point.astype(np.float64) - anchor)
            assert difference is not None
            signed = difference if difference.ndim == 2 else difference.mean(axis=2)
            drawn = row[2].imshow(signed, cmap="PuOr", vmin=-reach, vmax=reach, interpolation="nearest")
            figure.colorbar(drawn, ax=row[2], shrink=0.8, ticks=[-reach, 0, reach], format="%.2g")
            row[0].set_ylabel(f"sample {index}\n{result['label']} → {result['adversarial_label']}", fontsize=10)
        for axes, heading in zip(grid[0], _HEADINGS, strict=True):
            axes.set_title(heading)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)

    said = "; ".join(
        f"sample {i}: class {r['label']} becomes {r['adversarial_label']} at distance {float(r['d_adv']):.3g}" for i, r, *_ in found
    )
    return draw(
        f"images-{slug(model)}", f"{model}: anchors and adversarial points",
        f"Rows of three images, anchor, adversarial point and their difference. {said}.",
        "Nearest adversarial points that the attack found. The difference is coloured from minus d_adv to d_adv (input units).",
        paint, size=(4.8, 0.5 + 1.45 * len(found)), group=model,
    )  # fmt: skip


def _show(axes: object, x: Array, domain: tuple[float, float]) -> None:
    image = image_of(x)
    assert image is not None
    low, high = domain
    scaled = np.clip((image - low) / (high - low), 0, 1)
    axes.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")  # type: ignore[attr-defined]
