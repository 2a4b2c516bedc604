"""Folders that a run or a report must leave alone: a stranger's, one whose ledger is gone, one that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxsub.errors import InputError, OptionError, OutputError
from onnxsub.evaluate import ledger, lock
from onnxsub.evaluate.run import LEDGER, evaluate
from onnxsub.report.options import ReportOptions
from onnxsub.report.report import report
from tests.evaluate_tools import make_files, rows, small_plan


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def run(files: tuple[Path, Path], tmp_path: Path) -> Path:
    evaluate(small_plan(files, limit=1), tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    """Tables of a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".csv", ".parquet", ".toml")}


@pytest.mark.parametrize("name", ["samples.csv", "results.parquet"])
def test_a_strangers_tables_are_not_overwritten(name: str, files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"is no run folder, and a run would overwrite its {name}; choose another --run"):
        evaluate(small_plan(files, limit=1), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_other_files_are_no_hindrance(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "nohup.out").write_text("log")
    assert evaluate(small_plan(files, limit=1), tmp_path).counts["failed"] == 0


@pytest.mark.parametrize("empty", [False, True])
def test_a_run_whose_ledger_is_lost_is_not_computed_over_its_results(run: Path, files: tuple[Path, Path], empty: bool) -> None:
    before = contents(run)
    (run / LEDGER).unlink()
    if empty:
        (run / LEDGER).touch()
    for _ in range(2):  # what the first attempt leaves is no ledger either
        with pytest.raises(InputError, match=r"has samples\.csv, but its ledger\.sqlite is gone or empty; restore it"):
            evaluate(small_plan(files, limit=1), run)
    assert contents(run) == before


def test_a_report_does_not_take_the_place_of_its_run(run: Path) -> None:
    before = contents(run)
    with pytest.raises(InputError, match="is the folder of a run, whose tables a report would overwrite; give another -o"):
        report(run, ReportOptions(output=str(run)))
    assert contents(run) == before


def test_what_is_of_grids_is_refused_of_an_evaluation(run: Path) -> None:
    with pytest.raises(OptionError, match="--compare is of a robustness run of several models"):
        report(run, ReportOptions(compare=("a", "b")))


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock.sqlite"
    path.mkdir(parents=True)
    said = "cannot be written: unable to open database file; choose a folder that is writable"
    with pytest.raises(OutputError, match=said), lock.lock(path):
        pass


def test_a_run_that_cannot_be_written_can_be_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user's, or one on a disc that is read-only: nothing is written beside it."""
    expected, before = rows(run), sorted(p.name for p in run.iterdir())
    monkeypatch.setattr(ledger.os, "access", lambda path, mode: not (Path(path) == run and mode == os.W_OK))
    assert rows(run) == expected
    assert sorted(p.name for p in run.iterdir()) == before
    opened = list[str]()
    connect = ledger.sqlite3.connect

    def noted(name: str | Path, **options: object) -> object:
        opened.append(str(name))
        return connect(name, **options)

    monkeypatch.setattr(ledger.sqlite3, "connect", noted)
    assert rows(run) == expected
    (run / f"{LEDGER}-wal").write_bytes(b"x")  # what is not in the file yet must not be passed over
    with pytest.MonkeyPatch.context() as once:
        once.setattr(ledger.sqlite3, "connect", lambda name, **_: opened.append(str(name)) or connect(":memory:"))
        with pytest.raises(InputError):
            rows(run)
    assert [name.endswith("?immutable=1") for name in opened] == [True, False]
