"""The study of regimes on tiny images: what it counts, and that three kills change no figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.study import regimes as study
from onnxsub.study.regimes import RegimesOptions, RegimesResult, study_regimes
from onnxsub.study.regimes_report import tables, write_report
from onnxsub.zoo.images import ImageSet
from tests.cli.conftest import Run
from tests.test_zoo_train import DATA, StopError, blobs

TINY = RegimesOptions(
    architectures=("mlp:8:clamp",), regimes=("base", "sr", "adversarial"), decided=("base", "sr"), recipe="full", epochs=15,
    radii=(0.02, 0.3), attacked=20, images=6, timeout=1.0,
)  # fmt: skip


def test_three_kills_change_no_figure(tmp_path: Path) -> None:
    whole = study_regimes(DATA, TINY, tmp_path / "whole")
    seen = 0
    for stop in (2, 7, 11):
        left = stop

        def report(share: float, text: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StopError

        with pytest.raises(StopError):
            study_regimes(DATA, TINY, tmp_path / "cut", progress=report)
        seen += 1
    again = study_regimes(DATA, TINY, tmp_path / "cut")
    assert seen == 3
    assert json.dumps(again.to_json()) == json.dumps(whole.to_json())
    assert [p.name for p in write_report(again, tmp_path / "cut")] == [
        "tables.md", "security-mlp-8-clamp.svg", "security-mlp-8-clamp.png",
    ]  # fmt: skip
    assert (tmp_path / "cut" / "tables.md").read_text().count("### ") == 3

    base, sr, _ = whole.networks
    assert base["accuracy"] > 0.7
    for network in whole.networks:
        for shares in network["secure"].values():
            assert shares == sorted(shares, reverse=True)  # a larger ball is not safer
    assert base["secure"]["cr"][0] > base["secure"]["cr"][1]
    for record in (base, sr):
        assert record["contradictions"] == 0
        for by in record["decided"].values():
            assert sum(by["bab"].values()) == 6
    # what an attack refutes on the first images no proof may claim
    satisfied = tables(whole)[-1]
    assert len(satisfied.cells) == 6


def test_an_interruption_hands_out_what_there_is(tmp_path: Path) -> None:
    tiny = replace(TINY, epochs=1, images=21)
    parts = []
    for last in ("training", "attacks", "sr by bab, image 11 of 21", "-adv0.1: training"):

        def report(share: float, text: str, last: str = last) -> None:
            if last in text:
                raise KeyboardInterrupt

        parts.append(study_regimes(DATA, tiny, tmp_path / "s", progress=report))
        assert write_report(parts[-1], tmp_path / "s")[0].exists()
    assert all(part.interrupted and part.to_json()["interrupted"] for part in parts)
    assert [len(part.networks) for part in parts] == [0, 0, 1, 2]
    counts = {prop: sum(by["bab"].values()) for prop, by in parts[2].networks[0]["decided"].items()}
    assert counts == {"cr": 21, "sr": 10}  # whole blocks, and nothing of the one that was interrupted
    accuracy, security, satisfied = tables(parts[2])
    assert [row[1] != "" for row in accuracy.cells] == [True, False, False]
    assert (len(security.cells), len(satisfied.cells)) == (1, 2)
    assert not study_regimes(DATA, tiny, tmp_path / "s").interrupted


def test_ctrl_c_within_a_question_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes it for its end, and says so; what follows must not be asked."""
    asked = []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return SimpleNamespace(status="undecided", interrupted=True)

    monkeypatch.setattr(study, "decide_local", interrupted)
    found = study_regimes(DATA, replace(TINY, epochs=1), tmp_path / "s")
    assert found.interrupted
    assert len(asked) == 1
    assert not list((tmp_path / "s").glob("steps/decided/*/*.json"))


def test_published_figures_stand_beside_those_of_their_images() -> None:
    options = RegimesOptions(radii=(0.05, 0.1, 0.2))
    secure = {prop: [0.5, 0.25, 0.125] for prop in study.PROPERTIES}
    record = {"architecture": "fc100", "regime": "adversarial", "accuracy": 0.8047, "attacked_images": 9, "secure": secure}
    accuracy, security = tables(RegimesResult("fashion-mnist", options, (record,)))
    assert accuracy.heads == ("regime", "fc100", "apart", "fc30", "apart", "published")
    assert accuracy.cells[1] == ("adversarial", "80.5", "-4.6", "", "", "85.1")
    assert security.heads[-3:] == ("cr at 0.05", "cr at 0.2", "sr at 0.2")
    assert security.cells == (("adversarial", *["25.0"] * 4, "50.0", "12.5", "12.5"),)
    assert tables(RegimesResult("gtsrb", options, (record,)))[0].cells[1] == ("adversarial", "80.5", "")


def test_a_contradiction_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(file: Path, test: object, rows: range, prop: str, verifier: str, options: object) -> list[str]:
        return ["proved" if verifier == "bab" else "violated"] * len(rows)

    monkeypatch.setattr(study, "_block", said)
    chosen = RegimesOptions(
        ("mlp:8:clamp",), ("base",), ("base",), "fast", 1, images=12, marabou="python", marabou_images=5, attacked=5, radii=(0.1,)
    )
    (record,) = study_regimes(DATA, chosen, tmp_path / "s").networks
    assert record["decided"]["cr"] == {"bab": {"proved": 12}, "marabou": {"violated": 5}}
    assert record["contradictions"] == 10  # of cr and sr; lr is not asked


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no test images"):
        study_regimes(ImageSet("blobs", blobs(20), None), TINY, tmp_path / "s")
    with pytest.raises(InputError, match="there is no regime 'dl2'"):
        RegimesOptions(regimes=("dl2",))
    with pytest.raises(InputError, match="must be positive"):
        RegimesOptions(images=0)
    with pytest.raises(InputError, match="must be positive"):
        RegimesOptions(radii=(0.1, float("nan")))
    with pytest.raises(InputError, match="--regimes base,base names something twice"):
        RegimesOptions(regimes=("base", "base"))
    assert RegimesOptions(radii=(0.3, 0.1)).radii == (0.1, 0.3)


def test_the_command(onnxsub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = blobs(100), blobs(30, 1)
    np.savez("blobs.npz", x_train=train.x[:, 0], y_train=train.y, x_test=test.x[:, 0], y_test=test.y)
    line = ("study", "regimes", "--data", "blobs.npz", "--regimes", "base,sr", "--decided", "sr", "--architectures", "mlp:5",
            "--epochs", 1, "--images", 1, "--attacked", 50, "--radii", "0.1", "--run", "s")  # fmt: skip
    keys = onnxsub(*line, "--json").json
    assert keys["schema"] == "onnxsub.study-regimes/1"
    assert [n["regime"] for n in keys["networks"]] == ["base", "sr"]
    assert [n["attacked_images"] for n in keys["networks"]] == [30, 30]
    assert "Percent of 30 test images" in Path("s/tables.md").read_text()
    assert "--decided scr is not trained" in onnxsub(*line, "--decided", "scr").line
    ran = onnxsub(*line)
    assert (ran.code, "tables.md" in ran.out) == (0, True)
    assert "other settings: seed is 0 there and 3 here" in onnxsub(*line, "--seed", 3).line
    assert onnxsub("study", "regimes", "--run", "t").code == 2
    assert onnxsub("study", "regimes", "--data", "blobs.npz", "--run", "t", "--radii", "x").code == 2
    assert "regimes" in onnxsub("study", "--help").out
