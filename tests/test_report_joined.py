"""`onnxsub report RUN1 RUN2`: several runs of one command side by side."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsub.cli.main import run as run_cli
from onnxsub.evaluate.by_sample import by_sample
from onnxsub.evaluate.numbers import Digits
from onnxsub.evaluate.pairs.files import write_pair_files
from onnxsub.evaluate.pairs.run import run_pairs
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.run import evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.metrics.adversarial import AdversarialOptions
from onnxsub.metrics.adversarial_result import AdversarialResult
from onnxsub.metrics.margin import MarginOptions
from onnxsub.report.joined_tables import Member, against_table, changed_table, members_table
from onnxsub.verifiers.options import Limits
from tests.evaluate_tools import make_files
from tests.report_tools import ROW_LIKE, Recorder, check_layout
from tests.robustness_tools import Here, Invented, many, plan_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def runs(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A network, a slightly different one, and the first again on other data."""
    folder = tmp_path_factory.mktemp("runs")
    changed = onnx.load(files[0])
    for weight in changed.graph.initializer:
        array = numpy_helper.to_array(weight)
        factors = np.linspace(0.9, 1.1, array.size).reshape(array.shape)
        weight.CopyFrom(numpy_helper.from_array((array * factors).astype(array.dtype), weight.name))
    onnx.save(changed, folder / "new.onnx")
    (old, same), new = files, folder / "new.onnx"
    for name, model, data in (("before", old, same), ("after", new, same), ("else", old, many(folder, same, 3))):
        samples = read_samples(data, Choice(limit=3), labels="predicted")
        plan = Plan.of((str(model),), samples, Settings(gammas=(0.5,), seed=int(name == "else")))
        evaluate(plan, folder / name, engine=Here())
    return folder / "before", folder / "after", folder / "else"


def words_of(folder: Path) -> str:
    return unescape((folder / "index.html").read_text()).replace("\xa0", " ")


def test_two_runs_of_the_same_data(
    runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert run_cli(["report", str(runs[0]), str(runs[1]), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["runs"] == [str(runs[0]), str(runs[1])]
    assert document["output"] == "comparison"
    assert [line["model"] for line in document["table"]] == ["before", "after"]
    assert {"d_bnd_upper", "d_adv"} <= {x["quantity"] for x in document["distances"]}
    assert not (runs[0] / "report").exists()
    words = words_of(tmp_path / "comparison")
    assert "2 runs side by side: before, after" in words
    assert "every sample is paired with itself; changes are against before" in words
    for title in ("Distances over the samples", "Distances against before", "Samples side by side", "after against before"):
        assert title in words
    assert set(recorder.figures) == {"Cumulative distribution of distances", "after against before"}
    for figure in recorder.figures.values():
        check_layout(figure)
    # the medians of the page are those of the runs' own tables
    with (tmp_path / "comparison" / "distances.csv").open(newline="") as file:
        medians = {x["model"]: float(x["median"]) for x in csv.DictReader(file) if x["quantity"] == "d_bnd_upper"}
    for run in runs[:2]:
        with (run / "samples.csv").open(newline="") as file:
            assert medians[run.name] == pytest.approx(np.median([float(row["d_bnd_upper"]) for row in csv.DictReader(file)]))


def test_other_data_are_not_paired(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    assert run_cli(["report", str(runs[0]), str(runs[2]), "-o", str(tmp_path), "--title", "Both", "--quiet"]) == 0
    words = words_of(tmp_path)
    assert "<title>Both</title>" in words
    assert "The data of the runs differ, so samples are not paired" in words
    assert "Samples side by side" not in words
    assert "settings.seed" in words
    assert "before: 0; else: 1" in words


def test_what_cannot_stand_side_by_side(
    runs: tuple[Path, Path, Path], files: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    robustness(plan_of(files, 3), tmp_path / "other", engine=Here(Invented(0.5)))
    for code, argv, words in (
        (4, [str(runs[0]), str(tmp_path / "other")], "runs of different commands cannot stand side by side"),
        (2, [str(runs[0]), str(runs[0])], "a run is named twice"),
        (4, [str(runs[0]), str(tmp_path)], "is no run folder"),
        (2, [str(runs[0]), str(runs[1]), "--samples", "1"], "--samples is of one run"),
        (2, [str(runs[0]), str(runs[1]), "--reference", "x.csv"], "--reference is of one run"),
        (2, [str(runs[0]), str(runs[1]), "--images", "4"], "--images is of one run"),
        (4, [str(tmp_path / "other"), "--reference", "x.csv"], "--reference stands beside the distances of a run"),
        (4, [str(tmp_path / "other"), "--images", "6"], "--images shows samples of a run of onnxsub evaluate or adversarial"),
    ):
        assert run_cli(["report", *argv, "-o", str(tmp_path / "page")]) == code
        assert words in capfd.readouterr().err
    assert not (tmp_path / "page").exists()
    assert run_cli(["report"]) == 2


def test_verdicts_that_changed(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    for name, share in (("old", 0.8), ("new", 0.5)):
        robustness(plan_of(files), tmp_path / name, engine=Here(Invented(share, 0.1)))
    assert run_cli(["report", str(tmp_path / "old"), str(tmp_path / "new"), "-o", str(tmp_path / "page"), "--quiet"]) == 0
    with (tmp_path / "page" / "table.csv").open(newline="") as file:
        old, new = csv.DictReader(file)
    assert int(old["proved"]) > int(new["proved"])
    words = words_of(tmp_path / "page")
    verdicts = []
    for name in ("old", "new"):
        with (tmp_path / name / "samples.csv").open(newline="") as file:
            verdicts.append([row["status"] for row in csv.DictReader(file)])
    unlike = sum(a != b for a, b in zip(*verdicts, strict=True))
    assert unlike > 0
    assert f"Of 10 samples that every run has looked at, {unlike} have another verdict in some run." in words
    (figure,) = recorder.figures.values()
    check_layout(figure)


def test_pairs_side_by_side(files: tuple[Path, Path], tmp_path: Path) -> None:
    samples = read_samples(files[1], Choice(limit=1), labels="predicted")
    for name, eps in (("near", 0.05), ("far", 0.3)):
        options = AdversarialOptions(eps, margin=MarginOptions(Limits(threads=1)))
        done = run_pairs((str(files[0]),), samples, options, tmp_path / name, engine=Here())
        write_pair_files(AdversarialResult(done.summary[0], None, (), options, {}, {"total": 1.0}), tmp_path / name)
    assert run_cli(["report", str(tmp_path / "near"), str(tmp_path / "far"), "-o", str(tmp_path / "page"), "--quiet"]) == 0
    words = words_of(tmp_path / "page")
    assert "near: 0.05; far: 0.3" in words
    assert "Smallest leads" in words


def member(label: str, uppers: list[float | None]) -> Member:
    rows = [
        replace(ROW_LIKE, index=i, d_bnd_lower=u, d_bnd_upper=u) if u is not None
        else replace(ROW_LIKE, index=i, status_bnd="misclassified", d_bnd_lower=0.0, d_bnd_upper=0.0)
        for i, u in enumerate(uppers)
    ]  # fmt: skip
    return Member(label, "m", tuple(by_sample(rows)), (), ())


def test_samples_against_the_first_run() -> None:
    a, b = member("a", [0.1, 0.2, 0.3, 0.4]), member("b", [0.1, 0.1, 0.4, None])
    (row,) = against_table(a, [b], Digits(4)).cells
    # one nearer by 0.1, one farther by 0.1, one the same, one misclassified by the second only
    assert row == ("b", "4", "3", "1", "1", "0.0000 (3 exact)", "1")
    table = members_table([a, b], Digits(2))
    assert table.cells[0] == ("0", "1", "0.10", "0.10")
    orders = {order.name: order.places for order in table.orders}
    indices = [row[0] for row in table.cells]
    assert indices[orders["most lost in b first"].index(0)] == "1"
    assert indices[orders["most gained in b first"].index(0)] == "2"


def test_only_changed_verdicts_are_listed() -> None:
    first, second = {0: "proved", 1: "proved", 2: "violated"}, {0: "proved", 1: "undecided", 2: "proved", 3: "proved"}
    table = changed_table({"a": first, "b": second})
    assert table.cells == (("1", "proved", "undecided"), ("2", "violated", "proved"))
    assert "Of 3 samples" in table.note
