"""Tables of the study of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxsub.report.table import Table
from onnxsub.study.tuning import TuningResult
from onnxsub.study.written import write_all

__all__ = ["tables", "write_report"]

_COUNTED = ("images", "wrong", "failed", "seconds")
GREY = 255
"""Severity is told in grey levels, as published."""


def tables(found: TuningResult) -> list[Table]:
    """The examples of each source, then frequency and severity of every network, one table per way of measuring."""
    rows = tuple(
        (name, str(s["samples"]), str(s["points"]), str(s["examples"]), str(s["fooled"]), f"{s['seconds']['mean']:.3g}")
        for name, s in found.sources.items()
    )
    heads = ("examples by", "training images", "points", "examples", "still wrong", "seconds per image")
    made = [Table("Examples", "Points found beside training images, and those trained on.", heads, (False,) + (True,) * 5, rows)]
    for how, networks in found.measured.items():
        cells = tuple(
            (name, f"{100 * found.accuracy[name]:.2f}", *_found(m["found"]), _ends(m["frequency"], 100, 2),
             _ends(m["severity"], GREY, 1), *_counts(m))
            for name, m in networks.items()
        )
        note = (
            f"Frequency (percent of the test images with another class within {found.options.eps:.4g}) and severity (mean distance "
            "of these, in grey levels of 255) by the points found, as published, and what is proved of both; a misclassified image "
            "has the distance 0."
        )
        columns = ("trained on examples by", "accuracy, %", "frequency, %", "severity", "proved frequency", "severity", *_COUNTED)
        made.append(Table(f"Measured by {how}", note, columns, (False,) + (True,) * 9, cells))
    return made


def write_report(found: TuningResult, folder: Path) -> list[Path]:
    """`tables.md`, beside the networks. Raises OutputError."""
    return write_all(tables(found), (), folder)


def _ends(ends: Sequence[float] | None, scale: float, digits: int) -> str:
    if ends is None:
        return "-"
    low, high = (f"{scale * end:.{digits}f}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _found(m: Mapping[str, Any]) -> tuple[str, str]:
    return f"{100 * m['frequency']:.2f}", "-" if m["severity"] is None else f"{GREY * m['severity']:.1f}"


def _counts(m: Mapping[str, Any]) -> tuple[str, ...]:
    return str(m["samples"]), str(m["misclassified"]), str(m["failed"]), f"{m['seconds']['mean']:.3g}"
