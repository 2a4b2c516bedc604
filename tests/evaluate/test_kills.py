"""Runs that are killed, interrupted, out of disk or without a worker: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.run import LEDGER, RunOptions, evaluate
from tests.evaluate_tools import (
    SAMPLES,
    UNITS,
    Call,
    command,
    done_units,
    facts,
    small_plan,
    start,
)
from tests.verifiers.external_tools import program


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.02)


def bookings(run: Path) -> set[tuple[int, str, float]]:
    """The units that are done, each with the moment and the seconds of its end: those of one that is done again are others."""
    import sqlite3

    with sqlite3.connect(f"file:{run / LEDGER}?mode=ro", uri=True) as db:
        found = db.execute("SELECT id, finished, seconds FROM units WHERE state = 'done'").fetchall()
    db.close()
    return set(found)


def kill_and_finish(run: Path, files: tuple[Path, Path], finished: Path, kills: int) -> list[int]:
    """SIGKILL at random moments in which there is work, then to the end; the units as often as each was booked."""
    rng, booked = np.random.default_rng(), set[tuple[int, str, float]]()
    for i in range(kills):
        with start(command(*files, run, "--jobs", "2")) as process:
            goal = done_units(run) + int(rng.integers(0, 2 + (UNITS - done_units(run)) // (2 * kills)))
            wait_for(lambda goal=goal: done_units(run) > goal, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            said = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {i} came too late: {done_units(run)} units were done: {said}"
        booked |= bookings(run)
    assert done_units(run) < UNITS
    with start(command(*files, run, "--jobs", "2")) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    units = sorted(unit for unit, _, _ in booked | bookings(run))
    assert units == list(range(1, UNITS + 1))  # none lost, none double
    assert facts(run) == facts(finished)
    written = pyarrow.parquet.read_table(run / "results.parquet").to_pylist()
    assert [r["d_hat_upper"] for r in written] == [r["d_hat_upper"] for r in facts(finished)]
    return units


@pytest.mark.slow
def test_killed_ten_times_and_finished(tmp_path: Path, files: tuple[Path, Path], finished: Path) -> None:
    assert len(kill_and_finish(tmp_path / "run", files, finished, kills=10)) == UNITS


def computes(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers(run: Path) -> list[int]:
    """Processes that belong to a run."""
    from onnxsub.evaluate.lock import MARK
    from onnxsub.family import members

    with Ledger(run / LEDGER, readonly=True) as ledger:
        return members(f"{MARK}={ledger.run_id}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are known by /proc only")
def test_a_killed_run_leaves_no_process_behind_and_goes_on(
    tmp_path: Path, files: tuple[Path, Path], finished: Path, call: Call
) -> None:
    run = tmp_path / "run"
    with start(command(*files, run, "--jobs", "2")) as process:
        wait_for(lambda: done_units(run) > 3, process)
        assert workers(run)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 30
    while workers(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers(run)
    assert 3 < done_units(run) < UNITS
    assert call("evaluate", "--run", run, "--jobs", 2)[0] == 0
    assert facts(run) == facts(finished)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are known by /proc only")
def test_a_killed_worker_is_replaced(tmp_path: Path, files: tuple[Path, Path], finished: Path) -> None:
    import os

    run = tmp_path / "run"
    with start(command(*files, run, "--json")) as process:
        wait_for(lambda: done_units(run) > 5, process)
        for pid in workers(run):
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out)["units"]["done"] == UNITS
    assert facts(run) == facts(finished)


def test_a_unit_that_outlasts_its_limit_is_killed_with_what_it_started(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verifier of other people that never ends, in a session of its own."""
    from onnxsub.evaluate import processes

    monkeypatch.setattr(processes, "_START", 0.0)
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    tool = program(tmp_path / "tool.sh", f"import os, time\n{note}\ntime.sleep(600)")
    plan = small_plan(files, limit=1, verifiers=(f'command:"{tool}"',))
    result = evaluate(plan, tmp_path / "run", RunOptions(jobs=2, kill_after=8.0))
    assert result.counts == {"pending": 0, "running": 0, "done": 1, "failed": 2}
    assert all("the hard limit of a unit" in reason for reason in result.failures)
    assert not computes(int((tmp_path / "pid").read_text()))


def test_interrupted(tmp_path: Path, files: tuple[Path, Path], finished: Path, call: Call) -> None:
    run = tmp_path / "run"
    with start(command(*files, run, "--json")) as process:
        wait_for(lambda: done_units(run) > 5, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["interrupted"] is True
    assert document["units"]["running"] == 0
    assert 5 < document["units"]["done"] < UNITS
    assert "the same command goes on" in err
    assert pyarrow.parquet.read_table(run / "results.parquet").num_rows == 4 * SAMPLES
    assert call("evaluate", "--run", run, "--jobs", 2)[0] == 0
    assert facts(run) == facts(finished)


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_done(tmp_path: Path, files: tuple[Path, Path], finished: Path, call: Call) -> None:
    """No file may grow beyond a limit: the system's own error, in the middle of the run."""
    run = tmp_path / "run"
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY)); "
        "from onnxsub.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    with start([sys.executable, "-c", script, *command(*files, run)[3:]]) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert out == ""
    assert "what is done is kept" in err
    assert len(err.splitlines()) == 1
    assert done_units(run) < UNITS
    assert call("evaluate", "--run", run)[0] == 0
    assert facts(run) == facts(finished)
