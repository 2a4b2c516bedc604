"""`onnxsub demo2d`: the pictures are of what they say they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import onnxsub
from onnxsub.cli.main import run as run_cli
from onnxsub.report.demo2d import CLASSES, spirals
from tests.report_tools import Recorder, check_layout


def test_demo2d(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    folder = tmp_path / "pictures"
    argv = ["demo2d", "-o", str(folder), "--gammas", "0.5,0.95", "--methods", "con,lin", "--json"]
    assert run_cli(argv) == 0
    out, err = capfd.readouterr()
    assert err == ""
    document = json.loads(out)
    assert document["schema"] == "onnxsub.demo2d/1"
    assert {p.name for p in folder.iterdir()} == set(document["files"])
    assert len(recorder.figures) == 3
    for figure in recorder.figures.values():
        check_layout(figure)
        (legend,) = figure.legends
        assert "anchor" in " ".join(text.get_text() for text in legend.get_texts())
    for name in ("global", "local", "unit"):
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 400
            colours = image.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 50

    # the classifier is an ordinary file that onnxruntime runs, and right on its points
    x, y = spirals(0)
    session = onnxruntime.InferenceSession(folder / "classifier.onnx")
    (logits,) = session.run(None, {"x": x})
    assert logits.shape == (len(x), CLASSES)
    assert (logits.argmax(axis=1) == y).mean() == document["accuracy"] > 0.95

    # its distance is what the command line says of the files that were written
    anchor = np.load(folder / "anchor.npy")
    result = onnxsub.distance(onnxsub.make_query(folder / "classifier.onnx", anchor, threads=1))
    assert result.status == "exact"
    assert document["d_bnd"] == pytest.approx(result.upper, abs=2e-6)
    assert document["d_adv"] >= result.lower
    by = {(s["method"], s["gamma"]): s for s in document["substitutes"]}
    assert set(by) == {(m, g) for m in ("con", "lin") for g in (0.5, 0.95)}
    assert by["lin", 0.5]["kept"] == 20
    assert by["lin", 0.95]["kept"] == 2
    # a line through the adversarial point cannot be farther from the anchor than that point
    assert all(by["lin", g]["d_hat"] <= document["d_adv"] + 1e-6 for g in (0.5, 0.95))


@pytest.mark.slow
def test_the_seed_decides(tmp_path: Path) -> None:
    pictures = []
    for name in ("a", "b"):
        assert run_cli(["demo2d", "-o", str(tmp_path / name), "--gammas", "0.9", "--methods", "act", "--seed", "3"]) == 0
        pictures.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert pictures[0] == pictures[1]


def test_bad_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for argv, code, words in (
        (["-o", str(tmp_path / "file" / "x")], 4, "cannot make the folder"),
        (["-o", str(tmp_path), "--gammas", "2"], 2, "--gammas 2.0 is outside"),
        (["-o", str(tmp_path), "--gammas", "x"], 2, "is no list of numbers"),
        (["-o", str(tmp_path), "--gammas", ""], 2, "nothing is to be drawn"),
        (["-o", str(tmp_path), "--methods", "sin"], 2, "--methods 'sin' is unknown"),
        (["-o", str(tmp_path), "--seed", "-1"], 2, "--seed -1"),
    ):
        assert run_cli(["demo2d", *argv]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
