"""What CI systems read: the action's steps run in a shell, the hook's manifest, and every YAML of docs/ci.md, also in a shell."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import junitparser
import pytest
import yaml

from onnxsub.cli.main import COMMANDS, cli
from tests.gate.tools import Told, tell

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "ci.md").read_text(), re.M | re.S)]


@dataclass(frozen=True)
class Shell:
    """A job's shell: `pip install` is only noted, `python` and `onnxsub` are those of this test."""

    folder: Path

    def run(
        self, script: str, env: Mapping[str, str] | None = None, shell: str = "bash -e -o pipefail"
    ) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return subprocess.run(
            [*shlex.split(shell), "-c", script], cwd=self.folder, text=True, capture_output=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path, "CI": "true", **(env or {})},
        )  # fmt: skip

    @property
    def installed(self) -> list[str]:
        """What pip was asked for."""
        note = self.folder / "pip.log"
        return note.read_text().splitlines() if note.exists() else []


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    folder = tmp_path / "job"
    (folder / "bin").mkdir(parents=True)
    pip = f'printf "%s\\n" "$*" >> {shlex.quote(str(folder / "pip.log"))}'
    scripts = {
        "python": f'if [ "$1 $2" = "-m pip" ]; then shift 2; {pip}; exit 0; fi\nexec {shlex.quote(sys.executable)} "$@"',
        "pip": pip,
        "onnxsub": f'exec {shlex.quote(sys.executable)} -m onnxsub "$@"',
    }
    for name, script in scripts.items():
        file = folder / "bin" / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)
    return Shell(folder)


def measured(shell: Shell, patch: pytest.MonkeyPatch, old: str, new: str, **more: Any) -> Told:
    """Models and data in the job's folder, with both runs in its cache: a job of before has done them."""
    told = tell(shell.folder, patch, old, new)
    told.gate(cache=shell.folder / ".onnxsub-gate", **more)
    return told


def steps(given: Mapping[str, str], outputs: Path) -> list[tuple[str, dict[str, str], str]]:
    """Script, environment and shell of each step that runs one."""
    values = {name: str(given.get(name, spec.get("default", ""))) for name, spec in ACTION["inputs"].items()}
    assert not set(given) - set(values)
    missing = [name for name, spec in ACTION["inputs"].items() if spec.get("required") and name not in given]
    assert not missing

    def filled(text: str) -> str:
        known = {**{f"inputs.{name}": value for name, value in values.items()}, "github.action_path": str(ROOT)}
        return re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda m: known[m.group(1)], str(text))

    found = []
    for step in ACTION["runs"]["steps"]:
        if "run" in step:
            assert "${{" not in step["run"], "an input inside a script is a way in for commands"
            env = {name: filled(text) for name, text in step.get("env", {}).items()}
            env |= {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": f"{outputs}.md"}
            found.append((step["run"], env, step["shell"]))
    return found


@pytest.mark.parametrize(
    ("new", "given", "code", "verdict"),
    [
        ("PPPPV", {}, 0, "passed"),
        (
            "PPPVV", {"min-proved": "0.5", "max-drop": "0.1", "limit": "5", "nodes": "2000", "args": "--fail-on undecided"},
            1, "failed",
        ),
        ("PPPVV", {"args": "--no-such-option"}, 2, "error"),
    ],
)  # fmt: skip
def test_the_steps_of_the_action(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, new: str, given: dict[str, str], code: int, verdict: str
) -> None:
    measured(shell, monkeypatch, "PPPPV", new)
    outputs = shell.folder / "outputs"
    inputs = {"model": "candidate.onnx", "baseline": "released.onnx", "data": "data.npz", "eps": "0.1", "pip-args": "--quiet"}
    inputs |= given
    ran = [shell.run(script, env, f"{name} --noprofile --norc -e -o pipefail") for script, env, name in steps(inputs, outputs)]
    assert [r.returncode for r in ran] == [0, code], ran[-1].stderr
    assert shell.installed == [f"install --disable-pip-version-check --quiet {ROOT}[cpu,report]"]
    assert outputs.read_text() == f"verdict={verdict}\n"
    assert ("::error" in ran[-1].stdout) == (code != 0)
    if verdict == "error":
        assert "No such option" in ran[-1].stderr
        return
    folder = shell.folder / "onnxsub-gate"
    document = json.loads((folder / "gate.json").read_text())
    assert (document["verdict"], document["new"]["computed"], document["baseline"]["computed"]) == (verdict, 0, 0)
    assert len(next(iter(junitparser.JUnitXml.fromfile(str(folder / "gate.xml"))))) == 5 + len(document["checks"])
    for name in ("gate.md", "gate.svg", "gate.sarif", "page/index.html"):
        assert (folder / name).stat().st_size > 100
    assert Path(f"{outputs}.md").read_text().startswith(f"## Robustness gate: {verdict}")


def test_the_action_is_one() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert all(step.get("shell") == "bash" for step in ACTION["runs"]["steps"] if "run" in step)
    used = set(re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(ACTION["inputs"])
    (gate,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == "gate"]
    assert all(f"${name}" in gate["run"] for name in gate["env"])


def options_of(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def known_options() -> set[str]:
    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    command = cli.get_command(context, "gate")
    assert command is not None
    return {name for parameter in command.params for name in parameter.opts}


def test_the_hook() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"].split() == ["onnxsub", "gate"]
    assert "gate" in COMMANDS
    assert (hook["pass_filenames"], hook["language"]) == (False, "python")
    assert re.search(hook["files"], "models/a.onnx")
    assert not re.search(hook["files"], "a.onnx.md")
    (used,) = [h for block in BLOCKS if isinstance(block, dict) for repo in block.get("repos", ()) for h in repo["hooks"]]
    assert used["id"] == hook["id"]
    assert options_of(used["args"]) <= known_options()


def test_the_workflow_has_ten_lines_that_work(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "ci.md").read_text()
    (lines,) = re.findall(r"^```yaml\n(on:.*?)^```$", text, re.M | re.S)
    assert len(lines.splitlines()) == 10
    (workflow,) = [block for block in BLOCKS if isinstance(block, dict) and "jobs" in block]
    (job,) = workflow["jobs"].values()
    told = measured(shell, monkeypatch, "PPPPV", "PPPVV", eps=0.05, limit=200)
    told.new.rename(shell.folder / "model.onnx")
    told.data.rename(shell.folder / "test.npz")
    ran = [shell.run(step["run"]) for step in job["steps"] if "run" in step]
    assert [r.returncode for r in ran] == [0, 1], ran[-1].stderr
    assert shell.installed == ["install onnxsub[cpu,report]"]
    assert "1 lost, 0 won" in ran[-1].stdout
    assert ran[-1].stderr == ""


def test_the_gitlab_job(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = [block["robustness"] for block in BLOCKS if isinstance(block, dict) and "robustness" in block]
    told = measured(shell, monkeypatch, "PPPPV", "PPPUV", eps=0.05, limit=200)
    told.new.rename(shell.folder / "model.onnx")
    told.data.rename(shell.folder / "test.npz")
    ran = [shell.run(line) for line in job["script"]]
    assert [r.returncode for r in ran] == [0, 3], ran[-1].stderr
    assert job["allow_failure"]["exit_codes"] == [3]
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"], *job["cache"]["paths"]]:
        assert (shell.folder / path).exists()


def test_the_action_in_the_manual_has_its_inputs() -> None:
    (step, upload) = next(block for block in BLOCKS if isinstance(block, list))
    assert set(step["with"]) <= set(ACTION["inputs"])
    assert upload["with"]["path"] == ACTION["inputs"]["output"]["default"]


def test_the_example_for_pytest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "ci.md").read_text(), re.M | re.S)
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(text, "docs/ci.md", "exec"), names)
    (test,) = [value for name, value in names.items() if name.startswith("test_")]
    test()
    monkeypatch.setitem(names, "assert_robust", lambda *given, **more: (_ for _ in ()).throw(AssertionError("called")))
    with pytest.raises(AssertionError, match="called"):
        test()
