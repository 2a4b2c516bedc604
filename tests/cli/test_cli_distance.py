"""`onnxsub distance`, `onnxsub verify` and `onnxsub compare`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsub as package
from onnxsub.cli.distance import substitute_of
from onnxsub.errors import InputError

Run = Callable[..., Any]
COMMON = {"schema", "version", "model", "anchor", "settings", "time_s"}
ANCHOR = ("digits.onnx", "--x0", "seven.npy", "--threads", 1)


def test_distance_via_a_substitute(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("distance", *ANCHOR, "--via", "lin:0.99", "--json", "-o", "witness.npy")
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert document["schema"] == "onnxsub.distance/1"
    assert set(document) >= COMMON | {"status", "distance", "lower", "upper", "adversarial_label", "witness", "original"}
    assert set(document) >= {"verifier", "solver", "targets", "nodes"}
    assert document["status"] == "exact"
    assert document["distance"] == document["upper"]
    assert 0 <= document["upper"] - document["lower"] <= 1e-6
    assert (document["verifier"], document["solver"]) == ("bab", "highs")
    assert set(document["targets"]) == {str(t) for t in range(10)} - {"7"}
    assert set(document["witness"]) == {"path", "kind", "margin"}
    assert document["witness"]["path"] == "witness.npy"
    assert document["witness"]["kind"] in ("strict", "tie")
    original = document["original"]
    assert 0 < original["lower"] <= original["upper"]
    assert isinstance(original["exact"], bool)
    # the witness that was written is as far away as the document says
    distance = np.abs(np.load("witness.npy").astype(np.float64) - np.load("seven.npy")).max()
    assert distance == document["distance"]


def test_both_searches_agree(digits: Path, onnxsub: Run) -> None:
    found = [
        onnxsub("distance", *ANCHOR, "--via", "act", "--keep", 3, "--verifier", "milp", "--search", search, "--json").json["upper"]
        for search in ("direct", "bisect")
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--search", "bisect"), "--search bisect is of --verifier milp; leave it out for bab"),
        (("--search", "bisect", "--via", "lin:0.9"), "--search bisect is of --verifier milp"),
        (("--rank", "width"), "--rank says which units a substitute keeps; say which one with --via"),
    ],
)
def test_what_nothing_would_heed_is_refused(
    given: tuple[str, ...], words: str, digits: Path, monkeypatch: pytest.MonkeyPatch, onnxsub: Run
) -> None:
    ran = onnxsub("distance", *ANCHOR, *given)
    assert ran.code == 2
    assert words in ran.line
    monkeypatch.setenv("ONNXSUB_DISTANCE_RANK", "width")  # for the distances that have a substitute
    assert onnxsub("distance", *ANCHOR, "--nodes", 1).code in (0, 3)


def test_distance_table(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("distance", *ANCHOR, "--via", "lin:1")
    assert ran.code == 0
    assert ran.err == ""
    assert "832 of 832 units pruned" in ran.out
    assert re.search(r"^of the substitute +0\.\d+ +\(exact", ran.out, re.MULTILINE)
    assert re.search(r"^of the model +(between )?0\.\d+", ran.out, re.MULTILINE)


def test_the_time_limit_gives_a_bracket_and_code_3(digits: Path, onnxsub: Run) -> None:
    # 832 units at a tenth of a second: what is left is a bracket
    ran = onnxsub("distance", *ANCHOR, "--timeout", 0.1, "--json")
    assert ran.code == 3
    document = ran.json
    assert document["status"] == "bracket"
    assert "original" not in document
    lower, upper = document["lower"], document["upper"]
    assert lower >= 0
    assert upper is None or lower < upper


def test_a_misclassified_anchor(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("distance", *ANCHOR, "--label", 2, "--json")
    assert ran.code == 0
    assert (ran.json["status"], ran.json["distance"]) == ("misclassified", 0)
    assert onnxsub("distance", *ANCHOR, "--label", 2).code == 0


def test_via() -> None:
    found = substitute_of("lin:0.5", None, "width")
    assert found is not None
    assert (found.method, found.select.gamma, found.select.keep, found.select.rank) == ("lin", 0.5, None, "width")
    found = substitute_of("con", 7, "influence")
    assert found is not None
    assert (found.method, found.select.gamma, found.select.keep) == ("con", None, 7)
    assert substitute_of(None, None, "width") is None
    for via, keep in (("lin", None), ("lin:0.5", 3), ("lin:half", None), ("lin:2", None), ("best:0.5", None), (None, 3)):
        with pytest.raises(InputError):
            substitute_of(via, keep, "width")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent to one process")
def test_control_c_prints_what_was_proved(digits: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "onnxsub", "distance", "digits.onnx", "--x0", "seven.npy", "--threads", "1", "--json", "-v"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    while "attack  [" not in process.stderr.readline():  # then there is something to hand out
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert '"status": "bracket"' in out
    assert '"interrupted": true' in out
    assert "interrupted" in err


@pytest.mark.parametrize(("eps", "code", "status"), [(0.005, 0, "proved"), (0.2, 1, "violated")])
def test_verify(digits: Path, onnxsub: Run, eps: float, code: int, status: str) -> None:
    ran = onnxsub("verify", *ANCHOR, "--eps", eps, "--json", "-o", "witness.npy")
    assert (ran.code, ran.err) == (code, "")
    document = ran.json
    assert document["schema"] == "onnxsub.verify/2"
    assert set(document) >= COMMON | {"status", "reason", "witness"}
    assert (document["witness"] is None) == (status == "proved")
    assert document["status"] == status
    assert document["reason"]
    assert Path("witness.npy").exists() == (status == "violated")
    if status == "violated":
        query = package.make_query("digits.onnx", np.load("seven.npy"))
        x = np.load("witness.npy")
        assert query.margins(x)[0][0] >= 0
        assert query.radius(x)[0] <= eps
    assert status in onnxsub("verify", *ANCHOR, "--eps", eps).out


def test_both_doors_of_verify_give_the_same_keys_and_the_manual_names_each(digits: Path, onnxsub: Run) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    (row,) = [line for line in manual.splitlines() if line.startswith("| `onnxsub.verify/2`")]
    assert onnxsub("export-property", *ANCHOR, "--eps", 0.005, "-o", "safe.vnnlib").code == 0
    assert onnxsub("export-property", *ANCHOR, "--eps", 0.2, "-o", "unsafe.vnnlib").code == 0
    for eps, name in ((0.005, "safe"), (0.2, "unsafe")):
        ball = onnxsub("verify", *ANCHOR, "--eps", eps, "--json").json
        boxes = onnxsub("verify", "digits.onnx", f"{name}.vnnlib", "--json").json
        assert ball.keys() == boxes.keys()
        assert (ball["status"], ball["vnncomp"]) == (boxes["status"], boxes["vnncomp"])
        assert (ball["eps"], boxes["eps"]) == (eps, None)
        assert (ball["property"], boxes["anchor"], boxes["input"], boxes["targets"]) == (None,) * 4
        assert len(ball["clauses"][0]) == len(boxes["clauses"][0]) == len(ball["targets"])
        common = {"schema", "version", "model", "anchor", "settings", "time_s"}
        inner = set() if ball["witness"] is None else set(ball["witness"])
        if inner:
            assert inner == set(boxes["witness"])
        for key in (set(ball) - common) | inner:
            assert f"`{key}`" in row, f"docs/cli.md does not name {key} of onnxsub.verify/2"


def test_nodes_end_a_search(digits: Path, onnxsub: Run) -> None:
    short = onnxsub("distance", *ANCHOR, "--nodes", 20, "--json")
    assert (short.code, short.json["status"], short.json["settings"]["nodes"]) == (3, "bracket", 20)
    assert 0 < short.json["lower"] < short.json["upper"]
    assert 20 <= short.json["nodes"] <= 20 + 2 * 32  # a batch that was begun is finished
    assert "the limit of 20 nodes ended it" in short.json["reason"]
    again = onnxsub("distance", *ANCHOR, "--nodes", 20, "--json")
    assert [again.json[k] for k in ("lower", "upper", "nodes", "targets")] == [
        short.json[k] for k in ("lower", "upper", "nodes", "targets")
    ]
    verdict = onnxsub("verify", *ANCHOR, "--eps", 0.13, "--nodes", 1, "--json")
    assert (verdict.code, verdict.json["status"]) == (3, "unknown")
    assert "the limit of 1 nodes ended it" in verdict.json["reason"]
    assert "--nodes 0 must be at least 1" in onnxsub("distance", *ANCHOR, "--nodes", 0).err


def test_verify_undecided(digits: Path, onnxsub: Run) -> None:
    # just below the attack's radius neither bounds nor an attack decide, and the time limit leaves the MILP none
    ran = onnxsub("verify", *ANCHOR, "--eps", 0.13, "--timeout", 0.05, "--json")
    assert ran.code == 3
    assert ran.json["status"] == "unknown"
    assert ran.json["reason"]


def test_compare_with_itself_and_with_a_substitute(digits: Path, onnxsub: Run) -> None:
    same = onnxsub("compare", "digits.onnx", "digits.onnx", *ANCHOR[1:], "--eps", 0.1, "--json")
    assert (same.code, same.err) == (0, "")
    document = same.json
    assert document["schema"] == "onnxsub.compare/1"
    assert set(document) >= COMMON | {"eps", "sampled", "attacked", "certified", "at_x0", "other"}
    assert document["attacked"] == document["disagreements"] == 0
    assert document["certified"] >= 0
    assert onnxsub("prune", *ANCHOR, "--gamma", 0.5, "-o", "half.onnx").code == 0
    half = onnxsub("compare", "digits.onnx", "half.onnx", *ANCHOR[1:], "--eps", 0.05, "--json").json
    assert half["at_x0"] <= half["sampled"] <= half["attacked"] <= half["certified"]
    assert "never exceeded" in onnxsub("compare", "digits.onnx", "half.onnx", *ANCHOR[1:], "--eps", 0.05).out


def test_the_model_itself_is_searched_for_some_seconds(digits: Path, onnxsub: Run) -> None:
    plain = onnxsub("distance", *ANCHOR, "--via", "lin:0.99", "--json").json["original"]
    ran = onnxsub("distance", *ANCHOR, "--via", "lin:0.99", "--certify", 3, "--json")
    found = ran.json["original"]
    assert ran.code == 0
    assert plain["nodes"] == 0
    assert plain["lower"] <= found["lower"] <= found["upper"] <= plain["upper"] + 1e-9
    refused = onnxsub("distance", *ANCHOR, "--certify", 3)
    assert refused.code == 2
    assert "--via METHOD:GAMMA" in refused.err
