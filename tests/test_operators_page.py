"""The page of operators says what the operator table holds."""

from __future__ import annotations

from pathlib import Path

from benchmarks.operators import rows, text
from onnxsub.ops import READERS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"


def test_the_page_is_made_from_the_table() -> None:
    assert len(rows()) == len(READERS)
    assert PAGE.read_text() == text(), "python -m benchmarks.operators > docs/operators.md"
