"""Ctrl-C and SIGTERM end every command with 130, one line and no traceback, during imports too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to one process")

SIGNALS = [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
NAMES = ["SIGINT", "SIGTERM", "SIGTERM with SIGINT ignored"]


def start(arguments: list[str], ignored: bool, path: str = "") -> subprocess.Popen[str]:
    """A process that may have been started with SIGINT ignored, as `nohup` in a script does."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in (path, str(REPOSITORY)) if p)}
    return subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=ignore if ignored else None,
    )  # fmt: skip


def blocking_anchor(folder: Path) -> tuple[Path, Path, str]:
    """An anchor at whose opening a command waits, the file that says so, and what PYTHONPATH must begin with."""
    anchor, opened, stub = folder / "anchor.csv", folder / "opened", folder / "stub"
    anchor.write_text("0")
    stub.mkdir()
    (stub / "sitecustomize.py").write_text(
        "import pathlib, sys, time\n"
        "def wait(event, given):\n"
        f"    if event == 'open' and str(given[0]) == {str(anchor)!r}:\n"
        f"        pathlib.Path({str(opened)!r}).touch()\n"
        "        time.sleep(600)\n"
        "sys.addaudithook(wait)\n"
    )
    return anchor, opened, str(stub)


def wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "ignored"), SIGNALS, ids=NAMES)
@pytest.mark.parametrize("command", [("attack",), ("bounds", "--eps", "0.1"), ("prune",), ("export-property", "--eps", "0.1")])
def test_every_command_ends_with_one_line(digits: Path, command: tuple[str, ...], number: signal.Signals, ignored: bool) -> None:
    anchor, opened, stub = blocking_anchor(digits)
    process = start(["-m", "onnxsub", command[0], "digits.onnx", "--x0", str(anchor), *command[1:]], ignored, stub)
    wait(opened.exists, "the command never opened its anchor")
    time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (out, err) == ("", "onnxsub: interrupted\n")
    assert not list(digits.glob("*.lin-*"))


@pytest.mark.parametrize(("number", "ignored"), SIGNALS, ids=NAMES)
def test_during_an_import_that_makes_another_error_of_it(digits: Path, number: signal.Signals, ignored: bool) -> None:
    # what a C extension does with an exception that surfaces inside it
    stub = digits / "stub" / "numpy"
    stub.mkdir(parents=True)
    text = (
        "import pathlib, time\n"
        "pathlib.Path('importing').touch()\n"
        "try:\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    raise ImportError('numpy.core.multiarray failed to import')\n"
    )
    (stub / "__init__.py").write_text(text)
    process = start(["-m", "onnxsub", "info", "digits.onnx"], ignored, str(stub.parent))
    wait(Path("importing").exists, "the stub was never imported")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (out, err) == ("", "onnxsub: interrupted\n")


WORK = """
import pathlib, sys, threading, time, os, signal
from onnxsub.cli import signals
signals.install()
signals.begin()
try:
    import late
    time.sleep(30)
except KeyboardInterrupt:
    print("handed out", "late" in sys.modules, late.complete)
print(signals.interrupted())
signals.finish()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.05)
print("end")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_in_the_middle_of_the_work_is_not_torn(tmp_path: Path, number: signal.Signals) -> None:
    send = f"import os, signal, time\nos.kill(os.getpid(), signal.{number.name})\ntime.sleep(0.1)\ncomplete = True\n"
    (tmp_path / "late.py").write_text(send)
    (tmp_path / "work.py").write_text(WORK)
    process = start([str(tmp_path / "work.py")], ignored=False)
    out, err = process.communicate(timeout=60)
    assert err == ""
    assert out.splitlines() == ["handed out True True", "True", "end"]
    assert process.returncode == 0


DROPPED = """
import os, signal, time
from onnxsub.cli import signals
signals.install()
class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
closing = Closing()
del closing
print(signals.interrupted())
"""


def test_an_exception_that_the_interpreter_drops_is_noted_and_silent(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(DROPPED)
    process = start([str(tmp_path / "work.py")], ignored=False)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("True\n", "")


def test_a_job_in_the_background_is_not_ended_by_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import os, signal\nfrom onnxsub.cli import signals\nsignals.install()\nos.kill(os.getpid(), signal.SIGINT)\nprint('on')\n"
    )
    process = start([str(tmp_path / "work.py")], ignored=True)
    out, _ = process.communicate(timeout=60)
    assert out == "on\n"
