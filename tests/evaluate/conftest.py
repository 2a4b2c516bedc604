"""What the tests of whole runs share: the command, a model with data, and a run that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluate_tools import Call, called, make_files, undisturbed


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    return called(capfd)


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Path:
    return undisturbed(tmp_path_factory.mktemp("runs"), files)
