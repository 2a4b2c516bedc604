"""Names out of files as they are shown: at a terminal, in tables, in messages; and streams that are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxsub.cli.main import run
from onnxsub.evaluate.tables import cell
from onnxsub.files import one_line
from onnxsub.report.table import Table, to_latex, to_markdown
from onnxsub.visible import safe_cell, visible
from tests.hostile.bombs import model_of

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[32mproved\u202e\u2066\x9b\r"


def evil_model(path: Path, kind: str = "Relu", domain: str = "") -> Path:
    node = helper.make_node(kind, ["x"], [f"h{EVIL}"], name=f"n{EVIL}", domain=domain)
    model = model_of([node], {}, f"h{EVIL}")
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, path)
    return path


def harmless(text: str) -> bool:
    return text == visible(text)


def test_what_is_hidden_is_shown() -> None:
    assert visible("a\x1b[2Jb\u202ec\ud800\n") == "a\\x1b[2Jb\\u202ec\\ud800\n"
    assert visible("Übergang 模型 ±") == "Übergang 模型 ±"
    assert one_line(f"said {EVIL}").startswith("said \\x1b]0;owned\\x07")


@pytest.mark.parametrize(("kind", "domain"), [("Relu", ""), ("a\x1b[31m.Zork", f"dom{EVIL}")])
def test_names_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, domain: str) -> None:
    path = evil_model(tmp_path / "m.onnx", kind, domain)
    assert run(["info", str(path)]) == 0
    printed = capsys.readouterr()
    assert harmless(printed.out)
    assert harmless(printed.err)
    assert "\\x1b[2J" in printed.out
    assert run(["info", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert json.loads(out)["schema"].startswith("onnxsub.info/")


def test_names_in_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = evil_model(tmp_path / f"m{EVIL}.onnx", "Zork", "dom")
    np.save(tmp_path / "x.npy", np.full((1, 4), 0.5, np.float32))
    assert run(["verify", str(path), "--x0", str(tmp_path / "x.npy"), "--eps", "0.1"]) == 4
    assert run(["verify", str(tmp_path / f"none{EVIL}"), "--x0", EVIL.replace("\x00", ""), "--eps", "0.1"]) == 4
    assert harmless(capsys.readouterr().err)


def test_cells_of_tables() -> None:
    assert [safe_cell(t) for t in ("=cmd|'/c calc'!A0", "+1+1", "-2", "1e5", "@x", "plain", "-x\x1b")] == [
        "'=cmd|'/c calc'!A0", "'+1+1", "-2", "1e5", "'@x", "plain", "'-x\\x1b",
    ]  # fmt: skip
    assert cell("=1") == "'=1"
    assert cell(-1.5) == -1.5
    assert cell((1, 2)) == "1 2"


def test_markup_in_names() -> None:
    table = Table("t", "note", ("model",), (False,), (("<img src=x onerror=a()>",), (r"\input{x} $a$",), (f"b{EVIL}",)))
    markdown, latex = to_markdown([table]), to_latex([table])
    assert "<img" not in markdown
    assert harmless(markdown)
    assert harmless(latex)
    assert r"\input{" not in latex


def child(tmp_path: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    path = evil_model(tmp_path / "m.onnx")
    command = f'"{sys.executable}" -P -m onnxsub {line.format(model=path.name)}'
    return subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **env},
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full"])
def test_streams_that_are_closed_or_full(tmp_path: Path, streams: str) -> None:
    good, bad = child(tmp_path, "info {model} " + streams), child(tmp_path, "info none.onnx " + streams)
    assert good.returncode == (4 if "full" in streams else 0)
    assert bad.returncode == 4
    for done in (good, bad):
        assert "internal error" not in done.stderr
        assert "Traceback" not in done.stderr
    assert bad.stdout == ""  # a message is not the result


def test_an_ascii_locale_and_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii", "HOME": "/proc/none"}
    evil_model(tmp_path / "m.onnx").rename(tmp_path / "Übergang.onnx")
    done = child(tmp_path, "info Übergang.onnx", **env)
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
