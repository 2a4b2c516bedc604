"""Tables and curves of the study of regimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsub.report.picture import LINES, Picture, draw, legend_below
from onnxsub.report.table import Table
from onnxsub.study.regimes import PROPERTIES, RegimesResult
from onnxsub.study.written import write_all
from onnxsub.zoo.regimes import REGIMES

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
    """Accuracy, security, satisfaction; what is not there yet is left empty or out."""
    published = found.data == "fashion-mnist"
    archs, options = found.options.architectures, found.options
    regimes = sorted(options.regimes, key=REGIMES.index)
    known = PUBLISHED if published else {}
    end = ("published",) if published else ()
    cells = tuple((r, *_accuracies(found, r, known.get(r)), *(known.get(r, "") for _ in end)) for r in regimes)
    heads = ("regime", *(head for arch in archs for head in ((arch, "apart") if published else (arch,))), *end)
    note = "Percent of all test images." + published * (
        " Published: Casadio et al. 2022, Fashion-MNIST with all training images, 100 units."
    )
    made = [Table("Accuracy", note, heads, (False, *(True,) * (len(heads) - 1)), cells)]
    radii, eps = options.radii, options.eps
    at = min(range(len(radii)), key=lambda i: abs(radii[i] - eps))
    near = {radius: i for radius in (0.5 * eps, 2 * eps) for i, r in enumerate(radii) if abs(r - radius) < 1e-9}
    columns = [*((p, at) for p in PROPERTIES), *(("cr", i) for i in near.values()),
               *(("sr", i) for radius, i in near.items() if radius > eps)]  # fmt: skip
    for arch in archs:
        records = [record for r in regimes if (record := _of(found, arch, r)) is not None]
        if records:
            rows = tuple((m["regime"], *(f"{100 * m['secure'][p][i]:.1f}" for p, i in columns)) for m in records)
            note = f"Percent of {records[0]['attacked_images']} test images on which the property's own attack fails."
            heads = ("regime", *(f"{p} at {radii[i]:g}" for p, i in columns))
            made.append(Table(f"Security, {arch}", note, heads, (False, *(True,) * len(columns)), rows))
    lines = []
    for record in found.networks:
        for prop, by in record.get("decided", {}).items():
            for verifier, counts in by.items():
                total = sum(counts.values())
                share = f"{100 * counts.get('proved', 0) / total:.1f}"
                theirs = SATISFIED.get((prop, record["regime"]), "") if published else ""
                words = (str(counts.get(word, 0)) for word in _WORDS)
                lines.append((prop, record["regime"], verifier, str(total), *words, share, *(theirs for _ in end)))
    if lines:
        clashes = sum(record.get("contradictions", 0) for record in found.networks)
        note = f"Radius {options.eps:g}, {options.timeout:g} s per question. Contradictions between the verifiers: {clashes}."
        heads = ("property", "regime", "verifier", "images", *_WORDS, "satisfied %", *(f"{head} %" for head in end))
        right = (False,) * 3 + (True,) * (len(heads) - 3)
        made.append(Table(f"Satisfaction, {archs[-1]}", note, heads, right, tuple(sorted(lines))))
    return made


def pictures(found: RegimesResult) -> list[Picture]:
    """Security against each property's attack over the radius, one panel per property, one figure per architecture."""
    return [_curves(found, arch) for arch in found.options.architectures if any(m["architecture"] == arch for m in found.networks)]


def write_report(found: RegimesResult, folder: Path) -> list[Path]:
    """`tables.md` and the figures, beside the networks. Raises OutputError, MissingDependencyError."""
    return write_all(tables(found), pictures(found), folder)


def _of(found: RegimesResult, arch: str, regime: str) -> Mapping[str, Any] | None:
    return next((r for r in found.networks if (r["architecture"], r["regime"]) == (arch, regime)), None)


def _accuracies(found: RegimesResult, regime: str, published: str | None) -> tuple[str, ...]:
    """Of every architecture; for published data also how far from the published one."""
    cells: list[str] = []
    for arch in found.options.architectures:
        record = _of(found, arch, regime)
        cells.append("" if record is None else f"{100 * record['accuracy']:.1f}")
        if found.data == "fashion-mnist":
            cells.append("" if record is None or published is None else f"{100 * record['accuracy'] - float(published):+.1f}")
    return tuple(cells)


def _curves(found: RegimesResult, arch: str) -> Picture:
    regimes = [r for r in sorted(found.options.regimes, key=REGIMES.index) if _of(found, arch, r) is not None]
    radii = found.options.radii

    def paint(figure: Figure) -> None:
        for i, (axes, prop) in enumerate(zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, PROPERTIES, strict=True)):
            for j, regime in enumerate(regimes):
                colour, dash = LINES[j % len(LINES)]
                record = _of(found, arch, regime)
                assert record is not None
                shares = [100 * v for v in record["secure"][prop]]
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
