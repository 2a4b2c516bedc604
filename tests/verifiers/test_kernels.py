"""Compiled loops are begun with only where the budget has the time that their start takes."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from onnxsub.budget import Budget, time_left
from onnxsub.verifiers.bab.relu import kernels

NUMBERS = torch.zeros(2, dtype=torch.float64)
NAME = "loops"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A module of one loop whose machine code, if there is any, lies in a folder of its own."""
    module = ModuleType(NAME)
    source = tmp_path / "loops.py"
    source.write_text("")
    module.__file__ = str(source)
    module.go = SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path)), __name__="go", __module__=NAME)  # type: ignore[attr-defined]
    monkeypatch.setattr(kernels, "_PAYS", 0)
    for name, empty in (("modules", {}), ("stored", {}), ("ready", set())):
        monkeypatch.setattr(kernels._Loops, name, empty)
    monkeypatch.setattr(kernels._Loops, "absent", False)
    monkeypatch.setattr("onnxsub.verifiers.bab.relu.kernels.importlib.import_module", {NAME: module}.__getitem__)
    return module


class Left(Budget):
    """A budget with so many seconds left, whatever the clock says."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    @property
    def remaining(self) -> float:
        return self._seconds


def asked(seconds: float, kind: object = None) -> ModuleType | None:
    found = []
    Left(seconds).attempt(lambda: found.append(kernels.compiled(NUMBERS, 1, NAME, kind)))
    return found[0]


def store(module: ModuleType, *, late: bool = True) -> None:
    index = Path(str(module.__file__)).with_name(f"loops.go-1.py{sys.version_info[0]}{sys.version_info[1]}.nbi")
    index.write_text("")
    os.utime(module.__file__ if late else index, (1, 1))  # type: ignore[arg-type]


def test_without_machine_code_there_must_be_time_for_the_compiler(module: ModuleType) -> None:
    for seconds in (-1.0, 0.0, 0.5, 2.0, 2.9):
        assert asked(seconds) is None
    assert asked(3.1) is module
    # what is compiled costs nothing more; another kind does
    assert asked(0.1) is module
    assert asked(2.0, kind=4) is None
    assert asked(math.inf, kind=4) is module


def test_stored_machine_code_takes_less(module: ModuleType) -> None:
    store(module)
    assert asked(0.7) is None
    assert NAME not in kernels._Loops.modules  # numba is not even imported
    assert asked(0.9) is module


def test_machine_code_of_an_older_source_is_none(module: ModuleType) -> None:
    store(module, late=False)
    assert asked(2.0) is None
    assert asked(3.1) is module


def test_no_place_for_machine_code(module: ModuleType) -> None:
    module.go.stats.cache_path = None
    assert asked(2.0) is None


def test_outside_of_a_budget_there_is_no_limit(module: ModuleType) -> None:
    assert time_left() == math.inf
    assert kernels.compiled(NUMBERS, 1, NAME) is module


def test_the_budget_at_work_is_the_inner_one() -> None:
    seen: list[float] = []

    def outer() -> None:
        Left(1.0).attempt(lambda: seen.append(time_left()))
        seen.append(time_left())

    Left(2.0).attempt(outer)
    assert (*seen, time_left()) == (1.0, 2.0, math.inf)
