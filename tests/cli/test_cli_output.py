"""Where words go: tables and documents to standard output, progress and notes to standard error."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest

from onnxsub.cli import points, waiting
from onnxsub.cli.output import Output
from onnxsub.errors import InputError
from onnxsub.region import InputSpace

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Answer:
    def to_json(self) -> dict[str, Any]:
        return {"schema": "x/1", "radius": math.inf, "margin": np.float32(0.5), "labels": (1, 2)}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, on which a bar shows at once."""
    monkeypatch.setattr(waiting, "_PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    return Terminal()


def work(out: Output, stderr: TextIO, until: Callable[[], bool] = lambda: True) -> None:
    with redirect_stderr(stderr), out.progress() as report:
        report(0.25, "weighing")
        report(0.5, "measuring")
        deadline = time.monotonic() + 30
        while not until() and time.monotonic() < deadline:
            time.sleep(0.01)


def test_json_is_one_document_of_plain_values(capsys: Capture) -> None:
    Output(json=True).result(Answer(), [("never", "shown")])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"schema": "x/1", "radius": None, "margin": 0.5, "labels": [1, 2]}
    assert captured.err == ""


def test_tables_show_brackets_as_they_are(capsys: Capture) -> None:
    # square brackets are markup for the library that draws the table
    Output().result(Answer(), [("file", "[bold]a[/].onnx")], [("layer", "units"), ("[red]h", "12")])
    out = capsys.readouterr().out
    assert "[bold]a[/].onnx" in out
    assert "[red]h" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_bar_at_a_terminal(terminal: Terminal) -> None:
    work(Output(), terminal, until=lambda: "measuring" in terminal.getvalue())
    assert "measuring" in terminal.getvalue()


def test_no_bar_when_quiet(terminal: Terminal) -> None:
    work(Output(quiet=True), terminal)
    assert terminal.getvalue() == ""


def test_no_bar_in_continuous_integration_nor_in_a_pipe(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("CI", "true")
    work(Output(), terminal)
    assert terminal.getvalue() == ""
    monkeypatch.delenv("CI")
    pipe = io.StringIO()
    work(Output(), pipe)
    assert pipe.getvalue() == ""
    assert capsys.readouterr().out == ""


def test_verbose_logs_each_stage_once(capsys: Capture) -> None:
    work(Output(verbose=True), sys.stderr)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split("] ")[1] for line in captured.err.splitlines()] == ["weighing", "measuring"]


def test_notes(capsys: Capture) -> None:
    Output().note("two\nlines")
    Output(quiet=True).note("unheard")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "note: two lines\n")


@pytest.mark.parametrize("shape", [(1, 4, 6), (4, 6, 1), (4, 6), (3, 4, 6), (4, 6, 3)])
def test_points_as_images_in_any_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from PIL import Image

    x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    points.write_point(str(tmp_path / "x.png"), x, InputSpace(-1.0, 1.0))
    image = np.asarray(Image.open(tmp_path / "x.png"))
    assert image.shape == ((4, 6, 3) if 3 in shape else (4, 6))
    grey = np.round((x + 1) / 2 * 255).squeeze()
    np.testing.assert_array_equal(image, grey.transpose(1, 2, 0) if shape == (3, 4, 6) else grey)


def test_a_point_that_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no image"):
        points.write_point(str(tmp_path / "x.png"), np.zeros((7,), np.float32), InputSpace())
    assert list(tmp_path.iterdir()) == []
