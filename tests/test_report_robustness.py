"""`onnxsub report` of a robustness run: words, tables, figures."""

from __future__ import annotations

import csv
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onnxsub.cli.main import run as run_cli
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.task import Outcome, Task
from tests.evaluate_tools import make_files
from tests.report_tools import Recorder, check_layout
from tests.robustness_tools import Here, Invented, many, plan_of


def located(task: Task) -> Outcome:
    """A bracket by the content of a sample; every fifth one is open above."""
    rho = float(task.x.reshape(-1)[0]) / 4
    upper = None if task.id % 5 == 0 else rho + 0.01
    result = {"status": "bracket", "lower": rho, "upper": upper, "label": 0, "predicted": 0, "time_s": {"total": 0.1}}
    return Outcome(task.id, "done", None, result)


def drawn(task: Task) -> Outcome:
    """As many satisfying points as the content of a sample says."""
    k = min(50, int(float(task.x.reshape(-1)[0]) * 80))
    result = {"status": "drawn", "satisfied": k, "drawn": 50, "lower": max(0.0, k / 50 - 0.1), "upper": min(1.0, k / 50 + 0.1)}
    return Outcome(task.id, "done", None, {**result, "time_s": {"total": 0.1}})


def broken(task: Task) -> Outcome:
    return Outcome(task.id, "failed", "broken <here>") if task.id == 2 else Invented(0.6, 0.2)(task)


RUNS: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    "satisfaction": (broken, {"prop": "sr", "delta": 0.5}, {"shares", "convergence"}),
    "security": (Invented(0.0, 0.7), {}, {"shares"}),
    "accuracy": (drawn, {"draws": 50}, {"shares", "accuracy"}),
    "pointwise": (located, {}, {"shares", "frequency"}),
    "global": (Invented(0.8), {"error": 0.12, "sequential": True}, {"shares", "sequence"}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    model, data = make_files(folder)
    return model.rename(folder / "net & <b>more.onnx"), many(folder, data, 200)


@pytest.mark.parametrize("metric", RUNS)
def test_a_report(
    tmp_path: Path, files: tuple[Path, Path], metric: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    answer, settings, figures = RUNS[metric]
    result = robustness(plan_of(files, metric=metric, **settings), tmp_path / "run", engine=Here(answer))
    assert run_cli(["report", str(tmp_path / "run"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""  # also where a sequence has left samples out, nothing is missing
    assert len(recorder.figures) == len(figures)
    for figure in recorder.figures.values():
        check_layout(figure)
    document = json.loads(out)
    report = tmp_path / "run" / "report"
    assert {Path(f).stem for f in document["files"] if f.startswith("figures/")} == figures
    text = (report / "index.html").read_text()
    assert "<script" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert text.count("<figure ") == text.count('<img alt="') == len(figures)
    assert "net &amp; &lt;b&gt;more" in text
    assert "<b>more" not in text
    words = unescape(text).replace("\xa0", " ")
    for part in ("What was measured.", "What came out.", "What is guaranteed.", "What is not.", result.measure.guarantee):
        assert part in words
    with (report / "table.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert line["samples"] == str(result.measure.samples)
    assert float(line["estimate_lower"]) == result.measure.lower
    assert document["table"][0]["estimate_upper"] == result.measure.upper
    with (report / "samples.csv").open() as file:
        verdicts = [row["verdict"] for row in csv.DictReader(file)]
    assert len(verdicts) == 200
    assert verdicts[: result.used].count("violated") == len(result.counts.violated)
    assert r"\begin{table}" in (report / "table.tex").read_text()
    assert "| verdict |" in (report / "table.md").read_text()
    for name in figures:
        with Image.open(report / "figures" / f"{name}.png") as image:
            assert image.width > 500
    assert ("The error asked for, 0.12, is reached." in words) == (metric == "global")
    # a fixed-size interval does not hold for a number of samples that depends on the samples
    assert ("The rows have no interval of their own" in words) == (metric == "global")
    # the sequence stops before there are samples enough to draw from again
    assert ("What is not drawn. How repeated estimates settle" in words) == (metric == "global")
    if metric == "satisfaction":
        assert "broken &lt;here&gt;" in text
    if metric == "pointwise":
        with (report / "curve.csv").open() as file:
            points = list(csv.DictReader(file))
        lower = [float(p["frequency_lower"]) for p in points]
        assert lower == sorted(lower)
        assert all(float(p["band_lower"]) <= float(p["frequency_lower"]) <= float(p["frequency_upper"]) for p in points)


def test_an_unfinished_run(tmp_path: Path, files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    def stops(task: Task) -> Outcome:
        if task.id == 8:
            raise KeyboardInterrupt
        return Invented(0.5)(task)

    robustness(plan_of(files, 12), tmp_path / "run", engine=Here(stops))
    assert run_cli(["report", str(tmp_path / "run"), "--title", "So far"]) == 0
    assert "the run is not finished: 5 units" in capfd.readouterr().err
    text = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "<title>So far</title>" in text
    assert "Nothing yet: 5 samples have not been looked at" in text
    assert "There is no interval yet" in text
    assert run_cli(["report", str(tmp_path / "run"), "--samples", "1"]) == 4
    assert "--samples names images" in capfd.readouterr().err


def test_tolerances_that_nothing_heeds(tmp_path: Path, files: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    robustness(plan_of(files, 12, metric="security"), tmp_path / "run", engine=Here(Invented(0.5)))
    robustness(plan_of(files, 12), tmp_path / "sure", engine=Here(Invented(0.5)))
    for name, tolerances, words in (
        ("run", "0.4", "--tolerances is of --metric satisfaction and global, and this run is of security"),
        ("sure", "0.4,1.5", "--tolerances 1.5 is not below 1, the range of the values"),
    ):
        assert run_cli(["report", str(tmp_path / name), "--tolerances", tolerances]) == 2
        assert words in capfd.readouterr().err
        assert not (tmp_path / name / "report").exists()
    assert run_cli(["report", str(tmp_path / "sure"), "--tolerances", "0.9,0.95", "--quiet"]) == 0
