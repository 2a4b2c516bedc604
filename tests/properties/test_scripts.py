"""The VNN-COMP scripts (interface v1) and what stands behind them: a results file, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxsub.cli.vnncomp import main, run_instance
from onnxsub.model import load_model
from onnxsub.properties import load_property, read_witness, robustness_property, write_property
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from tests.random_models import random_model

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "vnncomp"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """net.onnx, safe.vnnlib (a tiny ball), unsafe.vnnlib (the whole domain)."""
    onnx.save(random_model(7, kind="dense", classes=3), tmp_path / "net.onnx")
    model = load_model(tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    query = make_query(model, rng.random(model.input_shape).astype(np.float32))
    (tmp_path / "safe.vnnlib").write_text(write_property(robustness_property(query, 1e-5)))
    wide = robustness_property(query, 1.0)
    (tmp_path / "unsafe.vnnlib").write_text(write_property(wide))
    (tmp_path / "bad.vnnlib").write_text("(declare-const X_0 Real)")
    return tmp_path


def run(name: str, *args: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ONNXSUB_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(SCRIPTS / name), *map(str, args)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


def test_the_three_answers(instance: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net, results = str(instance / "net.onnx"), instance / "out.txt"
    assert run_instance(net, str(instance / "safe.vnnlib"), str(results), 100_000) == 0
    assert results.read_text() == "unsat\n"
    assert run_instance(net, str(instance / "bad.vnnlib"), str(results), 100_000) == 4
    assert results.read_text() == "error\n"
    assert "bad.vnnlib:1:1: no output is declared" in capfd.readouterr().err
    assert main([net, str(instance / "none.vnnlib"), str(results), "1e6"]) == 4
    assert main([net]) == 2
    assert main([net, net, str(results), "soon"]) == 2
    assert run_instance(net, str(instance / "safe.vnnlib"), str(results), 1e-9) == 0
    assert results.read_text() == "timeout\n"


def test_a_sat_answer_replays_from_the_file_alone(instance: Path) -> None:
    model = load_model(instance / "net.onnx")
    question = load_property(instance / "unsafe.vnnlib", model)
    results = instance / "out.txt"
    assert run_instance(str(instance / "net.onnx"), str(instance / "unsafe.vnnlib"), str(results), 100_000) == 0
    text = results.read_text()
    assert text.startswith("sat\n((X_0 ")
    x, y = read_witness(text, question)
    replayed = Runtime(model).raw(x.astype(np.float32).reshape(1, *model.input_shape)).reshape(-1)
    assert question.satisfied_by(x, replayed)
    assert y is not None
    assert np.array_equal(y.astype(np.float32), replayed)


@pytest.mark.slow
def test_the_scripts(instance: Path) -> None:
    net, results = instance / "net.onnx", instance / "out.txt"
    assert run("prepare_instance.sh", "v1", "test", net, instance / "safe.vnnlib").returncode == 0
    ran = run("run_instance.sh", "v1", "test", net, instance / "safe.vnnlib", results, 100)
    assert (ran.returncode, results.read_text()) == (0, "unsat\n"), ran.stderr
    ran = run("run_instance.sh", "v1", "test", net, instance / "bad.vnnlib", results, 100)
    assert (ran.returncode, results.read_text()) == (0, "error\n")
    assert "no output is declared" in ran.stderr


def test_wrong_use_of_the_scripts(instance: Path) -> None:
    for name in ("install_tool.sh", "prepare_instance.sh", "run_instance.sh"):
        ran = run(name, "v2")
        assert ran.returncode == 1
        assert "expected version v1, got 'v2'" in ran.stderr
    for name in ("prepare_instance.sh", "run_instance.sh"):
        assert "usage" in run(name, "v1", "test").stderr
    ran = run("prepare_instance.sh", "v1", "test", instance / "none.onnx", instance / "safe.vnnlib")
    assert ran.returncode == 1
    assert "cannot read" in ran.stderr


def test_a_dead_interpreter_leaves_the_word_error(instance: Path) -> None:
    environment = {**os.environ, "ONNXSUB_PYTHON": "false"}
    results = instance / "out.txt"
    args = [str(a) for a in ("v1", "test", instance / "net.onnx", instance / "safe.vnnlib", results, 10)]
    ran = subprocess.run(
        [str(SCRIPTS / "run_instance.sh"), *args], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert (ran.returncode, results.read_text()) == (0, "error\n")
