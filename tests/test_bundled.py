"""What comes inside the package: the network, the image, and the job on them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import onnxsub
from onnxsub.bundled import DIGITS, SEVEN
from onnxsub.cli.main import run

MODELS = Path(__file__).parents[1] / "models"
Capture = pytest.CaptureFixture[str]


def test_the_bundled_files_are_those_of_models() -> None:
    assert DIGITS.read_bytes() == (MODELS / "digits.onnx").read_bytes()
    assert SEVEN.read_bytes() == (MODELS / "digits_seven.npy").read_bytes()


def test_the_demo_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "--json", "--quiet", "--threads", "1"]) == 0
    keys = json.loads(capfd.readouterr().out)
    assert keys["schema"] == "onnxsub.demo/1"
    assert (keys["units_total"], keys["units_pruned"], keys["anchor"]["label"]) == (832, 824, 7)
    assert keys["status"] == "exact"
    assert keys["original"]["lower"] <= keys["original"]["upper"] <= keys["d_adv"] + 1e-9
    # the file that it wrote is a classifier of the same input, and the same function at the image
    seven = np.load(SEVEN)
    substitute = onnxsub.make_query(keys["output"], seven)
    difference = substitute.logits(seven) - onnxsub.make_query(DIGITS, seven).logits(seven)
    assert abs(difference).max() <= keys["preserves"]["x0"] + 1e-6

    assert run(["demo", "-o", "said", "--threads", "1"]) == 0
    story = capfd.readouterr().out
    assert f"{keys['units_pruned']} of {keys['units_total']} ReLUs" in story
    assert re.search(rf"at most +{keys['original']['upper']:.5f} ", story)
    assert re.search(rf"at least +{keys['original']['lower']:.5f} ", story)
    assert (tmp_path / "said" / "digits.lin-0.99.onnx").stat().st_size == Path(keys["output"]).stat().st_size


def test_a_folder_that_cannot_be_made(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert run(["demo", "-o", str(tmp_path / "file")]) == 4
    assert capfd.readouterr().err.startswith("onnxsub: cannot make the folder")
    assert run(["demo", "--threads", "0"]) == 4
