"""`onnxsub robustness` and `onnxsub report` of its runs, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.evaluate import drive
from tests.cli.conftest import Run
from tests.evaluate_tools import SAMPLES, make_files
from tests.robustness_tools import Here, Invented


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Network and data, and workers in this process: starting others is tested elsewhere."""
    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here())
    return make_files(tmp_path)


def begin(files: tuple[Path, Path], run: Path, *more: Any) -> list[Any]:
    return ["robustness", files[0], "--data", files[1], "--run", run, "--eps", "0.1", *more]


def test_one_number_with_its_interval(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run) -> None:
    argv = begin(files, tmp_path / "run", "--labels", "predicted", "--limit", 5)
    ran = onnxsub(*argv, "--json")
    assert (ran.code, ran.err) == (0, "")
    d = ran.json
    assert d["schema"] == "onnxsub.robustness/1"
    assert d["proved"] + d["violated"] + d["undecided"] + d["misclassified"] == d["samples"] == 5
    assert d["estimate"]["lower"] == d["proved"] / 5
    assert d["interval"]["lower"] <= d["estimate"]["lower"] <= d["estimate"]["upper"] <= d["interval"]["upper"]
    assert "Proved means proved" in d["guarantee"]
    assert d["settings"]["metric"] == "satisfaction"
    assert "index" not in d
    shown = onnxsub("robustness", "--run", tmp_path / "run", "--json", "-v")
    assert shown.code == 0
    assert shown.json["done_now"] == 0
    assert len(shown.json["index"]["proved"]) == d["proved"]
    table = onnxsub("robustness", "--run", tmp_path / "run")
    assert "Constraint satisfaction: classification robustness at radius 0.1" in table.out
    assert "95 % confidence" in table.out
    asked = onnxsub(*begin(files, tmp_path / "two", "--labels", "predicted", "--metric", "global", "--error", "0.43"))
    assert "0.43 asked for, reached" in asked.out
    other = onnxsub(*argv, "--seed", 1)
    assert (other.code, "settings.seed is 0 there and 1 here" in other.line) == (4, True)


def test_an_approximation_is_labelled_and_fgsm_is_an_attack(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run) -> None:
    quantity = ("--metric", "global", "--quantitative", "--property", "confidence", "--gamma", 0.1, "--limit", 2)
    ran = onnxsub(*begin(files, tmp_path / "d", *quantity, "--approximate", "fgsm", "--json"))
    assert (ran.code, ran.err) == (0, "")
    estimate = ran.json["estimate"]
    assert estimate["approximate"] == {"method": "fgsm", "bound": "lower", "value": estimate["lower"]}
    assert (ran.json["proved"], estimate["upper"], ran.json["interval"]["upper"]) == (0, 1.0, 1.0)
    shown = onnxsub("robustness", "--run", tmp_path / "d")
    said = " ".join(shown.out.split())
    assert "by fgsm alone: a bound from below" in said
    assert "nothing is proved" in said
    assert onnxsub("report", tmp_path / "d", "--quiet").code == 0
    assert "by fgsm alone: a bound from below" in (tmp_path / "d/report/index.html").read_text()
    attack = ("--labels", "predicted", "--limit", 2, "--metric", "security", "--attack", "fgsm", "--json")
    ran = onnxsub(*begin(files, tmp_path / "s", *attack))
    assert (ran.code, ran.json["proved"], ran.json["settings"]["attack"]) == (0, 0, "fgsm")
    assert "the attack (fgsm) could not refute" in ran.json["estimate"]["quantity"]
    several = begin(files, tmp_path / "g", *attack)
    several[several.index("--eps") + 1] = "0.05,0.3"
    ran = onnxsub(*several)
    assert (ran.code, ran.json["settings"]["batch"], ran.json["settings"]["attack"]) == (0, 0, "fgsm")
    refused = onnxsub(*begin(files, tmp_path / "r", "--labels", "predicted", "--attack", "fgsm"))
    assert (refused.code, "--attack belongs to --metric security" in refused.line) == (2, True)
    assert not (tmp_path / "r").exists()


def test_commands_do_not_take_each_others_runs(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run) -> None:
    run = tmp_path / "run"
    assert onnxsub(*begin(files, run, "--labels", "predicted", "--limit", 1)).code == 0
    ran = onnxsub("evaluate", "--run", run)
    assert (ran.code, "'onnxsub.run-robustness/1', this is 'onnxsub.run/1'" in ran.line) == (4, True)
    argv = ["evaluate", files[0], "--data", files[1], "--labels", "predicted", "--limit", 1, "--run"]
    assert onnxsub(*argv, run).code == 4
    assert onnxsub(*argv, tmp_path / "e").code == 0
    ran = onnxsub("robustness", "--run", tmp_path / "e")
    assert (ran.code, "'onnxsub.run/1', this is 'onnxsub.run-robustness/1'" in ran.line) == (4, True)


def test_bad_input(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run) -> None:
    model, data = files
    with np.load(data) as archive:
        np.savez(tmp_path / "classes.npz", x=archive["x"], y=np.full(SAMPLES, 3))
    run = tmp_path / "run"
    named = ("robustness", model, "--data", data, "--labels", "predicted", "--run", run)
    for argv, words in (
        (("robustness", "--run", run), "is no run folder"),
        (("robustness", "--run", run, "--eps", "0.1"), "--eps is about a new run"),
        (("robustness", "--run", run, "--eps", "0"), "--eps is about a new run"),
        (("robustness", "--run", run, "--property", "sr"), "--property is about a new run"),
        (("robustness", model, "--run", run, "--eps", "0.1"), "a new run needs --data"),
        (named, "a new run needs --eps"),
        (("robustness", model, "--data", data, "--run", run, "--eps", "0.1"), "has no labels"),
        (("robustness", model, "--data", tmp_path / "classes.npz", "--run", run, "--eps", "0.1"), "label 3, but the model has 3"),
        ((*named, "--eps", "nan"), "is not a radius"),
        ((*named, "--eps", "0.1", "--confidence", "0"), "--confidence 0"),
        ((*named, "--eps", "0.1", "--metric", "global", "--error", "1"), "--error 1"),
        ((*named, "--eps", "0.1", "--metric", "global", "--error", "0.1"), "needs 185; --error 0.4295 is what 10 samples give"),
        ((*named, "--eps", "0.1", "--error", "0.1"), "--error belongs to --metric global"),
        ((*named, "--eps", "0.1", "--property", "lr"), "property lr needs --lipschitz"),
        ((*named, "--eps", "0.1", "--jobs", "0"), "--jobs 0"),
        ((*named, "--eps", "0.1", "--limit", "3", "--index", "1"), "--index names the samples"),
        ((*named, "--eps", "0.1", "--mean", "a", "--std", "1"), "'a' is neither a list of numbers"),
    ):
        ran = onnxsub(*argv)
        of_files = ("is no run folder", "has no labels", "label 3, but", "needs 185")
        assert ran.code == (4 if words.startswith(of_files) else 2), (argv, ran)
        assert words in ran.line, argv
        assert not (run / "ledger.sqlite").exists()
    assert onnxsub(*named, "--eps", "0.1", "--metric", "speed").code == 2


def test_interrupted(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(task: Any) -> Any:
        if task.id == 3:
            raise KeyboardInterrupt
        return Invented(0.5)(task)

    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here(stops))
    ran = onnxsub(*begin(files, tmp_path / "run", "--labels", "predicted", "--json"))
    assert ran.code == 130
    assert (ran.json["interrupted"], ran.json["finished"], ran.json["pending"], ran.json["interval"]) == (True, False, 8, None)
    assert "the same command goes on" in ran.err
    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here(Invented(0.5)))
    assert onnxsub("robustness", "--run", tmp_path / "run", "--json").json["done_now"] == 8


def test_several_radii_and_metrics_are_one_table(files: tuple[Path, Path], tmp_path: Path, onnxsub: Run) -> None:
    more = ("--labels", "predicted", "--limit", 3)
    argv: list[Any] = ["robustness", files[0], "--data", files[1], "--run", tmp_path / "run", "--eps", "0.1,0.02"]
    argv += ["--metric", "satisfaction,security"]
    d = onnxsub(*argv, *more, "--json").json
    assert d["schema"] == "onnxsub.robustness-many/1"
    assert [(b["metric"], b["eps"]) for b in d["blocks"]] == [(m, e) for m in ("satisfaction", "security") for e in (0.02, 0.1)]
    assert all(b["interval"]["lower"] <= b["estimate"]["lower"] <= b["interval"]["upper"] for b in d["blocks"])
    shown = onnxsub("robustness", "--run", tmp_path / "run")
    assert shown.code == 0
    lines = [line.split() for line in shown.out.splitlines()]
    heads = [line for line in lines if "radius" in line]
    assert [line[0] for line in heads] == ["satisfaction", "security"]
    assert sum(line[:2] in (["net", "0.02"], ["net", "0.1"]) for line in lines) == 4
    indices = onnxsub("robustness", "--run", tmp_path / "run", "--json", "-v").json["blocks"]
    assert all(sum(map(len, b["index"].values())) == 3 for b in indices)
    wrong = onnxsub(*argv[:-1], "satisfaction,securty", *more)
    assert wrong.code == 2
    assert "security" in wrong.err
    assert "--batch" in onnxsub(*begin(files, tmp_path / "other", *more, "--batch", 5)).err
    unheeded = onnxsub(*argv[:-1], "satisfaction", *more, "--batch", 5)
    assert (unheeded.code, "--batch belongs to --metric security" in unheeded.err) == (2, True)
