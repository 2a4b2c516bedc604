"""Tables and figures of the study of importance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.report.picture import Picture, draw
from onnxsub.report.table import Table
from onnxsub.study.importance import StudyResult
from onnxsub.study.written import write_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pictures", "tables", "write_report"]

PUBLISHED = {
    "accuracy, percent": ("97.05", "97.11"),
    "pairs": ("900", "900"),
    "examples": ("148", "139"),
    "accuracy on the other's examples, percent": ("14.4", "22.3"),
    "f_y - f_t of examples, mean": ("-3.39", ""),
    "f_y - f_t where none exists, mean": ("9.98", ""),
}
"""Of the original and the compressed network (784-50-50-10, MNIST); where one number stands, it is of both."""

_WORDS = ("example", "tie", "none", "undecided")
_STATISTICS = ("count", "min", "median", "mean", "max", "std")


def tables(found: StudyResult) -> list[Table]:
    """Removal, both networks side by side, examples by source and target, time."""
    return [_removal(found), _networks(found), _by(found, "by_source", "source"), _by(found, "by_target", "target"), _times(found)]


def pictures(found: StudyResult) -> list[Picture]:
    """How many examples lead from which class to which, for both networks."""
    matrices = {name: np.array(model["targeted"]) for name, model in found.models.items()}
    top = max(1, *(int(m.max()) for m in matrices.values()))

    def paint(figure: Figure) -> None:
        for axes, (name, matrix) in zip(figure.subplots(1, 2, sharey=True), matrices.items(), strict=True):
            axes.grid(visible=False)
            axes.imshow(matrix, cmap="cividis", vmin=0, vmax=top)
            for (y, t), count in np.ndenumerate(matrix):
                if count:
                    axes.text(t, y, str(count), ha="center", va="center", color="black" if count > top / 2 else "white", fontsize=8)
            axes.set_title(f"{name}: {int(matrix.sum())} examples")
            axes.set_xticks(range(len(matrix)))
            axes.set_yticks(range(len(matrix)))
            axes.set_xlabel("target class")
        figure.axes[0].set_ylabel("class of the image")

    totals = ", ".join(f"{name} {int(m.sum())}" for name, m in matrices.items())
    return [
        draw(
            "examples", "Adversarial examples by source and target class",
            f"Two matrices of counts side by side, source class down and target class across; in all: {totals}.",
            f"Pairs (image, target) with an adversarial example within {found.options.eps:g}.", paint, size=(7.6, 4.1),
            group=found.data,
        )
    ]  # fmt: skip


def write_report(found: StudyResult, folder: Path) -> list[Path]:
    """`tables.md` and the figure, beside the networks. Raises OutputError, MissingDependencyError."""
    return write_all(tables(found), pictures(found), folder)


def _removal(found: StudyResult) -> Table:
    first = found.rounds[0]
    counts = " and ".join(str(layer["removed"]) for layer in first["layers"])
    rows: list[tuple[str, ...]] = [("scores", _percent(first["accuracy"]["removed"]), _percent(first["accuracy"]["retrained"]))]
    rows.append(("smallest weights", *(_percent(found.compared["magnitude"][k]) for k in ("removed", "retrained"))))
    drawn = [v["removed"] for name, v in found.compared.items() if name.startswith("random-")]
    rows.append((f"random, {len(drawn)} draws: mean", _percent(float(np.mean(drawn))), ""))
    rows.append(("random: best and worst", f"{_percent(max(drawn))}, {_percent(min(drawn))}", ""))
    rows.append(("random: the first draw", _percent(drawn[0]), _percent(found.compared["random-0"]["retrained"])))
    rows += [
        (f"scores, round {i + 2}", _percent(r["accuracy"]["removed"]), _percent(r["accuracy"]["retrained"]))
        for i, r in enumerate(found.rounds[1:])
    ]
    note = f"Accuracy in percent without {counts} units (first round; {found.models['original']['accuracy']:.2%} with all)."
    return Table("Removal", note, ("units by", "removed", "retrained"), (False, True, True), tuple(rows))


def _networks(found: StudyResult) -> Table:
    models = [found.models[name] for name in ("original", "compressed")]
    other = {"original": "compressed on original", "compressed": "original on compressed"}
    shares = []
    for name in ("original", "compressed"):
        tried = found.transfer[other[name]]
        shares.append(f"{100 * tried['right'] / tried['examples']:.1f}" if tried["examples"] else "-")
    ours = {
        "accuracy, percent": [f"{100 * m['accuracy']:.2f}" for m in models],
        "units": ["-".join(map(str, m["units"])) for m in models],
        "bytes": [f"{m['bytes']:,}" for m in models],
        "images misclassified": [str(m["misclassified"]) for m in models],
        "pairs": [str(m["pairs"]["planned"]) for m in models],
        "examples": [str(m["pairs"]["example"]) for m in models],
        "proved to have none": [str(m["pairs"]["none"]) for m in models],
        "ties": [str(m["pairs"]["tie"]) for m in models],
        "undecided": [str(m["pairs"]["undecided"]) for m in models],
        "smallest margin exact": [str(m["pairs"]["exact"]) for m in models],
        "accuracy on the other's examples, percent": shares,
        "f_y - f_t of examples, mean": [_mean(m["objective"]["examples"]) for m in models],
        "f_y - f_t where none exists, mean": [_mean(m["objective"]["none"]) for m in models],
    }
    rows = tuple((what, *values, *PUBLISHED.get(what, ("", ""))) for what, values in ours.items())
    note = (
        f"{found.images} images, eps {found.options.eps:g}, {_limit(found)} per pair. f_y - f_t where none exists: of the pairs "
        "whose minimum is exact."
    )
    heads = ("", "original", "compressed", "published, original", "published, compressed")
    return Table("Both networks", note, heads, (False,) + (True,) * 4, rows)


def _by(found: StudyResult, key: str, what: str) -> Table:
    classes = sorted({int(c) for m in found.models.values() for c in m[key]})
    heads = (f"{what} class", *(f"{name}: {word}" for name in found.models for word in _WORDS))
    rows = tuple(
        (str(c), *(str(m[key].get(str(c), {}).get(word, 0)) for m in found.models.values() for word in _WORDS)) for c in classes
    )
    return Table(f"Pairs by {what} class", "Number of pairs.", heads, (True,) * len(heads), rows)


def _times(found: StudyResult) -> Table:
    rows = tuple(
        (name, which, *(_number(model["seconds"][which], k) for k in _STATISTICS))
        for name, model in found.models.items() for which in ("examples", "none", "all")
    )  # fmt: skip
    rows += tuple(
        (name, f"f_y - f_t, {which}", *(_number(model["objective"][which], k) for k in _STATISTICS))
        for name, model in found.models.items() for which in ("examples", "none", "all")
    )  # fmt: skip
    heads = ("network", "pairs", "count", "smallest", "median", "mean", "largest", "deviation")
    return Table("Seconds and objective", "Seconds per pair, then the objective.", heads, (False, False) + (True,) * 6, rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _mean(spread: Mapping[str, Any]) -> str:
    return _number(spread, "mean")


def _number(spread: Mapping[str, Any], key: str) -> str:
    if key == "count":
        return str(spread["count"])
    return f"{spread[key]:.4g}" if spread["count"] else "-"


def _limit(found: StudyResult) -> str:
    return "no limit" if found.options.timeout is None else f"{found.options.timeout:g} s"
