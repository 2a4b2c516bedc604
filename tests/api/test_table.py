"""A batch of anchors gives a table, in memory or in a run folder."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import onnxsub
from onnxsub.api.progress import telling
from tests.api.tools import QUICK, batch, module


@pytest.fixture(scope="module")
def table() -> onnxsub.Table:
    found = onnxsub.distance(module(), batch(), label=[0, 1, 0], method="lin", gamma=0.5, timeout=10, nodes=50, **QUICK)
    assert isinstance(found, onnxsub.Table)
    return found


def test_rows_columns_and_results(table: onnxsub.Table) -> None:
    assert len(table) == 3
    assert [row["index"] for row in table] == table["index"] == [0, 1, 2]
    assert table["label"] == [0, 1, 0]
    assert {len(row) for row in table} == {len(table.columns)}
    for row, result in zip(table, table.results, strict=True):
        assert (row["status"], row["label"]) == (result.status, result.head["anchor"]["label"])
        assert row["lower"] == result.lower
    assert table[1] == table.rows[1]
    assert len(table[:2]) == len(table[:2].results) == 2
    with pytest.raises(onnxsub.InputError, match="no column 'uper'"):
        table["uper"]


def test_one_row_is_an_anchor_unless_it_is_said_to_be_a_batch() -> None:
    x = batch(1)
    assert isinstance(onnxsub.verify(module(), x, 0.01), onnxsub.VerifyResult)
    assert len(onnxsub.verify(module(), x, 0.01, batch=True)) == 1


def test_a_table_is_json_html_and_one_line(table: onnxsub.Table) -> None:
    document = json.loads(onnxsub.dumps(table))
    assert document["schema"] == "onnxsub.table/1"
    assert [row["status"] for row in document["rows"]] == table["status"]
    assert repr(table).startswith("Table(distance, 3 rows: ")
    assert table._repr_html_().count("<tr>") == 4
    assert pickle.loads(pickle.dumps(table)).rows == table.rows


def test_a_plot_shows_every_bracket(table: onnxsub.Table, tmp_path: Path) -> None:
    figure = table.plot()
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == 0
    assert len(axes.get_xticks()) == 3
    figure.savefig(tmp_path / "d.png")
    with pytest.raises(onnxsub.InputError, match="plot is for a table of distance"):
        onnxsub.verify(module(), batch(2), 0.01).plot()


def test_without_pandas_a_frame_is_refused_with_what_to_do(table: onnxsub.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(onnxsub.MissingDependencyError, match="pip install pandas"):
        table.to_pandas()


def test_a_frame_has_the_rows(table: onnxsub.Table) -> None:
    pandas = pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(table.columns)
    assert frame["upper"].tolist() == table["upper"]


def test_an_anchor_that_fails_is_a_row() -> None:
    x = batch(3)
    right = [onnxsub.make_query(module(), row, threads=1).label for row in x]
    wrong = [right[0], (right[1] + 1) % 3, right[2]]
    found = onnxsub.prune(module(), x, label=wrong, keep=3, restarts=2)
    assert [row["status"] for row in found] == ["complete", "failed", "complete"]
    assert "nothing is to be pruned" in found[1]["reason"]
    assert "--" not in found[1]["reason"]
    assert found.results[1] is None


def test_ctrl_c_keeps_what_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxsub.passes.attack as attacking

    whole, seen = attacking.attack, []

    def interrupted(query: onnxsub.Query, *args: Any, **more: Any) -> Any:
        seen.append(query)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(query, *args, **more)

    monkeypatch.setattr(attacking, "attack", interrupted)
    found = onnxsub.attack(module(), batch(3), restarts=2)
    assert (len(found), found.interrupted) == (2, True)


def test_progress_is_told_for_the_whole_batch(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[float, str]] = []
    onnxsub.verify(module(), batch(3), 0.01, progress=lambda share, text: told.append((share, text)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1][1].startswith("3 of 3: ")
    onnxsub.distance(module(), batch(1), progress=True, nodes=1, **QUICK)
    assert capsys.readouterr().out == ""


def test_a_notebook_without_widgets_has_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with telling(True, 2) as teller:
        assert teller is not None
        teller.share(1)(0.5, "bounds")
    assert "\r 75 % 2 of 2: bounds" in capsys.readouterr().out


def test_a_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the units are done by processes is the drivers' own test; here they are done in this one."""
    from onnxsub.evaluate import drive
    from tests.robustness_tools import Here

    engines: list[Here] = []

    def here(*_: Any) -> Here:
        engines.append(Here())
        return engines[-1]

    monkeypatch.setattr(drive, "_engine", here)
    run = tmp_path / "run"
    first = onnxsub.verify(module(), batch(3), 0.01, run=run)
    assert first["status"] == ["proved"] * 3
    assert first.run == str(run)
    assert len(engines) == 1
    again = onnxsub.verify(module(), batch(3), 0.01, run=run)
    assert again.rows == first.rows
    assert len(engines) == 1, "nothing was left to do"
    with pytest.raises(onnxsub.InputError, match=r"holds another run: its x\.npy differs"):
        onnxsub.verify(module(), batch(2), 0.01, run=run)
    with pytest.raises(onnxsub.InputError, match=r"holds another run: settings\.eps"):
        onnxsub.verify(module(), batch(3), 0.02, run=run)
    labels = [onnxsub.make_query(module(), x, threads=1).label for x in batch(3)]
    distances = onnxsub.distance(module(), batch(3), label=labels, run=tmp_path / "d", nodes=20)
    assert all(row["lower"] > 0 for row in distances)
    with_substitute = onnxsub.distance(module(), batch(2), method="lin", gamma=0.5, nodes=20, run=tmp_path / "s")
    assert {"d_bnd_upper", "original_lower", "upper"} <= set(with_substitute.columns)
    assert with_substitute["method"] == ["lin", "lin"]
    measured = onnxsub.robustness(module(), batch(3), labels, eps=0.01, run=tmp_path / "r", property="cr")
    assert measured.measure.lower == 1.0
    study = onnxsub.evaluate([module(), module(1)], batch(2), run=tmp_path / "e", methods="lin", gammas=0.5, nodes=5)
    assert (len(study.lines), study.finished) == (2, True)
    assert onnxsub.evaluate(run=tmp_path / "e").done_now == 0
    assert onnxsub.report(study).page.is_file()
    passed = onnxsub.gate(
        module(), module(), batch(3), labels, 0.01, cache=tmp_path / "g", junit=tmp_path / "gate.xml", nodes=50
    )
    assert passed.passed
    assert (tmp_path / "gate.xml").is_file()
    assert repr(passed).startswith("GateResult(passed: ")


ORDERS = """
import inspect, sys

def afresh():
    for name in [n for n in sys.modules if n.split(".")[0] == "onnxsub"]:
        del sys.modules[name]

def check(package):
    assert callable(package.evaluate) and inspect.ismodule(package.evaluate)
    assert package.evaluate is sys.modules["onnxsub.evaluate"] and package.evaluate.pace.Pace

import onnxsub; first = onnxsub.evaluate; import onnxsub.evaluate.pace; assert first is onnxsub.evaluate; check(onnxsub)
afresh()
import onnxsub.evaluate.pace; check(onnxsub)
afresh()
from onnxsub.evaluate.pace import Pace; import onnxsub; check(onnxsub)
afresh()
from onnxsub import evaluate; import onnxsub.evaluate.pace as pace; assert pace.Pace and callable(evaluate)
import onnxsub; check(onnxsub)
"""


def test_modules_are_calls_and_packages_in_any_order() -> None:
    subprocess.run([sys.executable, "-c", ORDERS], check=True, timeout=60)
    for name in ("evaluate", "gate", "report"):
        assert isinstance(getattr(onnxsub, name), ModuleType)
        assert callable(getattr(onnxsub, name))
    with pytest.raises(onnxsub.InputError, match="has no keyword 'tite'"):
        onnxsub.report("r", tite="x")


def test_rows_are_numbers_of_python(table: onnxsub.Table) -> None:
    kinds = {type(v) for row in table for v in row.values()}
    assert not any(issubclass(kind, np.generic) for kind in kinds)
