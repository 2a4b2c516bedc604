"""Anchors beside their adversarial points and the difference, for inputs that are images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.evaluate.ledger import Ledger
from onnxsub.ops.base import Array
from onnxsub.report.picture import Picture, draw, slug
from onnxsub.shown import image_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["example_images", "image_of", "images"]

_HEADINGS = ("anchor", "adversarial point", "difference")
_LONGEST = 14  # of a class's name beside a row


@dataclass(frozen=True, eq=False)
class _Shown:
    """A row of images.

    Attributes:
        sample: position in the data. classes: before and after. reach: the distance between the two points.
    """

    sample: int
    classes: tuple[Any, Any]
    reach: float
    anchor: Array
    point: Array


def images(
    ledger: Ledger, model: str, domain: tuple[float, float], *, count: int, samples: Sequence[int] | None = None
) -> Picture | None:
    """`count` samples of a model, the nearest first, spread over their distances, or those that are named; None without images."""
    if samples is None:
        reaches = sorted((float(r["d_adv"]), i) for i, r, *_ in ledger.attacks(model) if _is_image(r))
        places = np.linspace(0, len(reaches) - 1, min(count, len(reaches))).round().astype(int)
        samples = [reaches[i][1] for i in places]
    wanted = set(samples) if count > 0 else set()
    rows = [
        _Shown(i, (r["label"], r["adversarial_label"]), float(r["d_adv"]), x.reshape(r["shape"]), z.reshape(r["shape"]))
        for i, r, x, z in ledger.attacks(model)
        if i in wanted and _is_image(r)
    ]
    return _draw(
        f"images-{slug(model)}", f"{model}: anchors and adversarial points", rows, domain, model,
        "Nearest adversarial points that the attack found. The difference is coloured from minus d_adv to d_adv (input units).",
    )  # fmt: skip


def example_images(
    ledger: Ledger, model: str, domain: tuple[float, float], *, count: int, samples: Sequence[int] | None = None
) -> Picture | None:
    """The `count` examples of a run of `onnxsub adversarial` that go farthest beyond the margin, one per sample.

    `samples` names them instead. None where the inputs are no images, or where an older version kept no anchors.
    """
    best: dict[int, tuple[float, int]] = {}
    for i, r, *_ in ledger.attacks(model, "pair"):
        if r["verdict"] == "example" and _is_image(r) and (samples is None or i in samples):
            best[i] = min(best.get(i, (0.0, -1)), (float(r["upper"]), int(r["target"])))
    chosen = sorted((margin, i, target) for i, (margin, target) in best.items())[: len(best) if samples else count]
    wanted = {(i, target) for _, i, target in chosen} if count > 0 else set()
    rows = [
        _Shown(i, (r["label"], r["predicted"]), float(r["distance"]), x.reshape(r["shape"]), z.reshape(r["shape"]))
        for i, r, x, z in ledger.attacks(model, "pair")
        if (i, r["target"]) in wanted
    ]
    return _draw(
        f"examples-{slug(model)}", f"{model}: examples", rows, domain, model,
        "The examples with the largest lead of the target class, one per sample, confirmed by onnxruntime. The difference is "
        "coloured from minus the distance to the distance (L∞, input units).",
    )  # fmt: skip


def _is_image(result: Mapping[str, Any]) -> bool:
    return "shape" in result and image_of(np.zeros(result["shape"])) is not None


def _draw(name: str, title: str, rows: list[_Shown], domain: tuple[float, float], group: str, caption: str) -> Picture | None:
    if not rows:
        return None
    rows.sort(key=lambda r: (r.reach, r.sample))

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(rows), 3, squeeze=False)
        for axes, row in zip(grid, rows, strict=True):
            _show(axes[0], row.anchor, domain)
            _show(axes[1], row.point, domain)
            difference = image_of(row.point.astype(np.float64) - row.anchor)
            assert difference is not None
            signed = difference if difference.ndim == 2 else difference.mean(axis=2)
            drawn = axes[2].imshow(signed, cmap="PuOr", vmin=-row.reach, vmax=row.reach, interpolation="nearest")
            bar = figure.colorbar(drawn, ax=axes[2], shrink=0.8, ticks=[-row.reach, 0, row.reach], format="%.2g")
            bar.ax.tick_params(labelsize=8.5)
            before, after = (str(c) if len(str(c)) <= _LONGEST else f"{str(c)[: _LONGEST - 1]}…" for c in row.classes)
            axes[0].set_ylabel(f"sample {row.sample}\n{before} → {after}", fontsize=9.5)
        for axes, heading in zip(grid[0], _HEADINGS, strict=True):
            axes.set_title(heading, fontsize=10.5)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)

    said = "; ".join(f"sample {r.sample}: class {r.classes[0]} becomes {r.classes[1]} at distance {r.reach:.3g}" for r in rows)
    alt = f"Rows of three images, anchor, adversarial point and their difference. {said}."
    return draw(name, title, alt, caption, paint, size=(4.8, 0.5 + 1.45 * len(rows)), group=group)


def _show(axes: object, x: Array, domain: tuple[float, float]) -> None:
    image = image_of(x)
    assert image is not None
    low, high = domain
    scaled = np.clip((image - low) / (high - low), 0, 1)
    axes.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")  # type: ignore[attr-defined]
