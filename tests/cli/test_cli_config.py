"""Options that nobody typed: `onnxsub.toml`, `--config`, environment variables; and what is nearest to a wrong word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.cli.config import SHARED
from tests.gate.tools import tell

Run = Callable[..., Any]

INFO = ("bounds", "digits.onnx", "--x0", "seven.npy", "--json")


@pytest.fixture
def config(digits: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`onnxsub.toml` of the working folder, and no variables."""
    for name in [n for n in os.environ if n.startswith("ONNXSUB_") and n != "ONNXSUB_DATA"]:
        monkeypatch.delenv(name)
    return digits / "onnxsub.toml"


def test_options_from_the_working_folder(config: Path, onnxsub: Run) -> None:
    config.write_text('eps = 0.125\nepochs = 3\n\n[bounds]\nmethod = "ibp"\n\n[verify]\ntarget = 3\n')
    ran = onnxsub(*INFO)
    assert ran.code == 0, ran.err
    assert (ran.json["eps"], ran.json["method"]) == (0.125, "ibp")
    assert ran.err == "note: options from onnxsub.toml: eps = 0.125, method = ibp\n"
    assert onnxsub(*INFO, "--quiet").err == ""


def test_what_comes_first(config: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def eps(*typed: str) -> float:
        ran = onnxsub(*INFO, *typed)
        assert ran.code == 0, ran.err
        return float(ran.json["eps"])

    config.write_text("eps = 0.01\n")
    assert eps() == 0.01
    config.write_text("eps = 0.01\n[bounds]\neps = 0.02\n")
    assert eps() == 0.02
    monkeypatch.setenv("ONNXSUB_BOUNDS_EPS", "0.03")
    assert eps() == 0.03
    assert eps("--eps", "0.04") == 0.04
    assert eps("--eps=0.05") == 0.05


def test_a_named_file_in_place_of_the_found_one(config: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("eps = 0.01\n")
    (config.parent / "other.toml").write_text("eps = 0.02\n")
    assert onnxsub(*INFO, "--config", "other.toml").json["eps"] == 0.02
    assert onnxsub(*INFO, "--config", "").code == 2  # no radius
    monkeypatch.setenv("ONNXSUB_CONFIG", "other.toml")
    assert onnxsub(*INFO).json["eps"] == 0.02
    ran = onnxsub(*INFO, "--config", "absent.toml")
    assert ran.code == 4
    assert "absent.toml" in ran.line
    config.write_text("eps = = 1\n")
    assert onnxsub(*INFO, "--config", "onnxsub.toml").code == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tiemout = 3", "'tiemout', which is no option. Did you mean 'timeout'?"),
        ("[distanse]\ntimeout = 3", "'distanse', which is no command. Did you mean 'distance'?"),
        ("[verify]\ntargte = 3", "table verify has 'targte', which is no option. Did you mean 'target'?"),
        ("[zoo.train]\nepohcs = 3", "table zoo, table train has 'epohcs', which is no option. Did you mean 'epochs'?"),
        ('eps = "wide"', "onnxsub.toml: eps: 'wide' is neither a number nor a .npy file"),
        ("timeout = true", "onnxsub.toml: timeout: True is no value of it"),
        ("threads = 2.5", "onnxsub.toml: threads: '2.5' is not a valid integer"),
        ('verbose = 3', "onnxsub.toml: verbose: 3 is no value of it"),
        ('method = "corwn"', "Did you mean 'crown'?"),
        ("model = 3", "'model', which is no option"),
        ('config = "x"', "'config', which is no option"),
        ('verifier = "command:rm -r /"', "starts a program or reaches another machine"),
        ('address = "10.0.0.1:6379"', "starts a program or reaches another machine"),
    ],
)
def test_wrong_keys_and_values_are_usage_errors(config: Path, onnxsub: Run, text: str, says: str) -> None:
    config.write_text(text + "\n")
    ran = onnxsub(*INFO, *(() if text.startswith("eps") else ("--eps", "0.1")))
    assert ran.code == 2, ran.err
    assert says in ran.line


def test_a_program_in_a_file_that_is_named(config: Path, onnxsub: Run) -> None:
    config.write_text('[distance]\nverifier = "command:./absent.sh"\n')
    ran = onnxsub("distance", "digits.onnx", "--x0", "seven.npy")
    assert ran.code == 2
    assert "type --verifier, or name the file: --config onnxsub.toml" in ran.line
    ran = onnxsub("distance", "digits.onnx", "--x0", "seven.npy", "--config", "onnxsub.toml")
    assert ran.code == 4
    assert "absent.sh" in ran.err


def test_lists_and_flags(config: Path, onnxsub: Run) -> None:
    np.save("zero.npy", np.zeros(1))
    config.write_text("domain = [0, 1]\nmean = [0]\nstd = [1.0]\nquiet = true\neps = 0.1\n")
    ran = onnxsub(*INFO, "--config", "onnxsub.toml")
    assert (ran.code, ran.err) == (0, "")
    ran = onnxsub("evaluate", "digits.onnx", "--run", "r", "--mean", "zero.npy", "--std", "1")
    assert "a new run needs data" in ran.err  # domain has two values here


def test_what_is_typed_takes_the_place_of_its_opposite(config: Path, onnxsub: Run) -> None:
    config.write_text("gamma = 0.5\n")
    how = ("--method", "con", "--eps", "0.1", "--keep", "16", "--json", "-o", "s.onnx")
    ran = onnxsub("prune", "digits.onnx", "--x0", "seven.npy", *how)
    assert ran.code == 0, ran.err
    assert ran.json["units_total"] - ran.json["units_pruned"] == 16


def test_a_run_goes_on_whatever_a_file_says(config: Path, onnxsub: Run) -> None:
    config.write_text('timeout = 5\n[evaluate]\ndata = "anchors.npz"\n')
    ran = onnxsub("evaluate", "--run", "absent")
    assert ran.code == 4
    assert "is no run folder" in ran.err
    ran = onnxsub("evaluate", "--run", "absent", "--timeout", "3")
    assert ran.code == 2
    assert "--timeout is about a new run" in ran.err


def test_variables(config: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXSUB_EXPORT_PROPERTY_EPS", "0.25")
    monkeypatch.setenv("ONNXSUB_THREADS", "1")
    monkeypatch.setenv("ONNXSUB_DATA", "is where the tests find their networks")
    ran = onnxsub("export-property", "digits.onnx", "--x0", "seven.npy")
    told = "note: options from the environment: ONNXSUB_EXPORT_PROPERTY_EPS=0.25, ONNXSUB_THREADS=1\n"
    assert (ran.code, ran.err) == (0, told)
    assert "radius 0.25" in ran.out
    monkeypatch.setenv("ONNXSUB_EXPORT_PROPERTY_TIEMOUT", "3")
    ran = onnxsub("export-property", "digits.onnx", "--x0", "seven.npy")
    assert ran.err.startswith(told + "note: ONNXSUB_EXPORT_PROPERTY_TIEMOUT names no option of export-property")
    assert "Did you mean 'timeout'?" in ran.err
    monkeypatch.setenv("ONNXSUB_THREADS", "many")
    ran = onnxsub("export-property", "digits.onnx", "--x0", "seven.npy")
    assert ran.code == 2
    assert "ONNXSUB_THREADS: 'many' is not a valid integer" in ran.err
    assert "data" not in SHARED


def test_a_file_that_was_found_does_not_silence_itself(config: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("eps = 0.1\nquiet = true\n")
    told = "note: options from onnxsub.toml: eps = 0.1, quiet = True\n"
    assert onnxsub(*INFO).err == told
    assert onnxsub(*INFO, "--quiet").err == ""
    assert onnxsub(*INFO, "--config", "onnxsub.toml").err == ""  # whoever names a file has asked for its quiet
    monkeypatch.setenv("ONNXSUB_CONFIG", "onnxsub.toml")
    assert onnxsub(*INFO).err == told
    config.write_text("quiet = true\njson = true\n")
    assert onnxsub(*INFO, "--eps", "0.1").err == ""


def test_variables_do_not_silence_themselves(config: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("eps = 0.1\nthreads = 1\nquiet = true\n")
    monkeypatch.setenv("ONNXSUB_BOUNDS_EPS", "0.25")
    for name in ("QUIET", "JSON", "JOBS", "BOUNDS_TIEMOUT"):
        monkeypatch.setenv(f"ONNXSUB_{name}", "1")
    named = onnxsub(*INFO, "--config", "onnxsub.toml")
    assert (named.json["eps"], named.err) == (0.25, "note: options from the environment: ONNXSUB_BOUNDS_EPS=0.25\n")
    found = onnxsub(*INFO)
    assert found.err == "note: options from onnxsub.toml: threads = 1\n" + named.err  # of the file what is used of it
    assert onnxsub(*INFO, "--quiet").err == ""
    assert onnxsub(*INFO, "--eps", "0.1", "--config", "").err == ""


@pytest.mark.parametrize("hidden", [False, True])
def test_a_gate_that_was_opened_from_outside_says_so(
    config: Path, onnxsub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    told = tell(tmp_path, monkeypatch, "PPPPPVVU", "PPPPVVVU")
    gate = ("gate", told.new, "--baseline", told.old, "--data", told.data, "--eps", "0.1", "--cache", tmp_path / "cache")
    assert onnxsub(*gate).code == 1
    if hidden:
        config.write_text("[gate]\nmax-drop = 1.0\nquiet = true\n")
    else:
        monkeypatch.setenv("ONNXSUB_GATE_MAX_DROP", "1")
    ran = onnxsub(*gate)
    assert ran.code == 0
    where = "onnxsub.toml: max-drop = 1.0, quiet = True" if hidden else "the environment: ONNXSUB_GATE_MAX_DROP=1"
    assert ran.err == f"note: options from {where}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("distnce",), "No such command 'distnce'. Did you mean 'distance'?"),
        (("zoo", "trian"), "No such command 'trian'. Did you mean 'train'?"),
        (("distance", "digits.onnx", "--x0", "seven.npy", "--slver", "scip"), "--solver"),
        (("distance", "digits.onnx", "--x0", "seven.npy", "--solver", "gurrobi"), "Did you mean 'gurobi'?"),
        (("distance", "digits.onnx", "--x0", "seven.npy", "--verifier", "mlip"), "Did you mean 'milp'?"),
        (("distance", "digits.onnx", "--x0", "seven.npy", "--tol"), "requires an argument; see onnxsub distance --help"),
        (("robustness", "digits.onnx", "--run", "r", "--metric", "securty"), "Did you mean 'security'?"),
        (("robustness", "digits.onnx", "--run", "r"), "a new run needs --data"),
        (("evaluate", "digits.onnx", "--run", "r"), "a new run needs data"),
        (("evaluate", "digits.onnx", "--run", "r", "--data", "anchors.npz", "--index", "5-"), "is no list of positions"),
        (("evaluate", "digits.onnx", "--run", "r", "--mean", "grey"), "'grey' is neither a list of numbers"),
        (("verify", "digits.onnx"), "give --x0 and --eps"),
        (("adversarial", "digits.onnx", "--data", "anchors.npz", "--eps", "0.1", "--retry-failed"), "add --run DIR"),
    ],
)
def test_usage_errors_name_what_was_meant(config: Path, onnxsub: Run, args: tuple[str, ...], says: str) -> None:
    ran = onnxsub(*args)
    assert ran.code == 2, ran.err
    assert says in ran.line


@pytest.mark.parametrize("args", [(), ("zoo",)])
def test_without_arguments_help_is_shown_and_it_is_a_usage_error(config: Path, onnxsub: Run, args: tuple[str, ...]) -> None:
    ran = onnxsub(*args)
    assert ran.code == 2
    assert "Commands:\n" in ran.err
    assert ran.out == ""


def complete(shell: str, words: str, extra: dict[str, str]) -> list[str]:
    environment = {**os.environ, "_ONNXSUB_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, **extra}
    ran = subprocess.run([sys.executable, "-m", "onnxsub"], capture_output=True, text=True, check=False, env=environment)
    assert ran.stderr == ""
    return ran.stdout.split()


def test_completion_in_every_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert complete("bash", "onnxsub dis", {"COMP_CWORD": "1"}) == ["plain,distance"]
    assert "plain,--solver" in complete("bash", "onnxsub distance --so", {"COMP_CWORD": "2"})
    assert complete("bash", "onnxsub distance --solver g", {"COMP_CWORD": "3"}) == ["plain,gurobi"]
    assert complete("zsh", "onnxsub zoo tr", {"COMP_CWORD": "2"})[:2] == ["plain", "train"]
    assert complete("fish", "onnxsub ver", {"COMP_CWORD": "ver"})[0].startswith("plain,verify")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_script_of_completion_is_one_that_bash_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    environment = {**os.environ, "_ONNXSUB_COMPLETE": "bash_source"}
    script = subprocess.run([sys.executable, "-m", "onnxsub"], capture_output=True, text=True, check=True, env=environment).stdout
    (tmp_path / "complete.bash").write_text(script)
    bash = ["bash", "-c", ". ./complete.bash && complete -p onnxsub"]
    ran = subprocess.run(bash, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "_onnxsub_completion" in ran.stdout
