"""The files that a study leaves for its reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxsub.files import write_atomic
from onnxsub.report.picture import Picture
from onnxsub.report.table import Table, to_markdown

__all__ = ["write_all"]


def write_all(tables: Sequence[Table], pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """`tables.md`, and every picture as SVG and PNG. Raises OutputError."""
    written = [folder / "tables.md"]
    write_atomic(written[0], to_markdown(list(tables)).encode())
    for picture in pictures:
        for ending, content in (("svg", picture.svg), ("png", picture.png)):
            written.append(folder / f"{picture.name}.{ending}")
            write_atomic(written[-1], content)
    return written
