"""`--target K` on the command line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from tests.cli.conftest import Run

ANCHOR = ("digits.onnx", "--x0", "seven.npy")


def test_attack_distance_and_verify_of_one_target(digits: Path, onnxsub: Run) -> None:
    whole = onnxsub("attack", *ANCHOR, "--json").json
    target = 1 if whole["adversarial_label"] != 1 else 2
    asked = (*ANCHOR, "--target", target, "--json")
    attacked = onnxsub("attack", *asked, "-o", "x.npy")
    assert attacked.code == 0
    assert attacked.json["anchor"]["target"] == attacked.json["adversarial_label"] == target
    assert attacked.json["d_adv"] > whole["d_adv"]
    assert whole["anchor"]["target"] is None
    x0, x = np.load("seven.npy"), np.load("x.npy")
    assert math.isclose(float(np.abs(x.astype(float) - x0).max()), attacked.json["d_adv"], rel_tol=1e-6)
    d = attacked.json["d_adv"]
    assert onnxsub("verify", *asked, "--eps", 0.5 * (whole["d_adv"] + d), "--nodes", 200).json["targets"].keys() == {str(target)}
    via = onnxsub("distance", *asked, "--via", "lin:0.99").json
    assert via["targets"].keys() == {str(target)}
    assert via["original"]["upper"] <= d * (1 + 1e-6)
    pruned = onnxsub("prune", *asked, "-o", "g.onnx").json
    assert pruned["anchor"]["target"] == target
    assert onnxsub("info", "g.onnx", "--json").json["substitute"]["anchor"]["target"] == target


def test_a_target_that_is_none(digits: Path, onnxsub: Run) -> None:
    for command in ("attack", "distance", "prune", "verify"):
        more = ("--eps", 0.1) if command == "verify" else ()
        for target, words in ((7, "--target 7 is the class to defend"), (10, "--target 10 is out of range")):
            ran = onnxsub(command, *ANCHOR, *more, "--target", target)
            assert ran.code == 4
            assert words in ran.line


def test_a_property_has_no_target(digits: Path, onnxsub: Run) -> None:
    assert onnxsub("verify", "digits.onnx", "p.vnnlib", "--target", 1).code == 2
