"""The one screen of the manual runs as it is printed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "twenty_lines.py"


def test_it_is_one_screen_of_public_names() -> None:
    text = SCRIPT.read_text()
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(code) <= 20
    assert "onnxsub." in text
    assert "from onnxsub" not in text
    assert "import onnxsub." not in text


@pytest.mark.parametrize("images", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_it_runs(images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.read_text().replace("1500:1520", f"1500:{1500 + images}"))
    found = runpy.run_path(str(script))
    assert len(found["table"]) == images
    assert set(found["table"]["status"]) == {"exact"}
    assert (tmp_path / "distances.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "original_lower" in printed
    assert "GateResult(" in printed
