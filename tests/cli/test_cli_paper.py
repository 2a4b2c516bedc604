"""`evaluate --protocol paper` as a stranger uses it: a bundled model, its anchors, the table, the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxsub.evaluate import drive
from tests.cli.conftest import Run
from tests.robustness_tools import Here

METHODS = ["con", "lin", "act"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process: starting others is tested elsewhere."""
    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here())


def test_on_the_bundled_model(digits: Path, onnxsub: Run) -> None:
    argv = ("evaluate", "digits.onnx", "--data", "anchors.npz", "--protocol", "paper", "--run", "study")
    refused = onnxsub(*argv)
    assert (refused.code, "no published precision for inputs of shape [1, 8, 8]; state one with --tol" in refused.line) == (2, True)
    assert not Path("study").exists()
    ran = onnxsub(*argv, "--tol", 0.05, "--timeout", 0.4, "--index", 7, "--gammas", 0.99, "--known-points", "--json")
    assert (ran.code, ran.json["finished"], ran.json["failures"]) == (0, True, {})
    settings = ran.json["settings"]
    assert [settings[k] for k in ("methods", "rank", "timeout", "radius_timeout", "interval", "tol", "known_points")] == [
        METHODS, "width", 0.4, 0.8, 0.5, 0.05, True,
    ]  # fmt: skip
    table = ran.json["table"]
    assert [line["method"] for line in table] == METHODS
    # no cell is empty: undecided is not verified
    assert all(line["counted"] == 1 and line["difference"] is not None for line in table)
    (sample,) = ran.json["samples"]
    assert sample["index"] == 7
    shown = onnxsub("evaluate", "--run", "study")
    assert (shown.code, shown.err) == (0, "")
    head = next(line for line in shown.out.splitlines() if line.startswith("network"))
    assert all(word in head for word in ("difference", "attack", "prune", "solve with", "without", "speed-up"))
    reported = onnxsub("report", "study", "--quiet")
    assert (reported.code, reported.err) == (0, "")
    page = Path("study/report/table.md").read_text()
    assert "an undecided radius is not verified" in page
    assert all(f"| digits | {method} | 0.99 | 1 of 1 |" in page for method in METHODS)
    again = onnxsub(*argv, "--tol", 0.01)
    assert (again.code, " there and " in again.line) == (4, True)
