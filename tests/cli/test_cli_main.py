"""Help, version, usage errors, exit codes and the purity of standard output."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import onnxsub as package
from onnxsub.cli.main import COMMANDS, cli
from onnxsub.cli.main import run as run_cli
from onnxsub.errors import InputError
from onnxsub.results import VERSION

Run = Callable[..., Any]


REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts elsewhere find this checkout, installed or not."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def python(*args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False, **kwargs)  # type: ignore[call-overload, no-any-return]


def test_version(onnxsub: Run) -> None:
    ran = onnxsub("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"onnxsub, version {VERSION}\n", "")
    assert package.__version__ == VERSION


def test_help_names_every_command(onnxsub: Run) -> None:
    ran = onnxsub("--help")
    assert ran.code == 0
    assert ran.err == ""
    for name in COMMANDS:
        assert f"  {name} " in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example(onnxsub: Run, name: str) -> None:
    ran = onnxsub(name, "--help")
    assert ran.code == 0
    assert f"Example: onnxsub {name}" in " ".join(ran.out.split())
    assert ran.err == ""


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from onnxsub.cli.main import run; run(['--help']); "
        "sys.exit(', '.join(m for m in ('numpy', 'onnx', 'torch', 'scipy', 'rich', 'onnxruntime') if m in sys.modules) or 0)"
    )
    ran = python("-c", script)
    assert ran.returncode == 0, ran.stderr


def test_info_imports_neither_torch_nor_onnxruntime(digits: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['onnxruntime'] = None\n"
        "from onnxsub.cli.main import run; sys.exit(run(['info', 'digits.onnx', '--json']))"
    )
    ran = python("-c", script, cwd=digits)
    assert ran.returncode == 0, ran.stderr
    assert '"units": 832' in ran.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("attack", "digits.onnx", "--x0", "seven.npy", "--nonsense"), "--nonsense"),
        (("attack", "--x0", "seven.npy"), "MODEL"),
        (("attack", "digits.onnx"), "--x0"),
        (("attack", "digits.onnx", "--x0", "seven.npy", "--timeout", "soon"), "soon"),
        (("attack", "digits.onnx", "--x0", "seven.npy", "--device", "abacus"), "abacus"),
        (("attack", "digits.onnx", "--x0", "seven.npy", "--mean", "grey"), "grey"),
        (("attack", "digits.onnx", "extra", "--x0", "seven.npy"), "extra"),
    ],
)
def test_usage_errors(digits: Path, onnxsub: Run, args: tuple[str, ...], says: str) -> None:
    ran = onnxsub(*args)
    assert ran.code == 2
    assert says in ran.line
    assert "--help" in ran.line


def test_an_internal_error_is_one_line_and_a_traceback_with_v(digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("onnxsub.model_info.info", broken)
    ran = onnxsub("info", "digits.onnx")
    assert ran.code == 4
    assert ran.line.startswith("onnxsub: internal error: RuntimeError: first second")
    assert "Traceback" in onnxsub("info", "digits.onnx", "-v").err


def test_an_error_of_ours_has_a_traceback_only_with_v(digits: Path, onnxsub: Run) -> None:
    assert onnxsub("info", "absent.onnx").code == 4
    assert "Traceback" in onnxsub("info", "absent.onnx", "-v").err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (InputError("no"), 4), (MemoryError(), 4)])
def test_errors_become_exit_codes(
    digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def broken(model: object) -> None:
        raise error

    monkeypatch.setattr("onnxsub.model_info.info", broken)
    ran = onnxsub("info", "digits.onnx")
    assert ran.code == code
    assert ran.line.startswith("onnxsub: ")


def test_a_reader_that_goes_away_is_no_error(digits: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "onnxsub", "info", "digits.onnx"]
    ran = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert ran.returncode == 141
    assert ran.stderr == ""


def test_every_command_is_a_click_command() -> None:
    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help
    assert run_cli(["--version"]) == 0


def test_continuous_integration_runs_every_command_with_json() -> None:
    listed = runpy.run_path(str(REPOSITORY / ".ci" / "commands.py"))["_named"]()
    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    for name in COMMANDS:
        command: Any = cli.get_command(context, name)
        for inner, one in getattr(command, "commands", {"": command}).items():
            assert any("--json" in parameter.opts for parameter in one.params)
            assert f"{name} {inner}".strip() in listed, f"give .ci/commands.py a command line of {name} {inner}"


def test_what_libraries_print_does_not_reach_standard_output() -> None:
    code = (
        "import os, sys\n"
        "from onnxsub.process import reserve_standard_output\n"
        "print('before')\n"
        "reserve_standard_output()\n"
        "os.write(1, b'a banner\\n')\n"
        "print('{\"a\": \"\\u00e9\"}')\n"
    )
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, env=environment)
    assert done.stdout == 'before\n{"a": "\u00e9"}\n'
    assert done.stderr == "a banner\n"


LOUD = """
import atexit, os, threading, time
from onnxsub.passes.attack import Attacker
inner = Attacker.run

def loud(*args, **kwargs):
    print("print")
    os.write(1, b"printf\\n")
    os.system("echo a child")
    threading.Thread(target=lambda: (time.sleep(0.3), print("a thread"))).start()
    atexit.register(lambda: print("at the end"))
    return inner(*args, **kwargs)

Attacker.run = loud
from onnxsub.__main__ import main
main()
"""
"""A library that prints in every way that there is, in the middle of `onnxsub attack`."""


def test_nothing_but_the_document_reaches_standard_output(digits: Path) -> None:
    """Neither Python's print nor C's, no child, no thread, nor what is printed while the process ends."""
    done = python("-c", LOUD, "attack", "digits.onnx", "--x0", "seven.npy", "--method", "fgsm", "--json", "--quiet")
    assert json.loads(done.stdout)["schema"] == "onnxsub.attack/1"
    assert sorted(done.stderr.splitlines()) == ["a child", "a thread", "at the end", "print", "printf"]


CHATTY = """
import os, sys, threading, time

def chat():
    while "onnxsub.evaluate.work" not in sys.modules:
        time.sleep(0.01)
    while True:
        print("print", flush=True)
        os.write(1, b"printf\\n")
        os.system("echo a child")
        open(os.environ["CHATTED"], "a").close()
        time.sleep(0.02)

if any("worker" in word for word in sys.orig_argv):
    threading.Thread(target=chat, daemon=True).start()
"""
"""What every Python process runs first: a worker's libraries that print without an end."""


@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_workers_print_nothing_on_standard_output(digits: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    (digits / "path").mkdir()
    (digits / "path" / "sitecustomize.py").write_text(CHATTY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(digits / "path"), str(REPOSITORY)]))
    monkeypatch.setenv("CHATTED", str(digits / "chatted"))
    done = python(
        "-m", "onnxsub", "robustness", "digits.onnx", "--data", "anchors.npz", "--array", "x", "--labels", "y", "--eps", "0.01",
        "--limit", "1", "--engine", engine, "--run", "run", "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proved"] == 1
    assert (digits / "chatted").exists()


def test_help_and_tables_are_on_standard_output(digits: Path) -> None:
    for words, begin in ((["attack", "--help"], "Usage: onnxsub attack"), (["info", "digits.onnx"], "model ")):
        done = subprocess.run([sys.executable, "-m", "onnxsub", *words], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(begin)
        assert done.stderr == ""


def test_a_closed_standard_output_is_no_error() -> None:
    code = "import sys; sys.stdout.close(); from onnxsub.process import reserve_standard_output; reserve_standard_output()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_solver_that_prints_while_it_is_made(capfd: pytest.CaptureFixture[str]) -> None:
    """What version 1.16 of highspy does, by way of the callbacks that its constructor switches on."""
    from onnxsub.verifiers.programs.solvers.highs import _silent

    class Loud:
        def __init__(self) -> None:
            self.options: dict[str, object] = {}
            self.enableCallbacks()

        def setOptionValue(self, name: str, value: object) -> None:  # noqa: N802 - as in the package
            self.options[name] = value

        def enableCallbacks(self) -> None:  # noqa: N802 - as in the package
            if self.options.get("output_flag", True):
                os.write(1, b"Running HiGHS")

    Loud()
    assert capfd.readouterr().out == "Running HiGHS"
    _silent(_Module(Loud))()
    assert capfd.readouterr().out == ""


class _Module:
    """A module as far as `_silent` needs one."""

    def __init__(self, kind: type) -> None:
        self.Highs = kind


def test_the_end_of_a_process_runs_what_waits_for_it_and_nothing_behind() -> None:
    """A library that aborts while it is taken apart does not change the exit code; nothing printed is lost."""
    code = (
        "import atexit, os, signal, sys, threading, time\n"
        "from onnxsub.process import leave\n"
        "class Aborts:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGABRT)\n"
        "keep = Aborts()\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "atexit.register(lambda: print('atexit'))\n"
        "print('result')\n"
        "leave(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert sorted(done.stdout.split()) == ["atexit", "result", "thread"]
    assert done.stdout.split()[-1] == "atexit"


def test_a_pool_that_nobody_closed_does_not_hold_up_the_end() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from onnxsub.process import leave\n"
        "pool = ThreadPoolExecutor(1)\n"
        "pool.submit(print, 'worked').result()\n"
        "leave(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "worked\n", "")
