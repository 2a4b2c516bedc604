"""A working folder in which every module that is likely to be imported lies as a trap, and what the traps have caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["MODULES", "caught", "run_in", "set_traps"]

MODULES = (
    "torch", "numpy", "onnx", "onnxruntime", "click", "rich", "sitecustomize", "usercustomize", "pickle", "highspy", "scipy",
    "maraboupy", "multiprocessing",
)  # fmt: skip
_TRAP = "from pathlib import Path\nPath({mark!r}).write_text('imported')\n"


def set_traps(folder: Path) -> None:
    """Modules and an `onnxsub` package that leave a mark when they are imported."""
    for name in MODULES:
        (folder / f"{name}.py").write_text(_TRAP.format(mark=str(folder / f"caught-{name}")))
    (folder / "onnxsub").mkdir()
    (folder / "onnxsub" / "__init__.py").write_text(_TRAP.format(mark=str(folder / "caught-onnxsub")))


def caught(folder: Path) -> list[str]:
    """Names of the traps that were imported."""
    return sorted(p.name.removeprefix("caught-") for p in folder.glob("caught-*"))


def run_in(folder: Path, *arguments: str, program: tuple[str, ...] = ("-P", "-m", "onnxsub")) -> subprocess.CompletedProcess[str]:
    """The command line in that folder. PYTHONPATH has an empty entry, as careless scripts make it."""
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
