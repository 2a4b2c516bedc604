"""Run folders of others: rows that are missing or foreign are found, a copy has processes of its own, links are not followed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import _mark
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.run import LEDGER, RunOptions, Settings, evaluate
from onnxsub.evaluate.samples import Choice, read_samples
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
