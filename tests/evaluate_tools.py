"""A small run: a random dense network, ten samples, sixty units of work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxsub.cli.main import run as run_cli
from onnxsub.errors import OnnxsubError
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.row import Row, rows_of
from onnxsub.evaluate.run import LEDGER, PLAN
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.seals import SEALED, plan_checksum
from onnxsub.evaluate.settings import Settings
from tests.random_models import random_model

__all__ = [
    "OPTIONS", "ROOT", "SAMPLES", "UNITS", "Call", "begun", "called", "command", "done_units", "facts", "make_files", "rewrite",
    "rows", "small_plan", "start", "undisturbed",
]  # fmt: skip

ROOT = Path(__file__).parents[1]
SAMPLES = 10
OPTIONS = ("--methods", "lin,act", "--gammas", "0.5,0.9", "--labels", "predicted")
UNITS = 6 * SAMPLES
"""Per sample one attack, the network's own distance, two methods times two gammas."""


def make_files(folder: Path) -> tuple[Path, Path]:
    """`net.onnx` and `data.npz` in a folder."""
    model, data = folder / "net.onnx", folder / "data.npz"
    onnx.save(random_model(5, kind="dense", classes=3), model)
    shape = tuple(d.dim_value for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim[1:])
    np.savez(data, x=np.random.default_rng(0).random((SAMPLES, *shape)).astype(np.float32))
    return model, data


def command(model: Path, data: Path, run: Path, *more: str) -> list[str]:
    """The command line that begins the run or goes on with it."""
    return [sys.executable, "-m", "onnxsub", "evaluate", str(model), "--data", str(data), "--run", str(run), *OPTIONS, *more]


def start(argv: list[str], **env: str) -> subprocess.Popen[str]:
    """A run in a process of its own, of this checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **env},
    )  # fmt: skip


def rows(run: Path) -> list[Row]:
    """The rows of a run folder."""
    with Ledger(run / LEDGER, readonly=True) as ledger:
        return list(rows_of(ledger))


def facts(run: Path) -> list[dict[str, Any]]:
    """Everything in the rows that does not depend on the clock."""
    names = [f.name for f in fields(Row) if not f.name.startswith(("time_", "run_s_"))]
    return [{n: getattr(row, n) for n in names} for row in rows(run)]


def begun(run: Path) -> bool:
    """Whether a run's ledger is there and holds its units."""
    try:
        with Ledger(run / LEDGER, readonly=True) as ledger:
            return any(ledger.counts().values())
    except OnnxsubError:  # it is being made
        return False


def done_units(run: Path) -> int:
    """How many units of a run are done."""
    if not begun(run):
        return 0
    with Ledger(run / LEDGER, readonly=True) as ledger:
        return ledger.counts()["done"]


Call = Callable[..., tuple[int, str, str]]


def called(capfd: pytest.CaptureFixture[str]) -> Call:
    """`onnxsub ...` in this process."""

    def run(*args: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_cli([str(a) for a in args])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def undisturbed(folder: Path, files: tuple[Path, Path]) -> Path:
    """A run that nothing disturbed."""
    run = folder / "undisturbed"
    with start(command(*files, run, "--json", "--jobs", "2")) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["schema"] == "onnxsub.evaluate/2"
    assert document["units"] == {"pending": 0, "running": 0, "done": UNITS, "failed": 0}
    assert document["finished"] is True
    assert [line["samples"] for line in document["table"]] == [SAMPLES] * 4
    return run


def small_plan(files: tuple[Path, Path], labels: str = "predicted", limit: int = 2, **settings: Any) -> Plan:
    samples = read_samples(files[1], Choice(limit=limit), labels=labels)
    return Plan.of((str(files[0]),), samples, Settings(gammas=(0.5,), **settings))


def rewrite(run: Path, *statements: str) -> None:
    """A run folder as if it had been written so: rows changed by statements, plan and rows sealed as they are now."""
    plan = run / PLAN
    lines = [line for line in plan.read_text().splitlines() if not line.startswith("checksum = ")]
    checksum = plan_checksum(tomllib.loads("\n".join(lines)))
    plan.write_text("\n".join([f'checksum = "{checksum}"', *lines]) + "\n")
    with Ledger(run / LEDGER) as ledger:
        ledger._db.execute("DELETE FROM meta WHERE key IN ('plan', 'units')")
        ledger.seals.bind(checksum, lambda: "")
        for statement in statements:
            ledger._db.execute(statement)
        for column in ("result", "point", "anchor"):
            ledger._db.execute(f"UPDATE units SET {column} = NULL WHERE state IN ('pending', 'running')")
        own = SEALED.replace(":", "")
        ledger._db.execute(f"UPDATE units SET checksum = CASE WHEN state IN ('done', 'failed') THEN {own} END")
        keys = ledger._db.execute("SELECT model, sample, kind, method, gamma, verifier FROM units ORDER BY id").fetchall()
        ledger.seals.take_over(keys, redo=False)
