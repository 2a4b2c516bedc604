"""The ledger: every unit is settled once, whatever ends in between."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.lock import MARK, end_family, lock
from onnxsub.evaluate.row import rows_of
from onnxsub.evaluate.task import Outcome, pack, unpack
from tests.evaluate_tools import ROOT

_UNITS = [
    unit
    for sample in range(3)
    for unit in (
        ("m", sample, "attack", "", -1.0, ""),
        ("m", sample, "original", "", -1.0, "milp"),
        ("m", sample, "substitute", "lin", 0.9, "milp"),
    )
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    with Ledger(tmp_path / "ledger.sqlite") as made:
        made.add(_UNITS)
        yield made  # type: ignore[misc]


def done(unit: int, **result: object) -> Outcome:
    return Outcome(unit, "done", None, {"status": "found", "d_adv": 0.1, **result}, pack(np.zeros(2)), pack(np.ones(2)), 0.5)


def test_units_follow_their_attack(ledger: Ledger) -> None:
    first, second = ledger.take(2)
    # the other units of sample 0 wait for its attack, so the next one is that of sample 1
    assert [(u.sample, u.kind, u.attempts) for u in (first, second)] == [(0, "attack", 1), (1, "attack", 1)]
    ledger.finish(done(first.id))
    (third,) = ledger.take(1)
    assert (third.sample, third.kind, third.needs, third.verifier, third.gamma) == (0, "original", first.id, "milp", None)
    (fourth,) = ledger.take(1)
    assert (fourth.method, fourth.gamma) == ("lin", 0.9)


def test_the_next_unit_is_found_without_looking_at_all(ledger: Ledger) -> None:
    db = sqlite3.connect(ledger.path)
    plan = " ".join(
        str(row)
        for row in db.execute(
            "EXPLAIN QUERY PLAN SELECT u.id FROM units u LEFT JOIN units n ON n.id = u.needs "
            "WHERE u.state = 'pending' AND (u.needs IS NULL OR n.state = 'done') ORDER BY u.id LIMIT 1"
        )
    )
    db.close()
    assert "SEARCH u USING INDEX by_state" in plan
    assert "TEMP B-TREE" not in plan


def test_a_unit_is_settled_once(ledger: Ledger) -> None:
    (unit,) = ledger.take(1)
    assert [u.id for u in ledger.finish(done(unit.id))] == [unit.id]
    with pytest.raises(RuntimeError, match="was not running"):
        ledger.finish(done(unit.id))
    with pytest.raises(RuntimeError, match="was not running"):
        ledger.finish(done(unit.id + 1))


def test_a_failed_attack_fails_what_needs_it(ledger: Ledger) -> None:
    (unit,) = ledger.take(1)
    settled = ledger.finish(Outcome(unit.id, "failed", "no such thing"))
    assert [(u.kind, u.state) for u in settled] == [("attack", "failed"), ("original", "failed"), ("substitute", "failed")]
    assert settled[1].reason == "its attack failed: no such thing"
    assert ledger.counts() == {"pending": 6, "running": 0, "done": 0, "failed": 3}
    ledger.recover(retry_failed=True)
    assert ledger.counts()["pending"] == 9


def test_what_an_attack_settles(ledger: Ledger) -> None:
    (unit,) = ledger.take(1)
    nothing = {"status": "misclassified", "lower": 0.0, "upper": 0.0}
    assert len(ledger.finish(done(unit.id, status="misclassified"), {"original": nothing, "substitute": nothing})) == 3
    row = next(rows_of(ledger))
    assert (row.status, row.d_bnd_upper, row.time_bnd) == ("misclassified", 0.0, None)


def test_running_units_come_back(tmp_path: Path, ledger: Ledger) -> None:
    taken = ledger.take(2)
    with Ledger(tmp_path / "ledger.sqlite") as other:
        other.recover()
        assert other.counts() == {"pending": 9, "running": 0, "done": 0, "failed": 0}
        (again,) = other.take(1)
    assert (again.id, again.attempts, again.deaths) == (taken[0].id, 2, 0)


def test_a_lost_worker_is_counted(ledger: Ledger) -> None:
    (unit,) = ledger.take(1)
    ledger.put_back(unit.id, "its process was ended")
    (again,) = ledger.take(1)
    assert (again.id, again.deaths, again.reason) == (unit.id, 1, "its process was ended")


def test_points_come_back_to_the_last_bit(ledger: Ledger) -> None:
    x = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    assert np.array_equal(unpack(pack(x)).reshape(2, 3), x)
    (unit,) = ledger.take(1)
    ledger.finish(Outcome(unit.id, "done", None, {"shape": [2, 3]}, pack(x), pack(x + 1)))
    result, point = ledger.result(unit.id)
    assert point is not None
    assert np.array_equal(point, x.ravel())
    ((sample, _, anchor, _),) = ledger.attacks("m")
    assert sample == 0
    assert np.array_equal(anchor, (x + 1).ravel())
    assert result == {"shape": [2, 3]}


def test_all_units_are_added_or_none(tmp_path: Path) -> None:
    with Ledger(tmp_path / "two.sqlite") as ledger:
        with pytest.raises(InputError, match="UNIQUE"):
            ledger.add([*_UNITS, _UNITS[0]])
        assert sum(ledger.counts().values()) == 0


def test_a_full_disk(tmp_path: Path, ledger: Ledger) -> None:
    (unit,) = ledger.take(1)
    ledger._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(OutputError, match=r"full.*what is done is kept"):
        ledger.finish(Outcome(unit.id, "done", None, {"long": "x" * 200_000}))
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    assert ledger.counts()["running"] == 1
    ledger.finish(done(unit.id))


def test_files_that_are_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no run folder"):
        Ledger(tmp_path / "none.sqlite", readonly=True)
    (tmp_path / "bad.sqlite").write_bytes(b"not a database at all, but long enough to be one " * 30)
    with pytest.raises(InputError, match="damaged"):
        Ledger(tmp_path / "bad.sqlite")
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(InputError, match="the run did not begin"):
        Ledger(tmp_path / "empty.sqlite", readonly=True)
    with Ledger(tmp_path / "old.sqlite") as ledger:
        ledger._db.execute("UPDATE meta SET value = '0' WHERE key = 'schema'")
    with pytest.raises(InputError, match="a ledger of version 0, this is 2"):
        Ledger(tmp_path / "old.sqlite")
    with pytest.raises(OutputError):
        Ledger(tmp_path / "no folder" / "ledger.sqlite")


def test_one_process_per_folder(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from onnxsub.evaluate.lock import lock\n"
        "with lock(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "lock.sqlite"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="in use by another onnxsub evaluate"), lock(path):
            pass
        other.kill()
    with lock(path):  # the lock ends with its process
        pass


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are known by /proc only")
def test_a_family_ends_whole() -> None:
    """Also what has left the session, as other verifiers' processes do."""
    sleeper = "import time; print(1, flush=True); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}], start_new_session=True)"
    mark = "0123456789abcdef"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, MARK: f"{mark}:1"}, start_new_session=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(1) == b"1"
        end_family(mark)
        assert child.stdout.read().strip() == b""  # ends only when every holder of the pipe is gone
        assert child.wait() == -9


def test_units_are_counted_by_kind_and_state(ledger: Ledger) -> None:
    for state in ("done", "done", "failed", "failed"):  # the first sample's units, and the next one's attack
        (unit,) = ledger.take(1)
        ledger.finish(done(unit.id) if state == "done" else Outcome(unit.id, "failed", "no solver", seconds=2.0))
    found = {(g.kind, g.method, g.gamma, g.verifier, g.state): (g.count, g.seconds, g.timed) for g in ledger.groups()}
    assert found["attack", None, None, None, "done"] == (1, 0.5, 1)
    assert found["attack", None, None, None, "failed"] == (1, 2.0, 1)
    assert found["substitute", "lin", 0.9, "milp", "pending"] == (1, 0.0, 0)
    assert found["substitute", "lin", 0.9, "milp", "failed"] == (2, 2.0, 1)  # one of them with its attack
    assert sum(count for count, *_ in found.values()) == len(_UNITS)
    assert ledger.failures() == {"no solver": 2, "its attack failed: no solver": 2}


def test_units_that_are_added_later_need_their_own_attacks(ledger: Ledger) -> None:
    ledger.add([("n", 0, "attack", "", -1.0, ""), ("n", 0, "original", "", -1.0, "bab")])
    *_, attack, original = ledger.units()
    assert (attack.id, original.needs) == (len(_UNITS) + 1, attack.id)
