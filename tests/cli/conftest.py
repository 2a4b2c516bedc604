"""Running the command line inside the test's process, and the bundled model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.cli.main import run

MODELS = Path(__file__).parents[2] / "models"


@dataclass(frozen=True)
class Ran:
    """What one command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        document = json.loads(self.out)  # fails when anything else stands on standard output
        assert isinstance(document, dict)
        return document

    @property
    def line(self) -> str:
        """The one line on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert self.out == ""
        return lines[0]


Run = Callable[..., Ran]


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, made the current one, with digits.onnx, seven.npy and anchors.npz."""
    for source, name in (("digits.onnx", "digits.onnx"), ("digits_seven.npy", "seven.npy"), ("digits_anchors.npz", "anchors.npz")):
        shutil.copy(MODELS / source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def onnxsub(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `onnxsub ARGS` on one thread."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args: Any) -> Ran:
        argv = [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in args]
        capfd.readouterr()
        code = run(argv)
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def seven(digits: Path) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(np.load(digits / "seven.npy"))
