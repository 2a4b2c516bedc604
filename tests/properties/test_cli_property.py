"""The commands about properties, run as functions of their own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from onnxsub.cli.exits import Exit
from onnxsub.cli.export_property import command as export_property
from onnxsub.cli.main import run
from onnxsub.cli.options import Session
from onnxsub.cli.output import Output
from onnxsub.cli.verify import command as verify
from onnxsub.cli.verify_property import verify_property
from onnxsub.errors import InputError
from onnxsub.model import load_model
from onnxsub.properties import load_property
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions
from tests.properties.tools import same

MODELS = Path(__file__).parents[2] / "models"
DIGITS, SEVEN = str(MODELS / "digits.onnx"), str(MODELS / "digits_seven.npy")


def export(*args: object) -> str:
    found = CliRunner().invoke(
        export_property, [DIGITS, "--x0", SEVEN, *map(str, args)], obj=Session(), standalone_mode=False, catch_exceptions=False
    )
    assert found.return_value == Exit.DONE
    return found.stdout


def test_export_property_writes_both_versions(tmp_path: Path) -> None:
    model = load_model(DIGITS)
    text = export("--eps", 0.01)
    assert text.startswith("; label ")
    assert model.sha256 in text
    (tmp_path / "printed.vnnlib").write_text(text)
    printed = load_property(tmp_path / "printed.vnnlib", model)
    for name, version in (("a.vnnlib", "1.0"), ("b.vnnlib.gz", "2.0")):
        assert export("--eps", 0.01, "--vnnlib", version, "-o", tmp_path / name) == ""
        found = load_property(tmp_path / name, model)
        assert (found.version, same(found, printed)) == (version, True)
    keys = json.loads(export("--eps", 0.01, "--json"))
    assert (keys["schema"], keys["property"], keys["clauses"]) == ("onnxsub.export-property/1", text, 9)
    keys = json.loads(export("--eps", 0.01, "--json", "--quiet", "-o", tmp_path / "c.vnnlib"))
    assert (keys["output"], keys["property"]) == (str(tmp_path / "c.vnnlib"), None)
    assert (tmp_path / "c.vnnlib").read_text() == text
    assert gzip.decompress((tmp_path / "b.vnnlib.gz").read_bytes()).count(b"(vnnlib-version <2.0>)") == 1
    text = export("--eps", 0.01, "--mean", 0.5, "--std", 0.25)
    assert "; bounds are those of (x - mean) / std, mean 0.5, std 0.25" in text


def test_verify_prints_table_json_and_vnncomp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safe, unsafe = tmp_path / "safe.vnnlib", tmp_path / "unsafe.vnnlib"
    export("--eps", 1e-4, "-o", safe)
    export("--eps", 0.6, "-o", unsafe)
    options, model = VerifyOptions(Limits(timeout=60, threads=1)), load_model(DIGITS)
    capsys.readouterr()
    assert verify_property(model, str(safe), options, Output(quiet=True)) == Exit.DONE
    assert "proved (unsat)" in capsys.readouterr().out
    assert verify_property(model, str(safe), options, Output(quiet=True), vnncomp=True) == Exit.DONE
    assert capsys.readouterr().out == "unsat\n"
    point = tmp_path / "w.npy"
    assert verify_property(model, str(unsafe), options, Output(json=True, quiet=True), output=str(point)) == Exit.VIOLATED
    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["vnncomp"], document["witness"]["path"]) == ("violated", "sat", str(point))
    x = np.load(point)
    assert x.shape == (1, *model.input_shape)
    assert load_property(unsafe, model).cases[0].contains(x)
    text = tmp_path / "w.txt"
    assert verify_property(model, str(unsafe), options, Output(quiet=True), output=str(text), vnncomp=True) == Exit.VIOLATED
    assert capsys.readouterr().out == text.read_text()
    with pytest.raises(InputError, match=r"\.png"):
        verify_property(model, str(unsafe), options, Output(quiet=True), output=str(tmp_path / "w.png"))


@pytest.mark.parametrize("verifier", ["bab", "milp", "milp --tighten lp", "milp --tighten none"])
def test_the_command_line_chooses_the_verifier(tmp_path: Path, verifier: str) -> None:
    safe = tmp_path / "safe.vnnlib"
    export("--eps", 0.02, "-o", safe)
    args = [DIGITS, str(safe), "--threads", "1", "--json", "--verifier", *verifier.split()]
    found = CliRunner().invoke(verify, args, obj=Session(), standalone_mode=False, catch_exceptions=False)
    document = json.loads(found.stdout)
    assert found.return_value == Exit.DONE
    assert (document["status"], document["verifier"]) == ("proved", verifier.split()[0])
    assert document["settings"]["tighten"] == (verifier.split()[2] if " " in verifier else "cut")


@pytest.mark.parametrize("verifier", ["bab", "marabou"])
def test_tighten_is_of_the_programs(tmp_path: Path, verifier: str) -> None:
    safe = tmp_path / "safe.vnnlib"
    export("--eps", 0.02, "-o", safe)
    for args in (["--tighten", "lp", "--verifier", verifier], ["--verifier", verifier, "--tighten", "lp"]):
        with pytest.raises(click.UsageError, match=f"--tighten lp is of --verifier milp; leave it out for {verifier}"):
            CliRunner().invoke(verify, [DIGITS, str(safe), *args], obj=Session(), standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    "given", [("--mean", 0, "--std", 2), ("--std", 2), ("--domain", 0, 5), ("--label", 1), ("--index", 0), ("--array", "x")]
)
def test_options_of_an_anchor_are_not_passed_over_beside_a_property(
    given: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.vnnlib"
    export("--eps", 1e-6, "-o", path)
    assert run(["verify", DIGITS, str(path), *map(str, given)]) == Exit.USAGE
    assert f"{given[0]} belongs to --x0: a PROPERTY has boxes of its own" in capsys.readouterr().err
    monkeypatch.setenv("ONNXSUB_VERIFY_DOMAIN", "0,5")  # meant for anchors, and nobody typed it here
    assert run(["verify", DIGITS, str(path)]) == Exit.DONE
