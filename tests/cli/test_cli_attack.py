"""`onnxsub attack`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsub as package
from onnxsub.anchors import read_anchor

Run = Callable[..., Any]
COMMON = {"schema", "version", "model", "anchor", "settings", "time_s"}


def test_json_has_the_keys_of_the_contract(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--threads", 1, "--json", "-o", "adv.npy")
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert set(document) >= COMMON | {"d_adv", "adversarial_label", "margin", "found"}
    assert document["schema"] == "onnxsub.attack/1"
    assert set(document["anchor"]) == {"sha256", "label", "predicted", "target"}
    assert document["anchor"]["label"] == document["anchor"]["predicted"] == 7
    assert document["found"] is True
    assert document["margin"] > 0
    # the file is the point that the document speaks of
    query = package.make_query("digits.onnx", np.load("seven.npy"))
    x = np.load("adv.npy")
    assert x.shape == (1, 1, 8, 8)
    assert x.dtype == np.float32
    assert query.radius(x)[0] == document["d_adv"]
    margins, labels = query.margins(x)
    assert margins[0] > 0
    assert labels[0] == document["adversarial_label"]


def test_table(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("attack", "digits.onnx", "--x0", "anchors.npz", "--array", "x", "--index", 3, "--threads", 1)
    assert ran.code == 0
    assert ran.err == ""
    assert re.search(r"^anchor +anchors.npz row 3, class 3$", ran.out, re.MULTILINE)
    assert re.search(r"^d_adv +0\.\d+$", ran.out, re.MULTILINE)


def test_verbose_logs_stages_on_standard_error_only(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--threads", 1, "--json", "-v")
    assert ran.code == 0
    assert ran.json["found"]
    assert "attack:" in ran.err


@pytest.mark.parametrize("ending", ["npz", "png"])
def test_other_files(digits: Path, onnxsub: Run, ending: str) -> None:
    ran = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--threads", 1, "--json", "-o", f"adv.{ending}")
    assert ran.code == 0
    x = read_anchor(f"adv.{ending}", (1, 8, 8))
    seven = np.load("seven.npy")[0]
    # an image holds the nearest of 256 grey values
    assert abs(np.abs(x.astype(np.float64) - seven).max() - ran.json["d_adv"]) <= (0 if ending == "npz" else 0.5 / 255 + 1e-6)


def test_a_misclassified_anchor_has_distance_zero(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--label", 2, "--threads", 1, "--json")
    assert ran.code == 0
    assert ran.json["d_adv"] == 0
    assert ran.json["anchor"] | {"sha256": ""} == {"sha256": "", "label": 2, "predicted": 7, "target": None}


@pytest.mark.parametrize("given", [("0.5", "0.25"), ("0.5,", "0.25,")])
def test_mean_and_std_change_nothing_but_the_units(digits: Path, onnxsub: Run, given: tuple[str, str]) -> None:
    # the model of (x - 0.5) / 0.25 on [0.5, 0.75] is the model of x on [0, 1], with radii a quarter as large
    np.save("shifted.npy", (0.5 + 0.25 * np.load("seven.npy")).astype(np.float32))
    plain = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--threads", 1, "--json").json
    units = ("--domain", 0.5, 0.75, "--mean", given[0], "--std", given[1])
    shifted = onnxsub("attack", "digits.onnx", "--x0", "shifted.npy", *units, "--threads", 1, "--json").json
    assert shifted["d_adv"] == pytest.approx(plain["d_adv"] / 4, rel=0.01)


def test_several_numbers_follow_mean(digits: Path, onnxsub: Run) -> None:
    for given in (("0.4", "0.5", "0.6"), ("0.4,0.5,0.6",)):
        ran = onnxsub("attack", "digits.onnx", "--mean", *given, "--std", "1", "1", "1", "--x0", "seven.npy")
        assert ran.code == 4
        assert "--mean has 3 values" in ran.line


def test_an_interrupted_attack_shows_the_best_so_far(digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsub.passes.attack import Attacker

    def stopped(self: Attacker, scouted: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Attacker, "_descend", stopped)
    ran = onnxsub("attack", "digits.onnx", "--x0", "seven.npy", "--threads", 1, "--json", "-o", "adv.npy")
    assert ran.code == 130
    assert ran.json["found"] is True
    assert Path("adv.npy").exists()
    assert "interrupted" in ran.err
