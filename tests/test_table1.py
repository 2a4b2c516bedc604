"""The columns that `benchmarks.table1` adds to those of the run: the error whatever undecided radii are, and reasons."""

from __future__ import annotations

import sqlite3
from argparse import Namespace
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import table1
from benchmarks.table1 import is_finished, known, least_error, place, reason, save, saved
from onnxsub.evaluate.drive import LEDGER
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.summary import summarise
from tests.report_tools import ROW_LIKE

ROW = replace(ROW_LIKE, model="mnist-c-clean", method="lin", gamma=0.99, timed_bnd=3, timed_hat=2, time_prune=1.0)


@pytest.mark.parametrize(
    ("bnd", "adv", "hat", "least"),
    [
        (0.1, 0.2, 0.15, 0.0),  # it may be the truth
        (0.1, 0.2, 0.3, 0.5),  # beyond every point that is known to be adversarial
        (0.1, 0.2, 0.05, 0.5),  # below what is verified
        (0.1, 0.1, 0.2, 1.0),  # the network's distance is certain
        (0.1, None, 0.2, 1.0),
        (0.2, 0.1, 0.3, 0.5),  # the attack's point is no bound where the search went beyond it
    ],
)
def test_the_least_error(bnd: float, adv: float | None, hat: float, least: float) -> None:
    row = replace(ROW, protocol_bnd=bnd, protocol_adv=adv, protocol_hat=hat)
    assert least_error([row]) == pytest.approx(least)
    sure = abs(hat / bnd - 1)
    assert least <= sure + 1e-12  # of which the column beside it is the mean
    assert least_error([row, replace(row, protocol_hat=None)]) == pytest.approx(least)


def test_nothing_known_has_no_error() -> None:
    assert least_error([]) is None
    assert least_error([replace(ROW, protocol_bnd=None, protocol_hat=None)]) is None


def test_a_row_says_why_it_rests_on_fewer_than_five() -> None:
    rows = [replace(ROW, index=i) for i in range(6)]
    (line,) = summarise(rows)
    assert reason(line, rows) == ""
    wrong = replace(ROW, index=3, status="misclassified", timed_bnd=None, timed_hat=None)
    alone = replace(ROW, index=4, d_adv=None, protocol_hat=None, timed_hat=None)
    few = [*rows[:2], replace(ROW, index=2, timed_hat=0), wrong, alone]
    (line,) = summarise(few)
    said = "5 images run, 1 misclassified, 1 without an adversarial point in the interval, no run with on 1"
    assert reason(line, few) == said
    assert place(line) < place(replace(line, method="act")) < place(replace(line, model="cifar10-c-clean", method="con"))


def test_rows_that_were_saved_come_back_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = Namespace(rows=str(tmp_path / "rows.jsonl"), run=str(tmp_path / "none"), protocols="paper", images=None)
    first = replace(ROW, kept_per_layer=(3, 4), d_hat_upper=None, index=10)
    other = replace(first, method="con", index=0, model="cifar10-c-clean")

    def found(rows: list[tuple[table1.Row, float]]) -> None:
        monkeypatch.setattr(table1, "rows", lambda *_, finished=False: iter(rows))

    found([(first, 20.0), (other, 20.0)])
    save(args)
    assert list(saved(args)) == [("paper", first, 20.0), ("paper", other, 20.0)]  # by network
    newer = replace(first, time_prune=2.0)
    found([(newer, 30.0)])
    assert known(args, "paper") == [(newer, 30.0), (other, 20.0)]  # a folder's row takes the place of the file's
    assert known(args, "fast") == []
    save(args)
    assert list(saved(args)) == [("paper", newer, 30.0), ("paper", other, 20.0)]


def test_what_was_saved_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = list[tuple[str, int]]()
    monkeypatch.setattr(table1, "_one", lambda _, protocol, name, index: done.append((name, index)))
    monkeypatch.setattr(table1, "saved", lambda _: iter([("paper", replace(ROW, index=10), 20.0)]))
    args = Namespace(images="0,10", protocols="paper", networks="mnist-c-clean,mnist-c-adv0.1", run=str(tmp_path))
    table1.run(args)
    assert done == [("mnist-c-clean", 0), ("mnist-c-adv0.1", 0), ("mnist-c-adv0.1", 10)]


@pytest.mark.parametrize(("states", "finished"), [("ddf", True), ("dpd", False), ("drd", False), ("", False)])
def test_a_folder_is_finished_when_no_unit_is_left(states: str, finished: bool, tmp_path: Path) -> None:
    """A run that was interrupted writes its tables as well, so these say nothing."""
    (tmp_path / "samples.csv").touch()
    assert not is_finished(tmp_path)
    begin(tmp_path, states)
    assert is_finished(tmp_path) is finished


@pytest.mark.parametrize(("states", "finished"), [("dd", True), ("dp", False), (None, False)])
def test_what_was_interrupted_goes_on_and_is_not_saved(
    states: str | None, finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: killed before its ledger had tables."""
    file, started = tmp_path / "rows.jsonl", list[list[str]]()
    args = Namespace(
        rows=str(file), run=str(tmp_path), protocols="paper", images="20", networks=ROW.model, gammas=None, timeout=20.0,
        known_points=False,
    )  # fmt: skip
    folder = table1.folder_of(args, "paper", ROW.model, 20)
    folder.mkdir()
    (folder / "samples.csv").touch()
    if states is None:
        (folder / LEDGER).touch()
    else:
        begin(folder, states)
    monkeypatch.setattr(table1.subprocess, "run", lambda command, **_: started.append(command))
    table1.run(args)
    assert bool(started) is not finished
    monkeypatch.setattr(table1, "rows_of", lambda _: [replace(ROW, index=20)])
    monkeypatch.setattr(table1, "read_plan", lambda _: {"settings": {"timeout": 20.0}})
    table1.save(args)
    assert len(file.read_text().splitlines()) == finished
    assert len(table1.known(args, "paper")) == (states is not None)  # the table shows what there is


def begin(folder: Path, states: str) -> None:
    """A ledger of units that are done, failed, pending or running."""
    with Ledger(folder / LEDGER) as ledger:
        ledger.add([("m", k, "attack", "", -1.0, "") for k in range(len(states))])
    names = {"d": "done", "f": "failed", "p": "pending", "r": "running"}
    with closing(sqlite3.connect(folder / LEDGER)) as db, db:
        db.executemany("UPDATE units SET state = ? WHERE id = ?", [(names[s], k + 1) for k, s in enumerate(states)])


def test_the_rows_of_the_page_are_those_of_the_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line that the rows come to stands in the page as it is."""
    file = Path(table1.__file__).with_suffix(".jsonl")
    table1.tables(Namespace(rows=str(file), run=str(tmp_path), protocols="", images=None))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    page = (file.parents[1] / "docs" / "table1.md").read_text().splitlines()
    assert len(lines) > 30
    assert [line for line in lines if line not in page] == []
