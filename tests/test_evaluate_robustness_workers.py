"""`onnxsub robustness` with workers of its own: killed and gone on with, and on a Ray cluster.

Slow because each process imports torch, and because a killed run must have had the time to do something.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from onnxsub.evaluate.drive import LEDGER, PLAN
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.plan import write_plan
from onnxsub.evaluate.robustness.job import RobustnessJob
from tests.evaluate_tools import ROOT, SAMPLES, done_units, make_files, start
from tests.robustness_tools import plan_of

pytestmark = pytest.mark.slow

ARGUMENTS = ("--eps", "0.1", "--labels", "predicted", "--jobs", "2", "--json")


def argv(files: tuple[Path, Path], run: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "onnxsub", "robustness", str(files[0]), "--data", str(files[1]), "--run", str(run), *ARGUMENTS, *more
    ]  # fmt: skip


def facts(run: Path) -> list[dict[str, Any]]:
    """The rows without their times."""
    rows = pyarrow.parquet.read_table(run / "results.parquet").to_pylist()
    return [{k: v for k, v in row.items() if not k.startswith("time_")} for row in rows]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "calm"
    subprocess.run(argv(files, run), check=True, capture_output=True, cwd=ROOT)
    return run


def log_bookings(run: Path, files: tuple[Path, Path]) -> None:
    """Makes a ledger that writes down every time that a unit is booked as done."""
    plan = plan_of(files)
    run.mkdir()
    write_plan(plan, run / PLAN)
    with Ledger(run / LEDGER, kinds=RobustnessJob(plan).kinds) as ledger:
        ledger.add(RobustnessJob(plan).units())
    db = sqlite3.connect(run / LEDGER)
    db.execute("CREATE TABLE bookings (unit INTEGER)")
    db.execute(
        "CREATE TRIGGER booked AFTER UPDATE OF state ON units WHEN NEW.state = 'done' "
        "BEGIN INSERT INTO bookings VALUES (NEW.id); END"
    )
    db.commit()
    db.close()


def test_killed_and_finished(tmp_path: Path, files: tuple[Path, Path], calm: Path) -> None:
    run = tmp_path / "run"
    log_bookings(run, files)
    for kill in range(2):
        with start(argv(files, run)) as process:
            goal = done_units(run) + 2
            while process.poll() is None and done_units(run) < goal:
                time.sleep(0.02)
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late"
    assert 0 < done_units(run) < SAMPLES
    with start(argv(files, run)) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["units"]["done"] == SAMPLES
    db = sqlite3.connect(run / LEDGER)
    assert [u for (u,) in db.execute("SELECT unit FROM bookings ORDER BY unit")] == list(range(1, SAMPLES + 1))
    db.close()
    assert facts(run) == facts(calm)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "onnxsub[ray]"')
def test_two_ray_workers(tmp_path: Path, files: tuple[Path, Path], calm: Path) -> None:
    with start(argv(files, tmp_path / "ray", "--engine", "ray")) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["units"] == {"pending": 0, "running": 0, "done": SAMPLES, "failed": 0}
    assert facts(tmp_path / "ray") == facts(calm)
