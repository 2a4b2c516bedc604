"""What is shown while a command works: at a terminal, in a pipe, with `-v`; and that no result is written into it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxsub.budget import Budget
from onnxsub.cli import waiting
from onnxsub.cli.waiting import Waiting

pty = pytest.importorskip("pty")

Run = Callable[..., Any]


def seen(*arguments: str, cwd: Path, result: str = "file", **variables: str) -> tuple[int, str, str, list[float]]:
    """Exit code, standard output, what a terminal saw, and when something came, in seconds since the start.

    Args:
        result: where standard output goes: `file`, or `terminal`.
    """
    here, there = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "CI"}
    environment |= {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    out = cwd / "out.txt"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "onnxsub", *arguments], stdin=subprocess.DEVNULL, stdout=there if result == "terminal" else file,
            stderr=there, cwd=cwd, env=environment,
        )  # fmt: skip
    os.close(there)
    text, times, began = b"", [0.0], time.monotonic()
    while time.monotonic() - began < 120:
        if select.select([here], [], [], 0.1)[0]:
            part = b""
            with contextlib.suppress(OSError):  # the other end is closed
                part = os.read(here, 65536)
            if not part:
                break
            text += part
            times.append(time.monotonic() - began)
    code = process.wait(timeout=60)
    os.close(here)
    return code, out.read_text(), text.decode(), [*times, time.monotonic() - began]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_line_tells_the_bracket_and_is_gone_at_the_end(digits: Path) -> None:
    how = ("--timeout", "4", "--json", "--threads", "1")
    code, out, text, times = seen("distance", "digits.onnx", "--x0", "seven.npy", *how, cwd=digits)
    assert code in (0, 3), text
    assert json.loads(out)["schema"] == "onnxsub.distance/1"
    shown = plain(text)
    assert "loading" in shown  # while it imports, which takes seconds
    assert re.search(r"0:0\d .*attack +\[0, inf\] +\w+", shown)
    assert re.search(r"\d+% [a-z]+ +\[0\.\d+, 0\.\d+\]", shown)
    assert max(b - a for a, b in itertools.pairwise(times)) < 10  # 2 on a machine that has nothing else to do
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back
    assert shown.splitlines()[-1].strip() == ""


def test_a_table_at_a_terminal_stands_for_itself(digits: Path) -> None:
    code, _, text, _ = seen("verify", "digits.onnx", "--x0", "seven.npy", "--eps", "0.05", cwd=digits, result="terminal")
    assert code == 0, text
    after = plain(text[text.rindex("\x1b[?25h") :])
    assert after.splitlines()[0].strip().startswith("anchor") or after.splitlines()[1].strip().startswith("anchor")
    assert "proved" in after


@pytest.mark.parametrize("how", [{"CI": "true"}, {"TERM": "dumb"}])
def test_no_line_is_rewritten_where_nobody_sees_it(digits: Path, how: dict[str, str]) -> None:
    code, _, text, _ = seen("bounds", "digits.onnx", "--x0", "seven.npy", "--eps", "0.1", "--json", cwd=digits, **how)
    assert (code, text) == (0, "")


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(waiting, "_PIPE", 0.05)
    with waiting.shown(quiet=False, verbose=False) as display:
        display.report(0.0, "bounds")
        display.report(0.5, "class 3: minimising", "[0.1, 0.2]")
        deadline = time.monotonic() + 30
        found = ""
        while found.count("\n") < 2 and time.monotonic() < deadline:
            found += capsys.readouterr().err
    assert found.splitlines()[1] == "onnxsub: 0 s, bounds  [0.1, 0.2]  class 3: minimising"
    with waiting.shown(quiet=True, verbose=False) as display:
        display.report(0.0, "bounds")
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_what_a_line_says() -> None:
    display = Waiting()
    display.report(0.1, "attack")
    display.report(0.1, "attack: descend, radius 0.1 so far")
    assert display.line == "attack  descend, radius 0.1 so far"
    display.report(0.1, "bounds", "[0.05, 0.1]")
    assert display.line == "bounds  [0.05, 0.1]"
    display.report(0.1, "search: 12 nodes open")
    display.report(0.1, "solve")
    assert display.line == "solve  [0.05, 0.1]  search: 12 nodes open"


def test_a_log_is_of_stages_not_of_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting.shown(quiet=False, verbose=True) as display:
        for i in range(500):
            for text in ("bounds", f"search: {i} nodes open", "solve"):
                display.report(0.0, text)
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]
    assert lines[:3] == ["bounds", "bounds  search: 0 nodes open", "solve"]
    assert len(lines) < 6


def test_stages_of_a_budget_are_told() -> None:
    told: list[str] = []
    budget = Budget(tell=told.append)
    with budget.stage("attack"), budget.part(1.0).stage("bounds"):
        budget.tell("a word")
    inner: list[str] = []
    with budget.telling(inner.append), budget.stage("solve"):
        pass
    budget.tell("end")
    assert told == ["attack", "bounds", "a word", "attack", "end"]
    assert inner == ["solve"]


def test_verbose_has_a_line_for_every_stage(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("distance", "digits.onnx", "--x0", "seven.npy", "--via", "lin:0.99", "--json", "-v", "--threads", "1")
    assert ran.code in (0, 3)
    assert ran.json["original"]
    stages = [re.sub(r"^\[ *\d+\.\d\d s\] ", "", line).split(" ")[0] for line in ran.err.splitlines()]
    assert {"reading", "attack", "original", "prune", "verify"} <= set(stages)


def test_a_note_stands_above_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(waiting, "_PATIENCE", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal), waiting.shown(quiet=False, verbose=False) as display:
        display.report(0.0, "weighing")
        deadline = time.monotonic() + 30
        while "weighing" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        display.say("note: [bold] is no markup")
        display.say("note: " + "long " * 60)
    lines = plain(terminal.getvalue()).splitlines()
    assert any(line.rstrip().endswith("note: [bold] is no markup") for line in lines)
    assert any(line.strip().endswith("long " * 59 + "long") for line in lines)
