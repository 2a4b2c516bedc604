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
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from onnxsub.evaluate.drive import LEDGER
from tests.evaluate_tools import ROOT, SAMPLES, done_units, make_files, start

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


def bookings(run: Path) -> dict[int, tuple[float, str, int]]:
    """When every unit was booked as done, by its number: seconds that it took, time of day, attempts."""
    with closing(sqlite3.connect(run / LEDGER)) as db:
        return {u: tuple(more) for u, *more in db.execute("SELECT id, seconds, finished, attempts FROM units WHERE state = 'done'")}


def test_killed_and_finished(tmp_path: Path, files: tuple[Path, Path], calm: Path) -> None:
    run = tmp_path / "run"
    booked: dict[int, tuple[float, str, int]] = {}
    for kill in range(2):
        with start(argv(files, run)) as process:
            goal = done_units(run) + 2
            while process.poll() is None and done_units(run) < goal:
                time.sleep(0.02)
            process.kill()
            said = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {kill} came too late: {said}"
        now = bookings(run)
        assert booked.items() <= now.items()
        booked = now
    assert 0 < done_units(run) < SAMPLES
    with start(argv(files, run)) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["units"]["done"] == SAMPLES
    now = bookings(run)
    assert sorted(now) == list(range(1, SAMPLES + 1))
    assert booked.items() <= now.items()  # what was done once was not done again
    assert facts(run) == facts(calm)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "onnxsub[ray]"')
def test_two_ray_workers(tmp_path: Path, files: tuple[Path, Path], calm: Path) -> None:
    with start(argv(files, tmp_path / "ray", "--engine", "ray")) as process:
        out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["units"] == {"pending": 0, "running": 0, "done": SAMPLES, "failed": 0}
    assert facts(tmp_path / "ray") == facts(calm)
