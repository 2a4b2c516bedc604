"""Where the tests find the real networks and images. `ONNXSUB_DATA` names the folder; tests that need it are skipped without it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning workers make parallel test runs crawl

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

DATA = Path(os.environ.get("ONNXSUB_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


# a shell starts background jobs with SIGINT ignored, which children inherit: tests of Ctrl-C would wait for ever
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with `nets/`, `data/`, `gt/` and `vnnlib/`."""
    if not (DATA / "nets").is_dir():
        pytest.skip(f"no networks in {DATA}; set ONNXSUB_DATA to the folder that holds nets/ and data/")
    return DATA


@pytest.fixture(scope="session")
def net_path(data_dir: Path) -> Callable[[str], Path]:
    """The path of a network by its name: `net_path("wk17a")`."""

    def path(name: str) -> Path:
        found = data_dir / "nets" / f"{name}.onnx"
        if not found.is_file():
            pytest.skip(f"no network {name} in {data_dir / 'nets'}")
        return found

    return path
