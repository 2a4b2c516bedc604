"""Runs that could not answer a single sample end before the first one, and leave no folder; nothing decided is exit code 3."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxsub.cli.main import run
from onnxsub.verifiers.programs.solvers import SOLVERS
from tests.random_models import random_model

_SAMPLES = 4


def _data(folder: Path, shape: tuple[int, ...]) -> str:
    np.savez(folder / "data.npz", x=np.random.default_rng(0).random((_SAMPLES, *shape)).astype(np.float32))
    return str(folder / "data.npz")


def _save(folder: Path, kind: str) -> tuple[str, str]:
    """A model of a kind, and data for it."""
    path = folder / f"{kind}.onnx"
    proto = random_model(5, kind="dense", classes=3)
    if kind in ("cos", "sigmoid"):
        relu = next(n for n in proto.graph.node if n.op_type == "Relu")
        relu.op_type = {"cos": "Cos", "sigmoid": "Sigmoid"}[kind]
    if kind == "sub":  # nothing for Marabou
        first = proto.graph.node[0]
        name = proto.graph.input[0].name
        first.input[0] = "moved"
        proto.graph.initializer.append(numpy_helper.from_array(np.array(0.1, dtype=np.float32), "a tenth"))
        proto.graph.node.insert(0, helper.make_node("Sub", [name, "a tenth"], ["moved"]))
    if kind == "softmax":
        proto.graph.node[-1].output[0] = "logits"
        proto.graph.node.append(helper.make_node("Softmax", ["logits"], [proto.graph.output[0].name]))
    onnx.save(proto, path)
    shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:])
    return str(path), _data(folder, shape)


def _tool(folder: Path, word: str) -> str:
    script = folder / "tool.sh"
    script.write_text(f"#!/bin/sh\necho {word} > $5\n")
    script.chmod(0o755)
    return f"command:{script}"


_REFUSED = {
    "operator inside the graph": ("cos", [], "Cos"),
    "operator inside the graph, accuracy": ("cos", ["--metric", "accuracy"], "Cos"),
    "operator inside the graph, security": ("cos", ["--metric", "security"], "Cos"),
    "operator that the tool does not read": ("sub", ["--verifier", f"marabou:{sys.executable}"], "not for Marabou"),
    "operator that nnenum does not read": ("sigmoid", ["--verifier", "nnenum:/bin/true"], "not for nnenum"),
    "lr through a command": ("plain", ["--property", "lr", "--lipschitz", "2", "--verifier", "command:/bin/true"], "property lr"),
    "scr through a command": ("plain", ["--property", "scr", "--eta", "0.5", "--verifier", "command:/bin/true"], "property scr"),
    "sr through a command, behind a head": (
        "softmax", ["--property", "sr", "--delta", "1", "--verifier", "command:/bin/true"], "ends in a head",
    ),
    "sr of norm 2 through milp": (
        "plain", ["--property", "sr", "--delta", "1", "--norm", "2", "--verifier", "milp"], "not piecewise linear",
    ),
    "scr through milp": ("plain", ["--property", "scr", "--eta", "0.5", "--verifier", "milp"], "not piecewise linear"),
    "program that does not exist": ("plain", ["--verifier", "command:no-such-verifier --fast"], "no-such-verifier"),
    "path that does not exist": ("plain", ["--verifier", "nnenum:./no/such/tool.sh"], "./no/such/tool.sh"),
    "interpreter that does not exist": ("plain", ["--verifier", "marabou:/no/such/python"], "/no/such/python"),
    "interpreter that is none": ("plain", ["--verifier", "marabou:/bin/false"], "no Python interpreter"),
    "distances by milp": ("sigmoid", ["--metric", "pointwise", "--verifier", "milp"], "milp"),
    "regions of smooth units": ("sigmoid", ["--metric", "pointwise", "--distances", "region"], "region"),
    "act of smooth units": ("sigmoid", ["--metric", "pointwise", "--distances", "substitute", "--via", "act:0.5"], "--method act"),
}  # fmt: skip


@pytest.mark.parametrize("name", _REFUSED)
def test_what_every_sample_would_fail_on(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, options, words = _REFUSED[name]
    model, data = _save(tmp_path, kind)
    labels = [] if any(p in options for p in ("sr", "lr")) else ["--labels", "predicted"]
    folder = tmp_path / "run"
    code = run(["robustness", model, "--data", data, "--eps", "0.1", "--run", str(folder), "--quiet", *labels, *options])
    said = capsys.readouterr()
    assert code == 4, said.err
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert not folder.exists()


def test_a_solver_that_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = _save(tmp_path, "plain")
    monkeypatch.setattr(type(SOLVERS["scip"]), "package", "no_such_solver")
    more = ["--data", data, "--labels", "predicted", "--verifier", "milp", "--solver", "scip", "--quiet"]
    for command in (["robustness", model, "--eps", "0.1"], ["evaluate", model], ["adversarial", model, "--eps", "0.1"]):
        folder = tmp_path / command[0]
        assert run([*command, *more, "--run", str(folder)]) == 4
        assert "scip is not installed" in capsys.readouterr().err
        assert not folder.exists()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("cos", [], "Cos"),
        ("plain", ["--verifier", "command:no-such-verifier"], "no-such-verifier"),
        ("sigmoid", ["--methods", "act"], "--method act"),
    ],
)
def test_evaluate_has_the_same_guard(
    kind: str, options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = _save(tmp_path, kind)
    folder = tmp_path / "run"
    assert run(["evaluate", model, "--data", data, "--labels", "predicted", "--run", str(folder), "--quiet", *options]) == 4
    assert words in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.slow
def test_a_run_can_be_gone_on_with_after_the_repair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = _save(tmp_path, "plain")
    spec, folder = _tool(tmp_path, "unknown"), tmp_path / "run"
    begin = ["robustness", model, "--data", data, "--labels", "predicted", "--eps", "0.1", "--verifier", spec]
    assert run([*begin, "--run", str(folder), "--quiet"]) == 3  # undecided all of them
    capsys.readouterr()
    (tmp_path / "tool.sh").rename(tmp_path / "gone.sh")
    again = ["robustness", "--run", str(folder), "--quiet"]
    assert run(again) == 4  # the folder names a program
    assert "--allow-commands" in capsys.readouterr().err
    assert run([*again, "--allow-commands"]) == 3  # nothing is left to do, so nothing is missing
    (tmp_path / "gone.sh").rename(tmp_path / "tool.sh")
    assert run([*again, "--allow-commands"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 0),
        (["--metric", "security"], 0),  # an attack that fails is an answer
        (["--metric", "accuracy", "--draws", "10"], 0),
        (["--metric", "pointwise", "--distances", "attack"], 3),  # nothing is proved, and nothing lies within the radius
        (["--property", "confidence", "--gamma", "0.999", "--verifier", "TOOL"], 4),
        (["--verifier", "TOOL"], 3),
        (["--metric", "global", "--verifier", "TOOL"], 3),
    ],
    ids=str,
)
def test_nothing_decided_is_exit_code_3(options: list[str], code: int, tmp_path: Path) -> None:
    model, data = _save(tmp_path, "plain")
    tool = _tool(tmp_path, "unknown")
    given = [tool if o == "TOOL" else o for o in options]
    labels = [] if "confidence" in options else ["--labels", "predicted"]
    begin = ["robustness", model, "--data", data, *labels, "--eps", "1e-5", "--run", str(tmp_path / "run"), "--quiet"]
    assert run([*begin, *given]) == code
