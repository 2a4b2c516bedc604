"""`onnxsub evaluate`: whole runs, going on with them, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import onnxsub
from onnxsub.cli.main import run as run_cli
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.run import DEATHS, LEDGER, RunOptions, evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.evaluate.work import work
from onnxsub.passes.select import SelectOptions
from onnxsub.verifiers.options import Limits
from tests.evaluate_tools import SAMPLES, UNITS, command, done_units, facts, make_files, rows, start
from tests.verifiers.external_tools import program

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """`onnxsub ...` in this process."""

    def run(*args: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_cli([str(a) for a in args])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    with start(command(*files, run, "--json", "--jobs", "2")) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["schema"] == "onnxsub.evaluate/2"
    assert document["units"] == {"pending": 0, "running": 0, "done": UNITS, "failed": 0}
    assert document["finished"] is True
    assert [line["samples"] for line in document["table"]] == [SAMPLES] * 4
    return run


def test_results(finished: Path) -> None:
    table = pyarrow.parquet.read_table(finished / "results.parquet")
    wanted = {"index", "label", "d_adv", "d_bnd_lower", "d_bnd_upper", "d_hat_lower", "d_hat_upper", "original_lower"}
    wanted |= {"original_upper", "status", "model", "method", "gamma", "time_attack", "time_bnd", "time_prune", "time_hat"}
    assert wanted <= set(table.column_names)
    found = table.to_pylist()
    order = [(0, "lin", 0.5), (0, "lin", 0.9), (0, "act", 0.5), (0, "act", 0.9)]
    assert [(r["index"], r["method"], r["gamma"]) for r in found[:4]] == order
    for r in found:
        assert r["status"] in ("exact", "none")
        if r["status"] == "exact":
            assert 0 < r["d_bnd_upper"] - r["d_bnd_lower"] + 1e-9 <= 1.1e-6
            assert r["d_adv"] >= r["d_bnd_lower"]
            assert r["original_lower"] <= r["d_bnd_upper"] + 1e-9
            assert r["original_upper"] >= r["d_bnd_lower"] - 1e-9
            assert sum(r["kept_per_layer"]) == r["units_total"] - r["units_pruned"]
    assert sum(r["status"] == "exact" for r in found) >= 30


def test_a_row_is_what_a_single_distance_says(finished: Path, files: tuple[Path, Path]) -> None:
    with np.load(files[1]) as data:
        x = data["x"][3]
    query = onnxsub.make_query(files[0], x, threads=1)
    attack = onnxsub.AttackOptions(threads=1)
    limits = Limits(threads=1)
    via = onnxsub.PruneOptions(method="lin", select=SelectOptions(gamma=0.5), attack=attack)
    d_bnd = onnxsub.distance(query, onnxsub.DistanceOptions(limits, attack=attack))
    d_hat = onnxsub.distance(query, onnxsub.DistanceOptions(limits, via=via, attack=attack))
    row = next(r for r in rows(finished) if (r.index, r.method, r.gamma) == (3, "lin", 0.5))
    assert (row.d_bnd_lower, row.d_bnd_upper) == (d_bnd.lower, d_bnd.upper)
    assert (row.d_hat_lower, row.d_hat_upper) == (d_hat.lower, d_hat.upper)
    assert d_hat.original is not None
    assert (row.original_lower, row.original_upper) == (d_hat.original.lower, d_hat.original.upper)


def test_a_finished_run_does_nothing_again(finished: Path, call: Call) -> None:
    before = facts(finished)
    code, out, err = call("evaluate", "--run", finished, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["done_now"] == 0
    assert document["time_s"]["overhead"] is None
    assert facts(finished) == before
    with Ledger(finished / LEDGER, readonly=True) as ledger:
        assert {u.attempts for u in ledger.units()} == {1}


def test_the_table_at_a_terminal(finished: Path, call: Call) -> None:
    code, out, err = call("evaluate", "--run", finished)
    assert (code, err) == (0, "")
    assert f"{UNITS} done" in out
    assert "lin 0.5" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seed", "1"], "settings.seed is 0 there and 1 here"),
        (["--limit", "3"], 'data.index is "0-9" there and "0-2" here'),
        (["--timeout", "9"], "settings.timeout is nothing there and 9.0 here"),
        (["--nodes", "9"], "settings.nodes is nothing there and 9 here"),
    ],
)
def test_another_configuration_is_refused(
    finished: Path, files: tuple[Path, Path], call: Call, more: list[str], words: str
) -> None:
    code, out, err = call(*command(*files, finished, *more)[3:])
    assert (code, out) == (4, "")
    assert f"holds another run: {words}" in err
    assert len(err.splitlines()) == 1


def test_a_changed_model_is_refused(tmp_path: Path, files: tuple[Path, Path], call: Call) -> None:
    model = shutil.copy(files[0], tmp_path / "net.onnx")
    run = tmp_path / "run"
    assert call("evaluate", model, "--data", files[1], "--labels", "predicted", "--limit", 1, "--run", run)[0] == 0
    other = onnxsub.load(model).source
    other.producer_name = "somebody else"
    Path(model).write_bytes(other.SerializeToString())
    code, _, err = call("evaluate", "--run", run)
    assert code == 4
    assert "model[0].sha256" in err


def test_bad_input(tmp_path: Path, files: tuple[Path, Path], call: Call) -> None:
    model, data = files
    np.savez(tmp_path / "large.npz", x=np.zeros((3, 50), dtype=np.float32), y=np.zeros(3, dtype=int))
    np.savez(tmp_path / "wild.npz", x=np.full((3, 4), 7.0, dtype=np.float32), y=np.zeros(3, dtype=int))
    with np.load(data) as archive:
        np.savez(tmp_path / "classes.npz", x=archive["x"], y=np.full(SAMPLES, 3))
        np.savez(tmp_path / "wild.npz", x=archive["x"] + 7, y=np.zeros(SAMPLES, dtype=int))
        np.savez(tmp_path / "bare.npz", x=archive["x"])
    run = tmp_path / "run"
    for argv, words in (
        (("--run", run), "is no run folder"),
        ((model, "--run", run), "give --data"),
        ((model, "--data", tmp_path / "large.npz", "--run", run), "do not belong together"),
        ((model, "--data", tmp_path / "classes.npz", "--run", run), "label 3, but the model has 3 classes"),
        ((model, "--data", tmp_path / "wild.npz", "--run", run), "outside the domain"),
        ((model, "--data", tmp_path / "bare.npz", "--run", run), "has no labels"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--jobs", 0), "--jobs 0"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--address", "a:1"), "add --engine ray"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--kill-after", -1), "--kill-after -1"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--gammas", "a"), "--gammas 'a' is no list"),
        ((model, "--data", data, "--labels", "predicted", "--run", files[0] / "run"), "cannot make the folder"),
        (("no.onnx", "--data", data, "--labels", "predicted", "--run", run), "no.onnx"),
        (("--run", run, "--limit", 3), "--limit is about a new run"),
    ):
        code, out, err = call("evaluate", *argv)
        usage = words.startswith(("--", "give --data", "add --"))
        assert (code, out) == (2 if usage else 4, ""), argv
        assert words in err, argv
        assert len(err.splitlines()) == 1
        assert not (run / LEDGER).exists()


class InProcess:
    """An engine that does units here, one at a time; `answers` may speak instead."""

    jobs = 1

    def __init__(self, answer: Callable[[Task], Outcome | None]) -> None:
        self._answer = answer
        self._ended: list[Outcome] = []
        self.tasks: list[Task] = []

    def submit(self, task: Task, limit: float | None) -> None:
        self.tasks.append(task)
        self._ended.append(self._answer(task) or work(task))

    def wait(self, seconds: float) -> Sequence[Outcome]:
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        pass


def small_plan(files: tuple[Path, Path], labels: str = "predicted", limit: int = 2, **settings: Any) -> Plan:
    samples = read_samples(files[1], Choice(limit=limit), labels=labels)
    return Plan.of((str(files[0]),), samples, Settings(gammas=(0.5,), **settings))


def test_a_lost_worker_is_tried_again_with_fewer_threads(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def answer(task: Task) -> Outcome | None:
        lost = task.kind == "original" and (task.id == 2 or task.threads > 2)
        return Outcome(task.id, "died", "its process was ended by SIGKILL") if lost else None

    engine = InProcess(answer)
    result = evaluate(small_plan(files, threads=4), tmp_path / "run", engine=engine)
    assert [t.threads for t in engine.tasks if t.id == 2] == [4, 2, 1]
    assert [t.threads for t in engine.tasks if t.id == 5] == [4, 2]
    assert result.counts == {"pending": 0, "running": 0, "done": 5, "failed": 1}
    assert result.failures == {f"its process was ended by SIGKILL; {DEATHS} times": 1}
    first, second = rows(tmp_path / "run")
    assert (first.status, first.status_bnd, first.status_hat) == ("failed", "failed", "exact")
    assert first.d_bnd_upper is None
    assert "SIGKILL" in (first.reason or "")
    assert second.status == "exact"
    willing = InProcess(lambda task: None)
    again = evaluate(small_plan(files, threads=4), tmp_path / "run", engine=willing)
    assert again.done_now == 0  # a failed unit is not tried again by itself
    again = evaluate(small_plan(files, threads=4), tmp_path / "run", RunOptions(retry_failed=True), engine=willing)
    assert again.done_now == 1
    assert again.counts["done"] == 6


def test_an_error_of_a_unit_is_its_reason(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def answer(task: Task) -> Outcome | None:
        return Outcome(task.id, "failed", "no such thing") if task.kind == "attack" and task.id == 1 else None

    result = evaluate(small_plan(files), tmp_path / "run", engine=InProcess(answer))
    assert result.counts["failed"] == 3
    assert rows(tmp_path / "run")[0].status == "failed"
    assert result.failures == {"no such thing": 1, "its attack failed: no such thing": 2}


def test_misclassified_samples_cost_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with np.load(files[1]) as archive:
        predicted = [onnxsub.make_query(files[0], x, threads=1).predicted for x in archive["x"][:2]]
        np.savez(tmp_path / "d.npz", x=archive["x"], y=[(predicted[0] + 1) % 3, predicted[1], *[0] * (SAMPLES - 2)])
    engine = InProcess(lambda task: None)
    result = evaluate(small_plan((files[0], tmp_path / "d.npz"), labels="y"), tmp_path / "run", engine=engine)
    assert result.counts["done"] == 6
    assert [t.kind for t in engine.tasks] == ["attack", "attack", "original", "substitute"]
    first = rows(tmp_path / "run")[0]
    assert (first.status, first.d_bnd_lower, first.d_bnd_upper, first.d_adv) == ("misclassified", 0.0, 0.0, 0.0)
    (line,) = result.lines
    assert (line.misclassified, line.counted) == (1, 1)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.02)


def log_bookings(run: Path, files: tuple[Path, Path]) -> None:
    """Makes a ledger that writes down every time that a unit is booked as done."""
    import sqlite3

    from onnxsub.evaluate.plan import write_plan
    from onnxsub.evaluate.run import PLAN, units_of

    settings = Settings(methods=("lin", "act"), gammas=(0.5, 0.9))
    plan = Plan.of((str(files[0]),), read_samples(str(files[1]), Choice(), labels="predicted"), settings)
    run.mkdir()
    write_plan(plan, run / PLAN)
    with Ledger(run / LEDGER) as ledger:
        ledger.add(units_of(plan))
    db = sqlite3.connect(run / LEDGER)
    db.execute("CREATE TABLE bookings (unit INTEGER)")
    db.execute(
        "CREATE TRIGGER booked AFTER UPDATE OF state ON units WHEN NEW.state = 'done' "
        "BEGIN INSERT INTO bookings VALUES (NEW.id); END"
    )
    db.commit()
    db.close()


def bookings(run: Path) -> list[int]:
    import sqlite3

    db = sqlite3.connect(run / LEDGER)
    found = [u for (u,) in db.execute("SELECT unit FROM bookings ORDER BY unit")]
    db.close()
    return found


def kill_and_finish(run: Path, files: tuple[Path, Path], finished: Path, kills: int) -> None:
    """SIGKILL at random moments in which there is work, then to the end."""
    log_bookings(run, files)
    rng = np.random.default_rng()
    for i in range(kills):
        with start(command(*files, run, "--jobs", "2")) as process:
            goal = done_units(run) + int(rng.integers(0, 2 + (UNITS - done_units(run)) // (2 * kills)))
            wait_for(lambda goal=goal: done_units(run) > goal, process)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL, f"kill {i} came too late: {done_units(run)} units were done"
    assert done_units(run) < UNITS
    with start(command(*files, run, "--jobs", "2")) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert bookings(run) == list(range(1, UNITS + 1))  # none lost, none double
    assert facts(run) == facts(finished)
    written = pyarrow.parquet.read_table(run / "results.parquet").to_pylist()
    assert [r["d_hat_upper"] for r in written] == [r["d_hat_upper"] for r in facts(finished)]


@pytest.mark.slow
def test_killed_ten_times_and_finished(tmp_path: Path, files: tuple[Path, Path], finished: Path) -> None:
    kill_and_finish(tmp_path / "run", files, finished, kills=10)


def computes(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def workers(run: Path) -> list[int]:
    """Processes that belong to a run."""
    from onnxsub.evaluate.lock import MARK, _members

    with Ledger(run / LEDGER, readonly=True) as ledger:
        return _members(f"{MARK}={ledger.run_id}".encode())


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
