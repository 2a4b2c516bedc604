"""What `python -m benchmarks.exact` says of other tools."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from onnxsub.errors import OnnxsubError
from onnxsub.model import save_model
from onnxsub.verifiers.external.reader import Reader
from tests.verifiers.external_tools import program, small_query

posix = pytest.mark.skipif(sys.platform == "win32", reason="programs are started by their first line")


@pytest.fixture
def exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The benchmark with a data folder of its own: one small network and three images."""
    query = small_query(0)
    (tmp_path / "data" / "nets").mkdir(parents=True)
    save_model(query.model.source, tmp_path / "data" / "nets" / "toy.onnx")
    monkeypatch.setenv("ONNXSUB_DATA", str(tmp_path / "data"))
    before = {n: sys.modules.pop(n) for n in list(sys.modules) if n.partition(".")[0] == "benchmarks"}
    module = importlib.import_module("benchmarks.exact.__main__")
    x, y = np.stack([query.x0] * 3), np.array([query.label] * 3)
    monkeypatch.setattr(module, "images_for", lambda name: (x, y))
    yield module
    for name in [n for n in sys.modules if n.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]
    sys.modules.update(before)


def said(exact: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["exact", "--network", "toy", "--indices", "0,1", "--timeout", "30", *arguments])
    exact.main()
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_engines_are_split_at_commas_outside_of_quotes(exact: ModuleType) -> None:
    assert exact.split_engines("bab, milp,bab") == ["bab", "milp"]
    assert exact.split_engines('bab,command:"tool a,b"') == ["bab", "command:tool a,b"]
    assert exact.split_engines("""nnenum:"'a tool' x #1",bab""") == ["nnenum:'a tool' x #1", "bab"]
    assert exact.split_engines("command:tool a b,milp") == ["command:tool a b", "milp"]
    with pytest.raises(ValueError, match="quotation"):
        exact.split_engines('bab,command:"tool')
    for wrong in ("bab,gurobi", "command:", "bab milp"):
        with pytest.raises(OnnxsubError):
            exact.split_engines(wrong)


@pytest.mark.parametrize(
    ("engines", "names"),
    [
        (["bab", "nnenum:/a/run.sh", "command:/b/abc.sh x"], ["bab", "nnenum", "abc.sh"]),
        (["command:/a/x/run.sh", "command:/b/x/run.sh"], ["a/x/run.sh", "b/x/run.sh"]),
        (["nnenum:/a/run.sh", "nnenum:/a/run.sh --fast"], ["nnenum:/a/run.sh", "run.sh --fast"]),
        (["nnenum:python /a/one.py", "command:python /a/two.py"], ["nnenum", "python two.py"]),
    ],
)
def test_short_names_tell_engines_apart(exact: ModuleType, engines: list[str], names: list[str]) -> None:
    assert list(exact.short_names(engines).values()) == names


def test_a_tool_that_is_not_there_is_said_to_have_no_part(
    exact: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = said(exact, capsys, monkeypatch, "--engines", "bab,command:/no/such", "--tol", "1e-12")
    assert lines[-1].startswith("-- toy such: 0 of 2 exact")
    assert lines[-1].endswith("2 without an answer, whose ratios are those of our bounds and the attack, 6 runs")
    assert sum("cannot be started (No such file or directory)" in line for line in lines) == 2
    assert not any("such" in line and "nodes" in line for line in lines)
    lines = said(exact, capsys, monkeypatch, "--engines", "command:/no/such", "--eps", "0.001")
    assert any("cannot be started" in line for line in lines)
    assert "{'proved': 0, 'violated': 0, 'unknown': 2}" in lines[-1]


@posix
def test_a_network_that_an_engine_refuses_is_in_no_median(
    exact: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = program(tmp_path / "tool", "import sys\nopen(sys.argv[5], 'w').write('unsat')")
    monkeypatch.setattr("onnxsub.verifiers.external.reader.READERS", {"nnenum": Reader("nnenum", frozenset(), {})})
    lines = said(exact, capsys, monkeypatch, "--engines", f"nnenum:{tool},command:{tool}", "--eps", "0.001")
    assert sum(line.split()[1:3] == ["nnenum", "refused:"] and "it does not read" in line for line in lines) == 2
    assert lines[-2] == "-- toy nnenum: 2 of 2 refused"
    assert "'proved': 2" in lines[-1]
    line, refused = exact.Line("exact", 2.0, 5, None, 1.0, 1.5), exact.Line("refused", reason="why")
    assert refused.text("nodes", None) == "refused: why"
    assert exact.summary("nodes", [line, refused, refused]) == (
        "1 of 1 exact, median 2.00 s, worst 2.00 s, median ratio 1.5000, worst 1.5000, 2 nodes per second, 2 of 3 refused"
    )
