"""Run folders of others: rows that are missing or foreign are found, a copy has processes of its own, links are not followed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from onnxsub.api.stored import stored
from onnxsub.errors import InputError, OnnxsubWarning
from onnxsub.evaluate.drive import _mark
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.run import LEDGER, RunOptions, Settings, evaluate, open_run
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.report.report import report
from tests.evaluate_tools import make_files
from tests.robustness_tools import Here


def plan_in(folder: Path) -> Plan[Settings]:
    model, data = make_files(folder)
    settings = Settings(methods=("lin",), gammas=(0.9,), timeout=10.0)
    return Plan.of((str(model),), read_samples(data, Choice(limit=2), None, "predicted"), settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM units WHERE id = 3", "lacks the unit substitute of sample 0"),
        ("DELETE FROM units WHERE id = 6", "lacks the unit substitute of sample 1"),
        ("UPDATE units SET sample = 7 WHERE id = 2", "lacks the unit original of sample 0"),
        ("UPDATE units SET model = 'other' WHERE id = 1", "lacks the unit attack of sample 0"),
        ("INSERT INTO units (model, sample, kind) VALUES ('other', 9, 'attack')", "has the unit attack of sample 9 of other"),
    ],
)
def test_rows_that_are_not_as_planned(tmp_path: Path, change: str, said: str) -> None:
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    assert evaluate(plan, folder, engine=Here()).finished
    with sqlite3.connect(folder / LEDGER) as db:
        db.execute(change)
    db.close()
    with pytest.raises(InputError, match=said):
        evaluate(plan, folder, engine=Here())


def test_a_copy_has_processes_of_its_own(tmp_path: Path) -> None:
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    evaluate(plan, folder, engine=Here())
    shutil.copytree(folder, tmp_path / "copy")
    own, copied = (_mark("id", f / LEDGER) for f in (folder, tmp_path / "copy"))
    assert not own.startswith(copied)
    assert not copied.startswith(own)
    folder.rename(tmp_path / "moved")
    assert _mark("id", tmp_path / "moved" / LEDGER) == own
    assert evaluate(plan, tmp_path / "copy", engine=Here()).done_now == 0


@pytest.mark.parametrize("name", [LEDGER, "lock.sqlite", "samples.csv", "run.toml"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    plan, folder, other = plan_in(tmp_path), tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    other.write_text("precious")
    (folder / name).symlink_to(other)
    with pytest.raises(InputError, match="is a symbolic link"):
        evaluate(plan, folder, RunOptions(), engine=Here())
    assert other.read_text() == "precious"


def old_folder(folder: Path) -> None:
    """What a version before checksums would have written."""
    with sqlite3.connect(folder / LEDGER) as db:
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
        db.execute("DELETE FROM meta WHERE key NOT IN ('schema', 'run')")
        db.execute("ALTER TABLE units DROP COLUMN checksum")
    db.close()
    lines = (folder / "run.toml").read_text().splitlines(keepends=True)
    (folder / "run.toml").write_text("".join(line for line in lines if not line.startswith("checksum")))


def test_a_folder_from_before_checksums_opens_with_a_word(tmp_path: Path) -> None:
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    evaluate(plan, folder, engine=Here())
    old_folder(folder)
    with pytest.warns(OnnxsubWarning, match="before rows had checksums"), read_ledger(folder) as ledger:
        assert ledger.counts()["done"] == 6
    with pytest.warns(OnnxsubWarning, match="has checksums from now on"):
        assert evaluate(plan, folder, engine=Here()).done_now == 0
    with read_ledger(folder) as ledger:
        assert ledger.counts()["done"] == 6
    with sqlite3.connect(folder / LEDGER) as db:
        db.execute("UPDATE units SET seconds = 0.5 WHERE id = 2")
    db.close()
    with pytest.raises(InputError, match="not as they were written: original of sample 0 of net"), read_ledger(folder):
        pass


def test_altered_rows_are_done_again_where_that_is_asked_for(tmp_path: Path) -> None:
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    first = evaluate(plan, folder, engine=Here())
    with sqlite3.connect(folder / LEDGER) as db:
        db.execute("UPDATE units SET result = replace(result, '0.', '0.1') WHERE id = 1")
    db.close()
    with pytest.raises(InputError, match=r"attack of sample 0 of net; go on with the run and --retry-failed"):
        evaluate(plan, folder, engine=Here())
    again = evaluate(plan, folder, RunOptions(retry_failed=True), engine=Here())
    assert again.done_now == 3  # the attack, and the two units that build on it
    assert [s.d_bnd_upper for s in again.samples] == [s.d_bnd_upper for s in first.samples]


@pytest.mark.parametrize(
    "change",
    [
        "seconds = 'long'", "seconds = x'00'", "seconds = 9e999", "reason = x'ff'", "point = 'text'", "anchor = 7",
        "deaths = 'none'", "deaths = -1", "attempts = NULL", "checksum = NULL", "result = x'7b7d'", "state = 'pending'",
    ],
)  # fmt: skip
def test_rows_of_any_content_are_refused_and_done_again(tmp_path: Path, change: str) -> None:
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    assert evaluate(plan, folder, engine=Here()).finished
    with sqlite3.connect(folder / LEDGER) as db:
        db.execute("PRAGMA ignore_check_constraints = on")
        try:
            db.execute(f"UPDATE units SET {change} WHERE id = 3")
        except sqlite3.IntegrityError:
            assert "NULL" in change  # the table itself refuses it
            return
    db.close()
    with pytest.raises(InputError, match="not as they were written: substitute of sample 0"), read_ledger(folder):
        pass
    with pytest.raises(InputError, match="not as they were written: substitute of sample 0"):
        evaluate(plan, folder, engine=Here())
    again = evaluate(plan, folder, RunOptions(retry_failed=True), engine=Here())
    assert (again.finished, again.done_now) == (True, 1)


def test_a_report_is_not_written_through_a_link(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan, folder, other = plan_in(tmp_path), tmp_path / "run", tmp_path / "other"
    evaluate(plan, folder, engine=Here())
    other.mkdir()
    (folder / "report").symlink_to(other)
    with pytest.raises(InputError, match="is a symbolic link"):
        report(folder)
    assert list(other.iterdir()) == []


def test_inputs_of_a_call_are_not_written_through_a_link(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "precious.npy"
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / "x.npy").symlink_to(other)
    with pytest.raises(InputError, match="is a symbolic link"):
        stored(folder, "x", np.zeros(3, dtype=np.float32))
    assert not other.exists()


def test_plans_of_others_say_what_is_wrong(tmp_path: Path) -> None:
    """Without a checksum anything may stand there."""
    plan, folder = plan_in(tmp_path), tmp_path / "run"
    evaluate(plan, folder, engine=Here())
    text = "".join(x for x in (folder / "run.toml").read_text().splitlines(keepends=True) if not x.startswith("checksum"))
    for old, new in (("[data]", "[dat]"), ('index = "0-1"', 'index = "0-99999999999"'), ('index = "0-1"', "index = 3"),
                     ("[settings]", "[settings]\nmethods = 3\n[s]"), ("[[model]]", "[model]")):  # fmt: skip
        (folder / "run.toml").write_text(text.replace(old, new, 1))
        with pytest.raises(InputError):
            open_run(folder)
