"""Steps of a study are done once, whatever happens."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from onnxsub.errors import InputError
from onnxsub.scratch import part_name
from onnxsub.study.steps import Steps


def test_a_step_is_done_once(tmp_path: Path) -> None:
    calls = []

    def work() -> dict[str, object]:
        calls.append(1)
        return {"a": (1, 2)}

    for _ in range(2):
        assert Steps(tmp_path / "s", {"n": (1,)}).once("part/one", work) == {"a": [1, 2]}
    assert len(calls) == 1
    (tmp_path / "s" / "steps" / "part" / "one.json").write_text("{")
    with pytest.raises(InputError, match=r"one.json' is damaged; delete it"):
        Steps(tmp_path / "s", {"n": [1]}).once("part/one", work)


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "s", {})

    def broken() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        steps.once("one", broken)
    assert steps.once("one", lambda: 3) == 3


def test_folders_of_something_else(tmp_path: Path) -> None:
    Steps(tmp_path / "s", {"seed": 0})
    with pytest.raises(InputError, match="other settings: seed is 0 there and 1 here"):
        Steps(tmp_path / "s", {"seed": 1})
    with pytest.raises(InputError, match="is there and no study"):
        Steps(tmp_path, {})


def test_a_kill_within_the_first_write(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    name = part_name().split("-")
    name[2] = str(gone.pid)  # machine, process, when it began
    (tmp_path / "-".join(name)).write_bytes(b"{")
    Steps(tmp_path, {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
