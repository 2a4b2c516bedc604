"""Tables and curves of the study of regimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsub.report.picture import LINES, Picture, draw, legend_below
from onnxsub.report.table import Table
from onnxsub.study.regimes import PROPERTIES, RegimesResult
from onnxsub.study.written import write_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pictures", "tables", "write_report"]

PUBLISHED = {
    "base": "88.2", "augment-uniform": "88.6", "augment-fgsm": "88.8", "adversarial": "85.1", "sr": "88.2", "scr": "88.1",
    "lr": "86.6",
}  # fmt: skip
"""Accuracy on Fashion-MNIST in percent, Casadio et al. 2022."""

SATISFIED = {
    ("cr", "base"): "1.5", ("cr", "scr"): "2.0", ("cr", "sr"): "2.0", ("cr", "lr"): "34.0",
    ("sr", "base"): "0.5", ("sr", "scr"): "1.0", ("sr", "sr"): "65.8", ("sr", "lr"): "100",
    ("lr", "base"): "0", ("lr", "scr"): "0", ("lr", "sr"): "0", ("lr", "lr"): "0",
}  # fmt: skip
"""The same for satisfaction."""

_WORDS = ("proved", "violated", "misclassified", "undecided")


def tables(found: RegimesResult) -> list[Table]:
    """Accuracy, security at the regimes' radius, satisfaction."""
    published = found.data == "fashion-mnist"
    archs, options = found.options.architectures, found.options
    cells = [
        (r, *(f"{100 * _of(found, arch, r)['accuracy']:.1f}" for arch in archs), PUBLISHED.get(r, "") if published else "")
        for r in options.regimes
    ]
    note = "Percent of all test images. Published: Casadio et al. 2022, Fashion-MNIST with all training images."
    made = [Table("Accuracy", note, ("regime", *archs, "published"), (False, *(True,) * len(archs), True), tuple(cells))]
    radii = options.radii
    at = min(range(len(radii)), key=lambda i: abs(radii[i] - options.eps))
    for arch in archs:
        rows = tuple(
            (r, *(f"{100 * _of(found, arch, r)['secure'][p][at]:.1f}" for p in PROPERTIES)) for r in options.regimes
        )
        attacked = _of(found, arch, options.regimes[0])["attacked_images"]
        note = f"Percent of {attacked} test images on which the property's own attack fails at radius {radii[at]:g}."
        made.append(Table(f"Security, {arch}", note, ("regime", *PROPERTIES), (False, *(True,) * len(PROPERTIES)), rows))
    lines = []
    for record in found.networks:
        for prop, by in record.get("decided", {}).items():
            for verifier, counts in by.items():
                total = sum(counts.values())
                share = f"{100 * counts.get('proved', 0) / total:.1f}"
                known = SATISFIED.get((prop, record["regime"]), "") if published else ""
                lines.append((prop, record["regime"], verifier, str(total), *(str(counts.get(w, 0)) for w in _WORDS), share, known))
    if lines:
        clashes = sum(record.get("contradictions", 0) for record in found.networks)
        note = f"Radius {options.eps:g}, {options.timeout:g} s per question. Contradictions between the verifiers: {clashes}."
        heads = ("property", "regime", "verifier", "images", *_WORDS, "satisfied %", "published %")
        made.append(Table(f"Satisfaction, {archs[-1]}", note, heads, (False,) * 3 + (True,) * 7, tuple(sorted(lines))))
    return made


def pictures(found: RegimesResult) -> list[Picture]:
    """Security against each property's attack over the radius, one panel per property, one figure per architecture."""
    return [_curves(found, arch) for arch in found.options.architectures]


def write_report(found: RegimesResult, folder: Path) -> list[Path]:
    """`tables.md` and the figures, beside the networks. Raises OutputError, MissingDependencyError."""
    return write_all(tables(found), pictures(found), folder)


def _of(found: RegimesResult, arch: str, regime: str) -> Any:
    (record,) = (r for r in found.networks if (r["architecture"], r["regime"]) == (arch, regime))
    return record


def _curves(found: RegimesResult, arch: str) -> Picture:
    regimes: Sequence[str] = found.options.regimes
    radii = found.options.radii

    def paint(figure: Figure) -> None:
        for i, (axes, prop) in enumerate(zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, PROPERTIES, strict=True)):
            for j, regime in enumerate(regimes):
                colour, dash = LINES[j % len(LINES)]
                shares = [100 * v for v in _of(found, arch, regime)["secure"][prop]]
                mark = "osD^vPX*"[j % 8]
                axes.plot(radii, shares, color=colour, linestyle=dash, marker=mark, markersize=4, label=regime if i == 0 else None)
            axes.set_title(f"attack on {prop}")
            axes.set_ylim(-3, 103)
            if i % 2 == 0:
                axes.set_ylabel("secure (percent)")
            if i > 1:
                axes.set_xlabel("radius (L∞, input units)")
        legend_below(figure)

    return draw(
        f"security-{arch.replace(':', '-')}", f"Security by training regime, {arch}",
        f"Four panels, one per property; falling curves: the share of images on which its attack fails, for {', '.join(regimes)}.",
        "Share of test images on which the property's own attack finds no violation.", paint, size=(7.2, 6.4), group=found.data,
    )  # fmt: skip
