"""A module in the working folder is never imported, by no process of ours; a run folder starts no program by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxsub.errors import InputError
from onnxsub.evaluate.plan import Plan, write_plan
from onnxsub.evaluate.run import RunOptions, Settings, open_run
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.isolation import leave_working_folder, python_environment, python_module, safe_children
from tests.evaluate_tools import make_files
from tests.hostile.traps import caught, run_in, set_traps

SCRIPT = "import sys; sys.path[0:1] = []; from onnxsub.__main__ import main; main()"
"""What the installed program `onnxsub` does: its own folder is first on the path, never the working folder."""


@pytest.mark.parametrize("program", [("-P", "-m", "onnxsub"), ("-c", SCRIPT)], ids=["-P -m", "script"])
def test_no_module_of_the_working_folder_is_imported(tmp_path: Path, program: tuple[str, ...]) -> None:
    model, _ = make_files(tmp_path)
    set_traps(tmp_path)
    done = run_in(tmp_path, "info", model.name, program=program)
    assert done.returncode == 0, done.stderr
    assert caught(tmp_path) == []


def test_nor_by_workers(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    set_traps(tmp_path)
    options = ("--labels", "predicted", "--limit", "1", "--gammas", "0.9", "--timeout", "20")
    done = run_in(tmp_path, "evaluate", model.name, "--data", data.name, "--run", "study", *options)
    assert done.returncode == 0, done.stderr
    assert "3 done" in done.stdout
    assert caught(tmp_path) == []


def test_a_worker_finds_this_package_and_no_folder_of_it_on_its_path(tmp_path: Path) -> None:
    (tmp_path / "onnxsub").mkdir()
    (tmp_path / "onnxsub" / "__init__.py").write_text("raise SystemExit(7)")
    program, *words = python_module("onnxsub.results")
    words[2] = words[2].replace("import runpy", "print(onnxsub.__file__); print(root in sys.path); import runpy")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([program, *words], cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    where, on_path = done.stdout.split()
    assert Path(where).resolve().parents[1] == Path(__file__).resolve().parents[2]
    plain = "import sys, onnxsub, os; print(os.path.dirname(os.path.dirname(os.path.abspath(onnxsub.__file__))) in sys.path)"
    own = subprocess.run([program, "-P", "-c", plain], cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert own.returncode == 0, own.stderr
    assert on_path == own.stdout.strip(), "no more than the installation itself puts there"


def test_the_environment_of_other_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/a", "", "/b"]))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    assert python_environment() == {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(["/a", "/b"])}
    with safe_children():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ
    assert os.environ["PYTHONPATH"].startswith(os.pathsep)


def test_the_folder_that_python_m_puts_on_the_path_is_taken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/elsewhere"])
    leave_working_folder()
    assert sys.path == ["/elsewhere"]
    leave_working_folder()
    assert sys.path == ["/elsewhere"]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/elsewhere"])
    leave_working_folder()
    assert sys.path == [str(tmp_path), "/elsewhere"]


@pytest.mark.parametrize("verifier", ["command:./evil.sh", "nnenum:./evil.sh", "marabou:./evil"])
def test_a_received_folder_starts_no_program(tmp_path: Path, verifier: str) -> None:
    model, data = make_files(tmp_path)
    samples = read_samples(data, Choice(limit=1), None, "predicted")
    folder = tmp_path / "run"
    folder.mkdir()
    settings = Settings(verifiers=(verifier,), timeout=5.0)
    write_plan(Plan.of((str(model),), samples, settings), folder / "run.toml")
    with pytest.raises(InputError, match=r"names a program to start.*--allow-commands"):
        open_run(folder)
    assert open_run(folder, allow_commands=RunOptions(allow_commands=True).allow_commands).settings == settings
