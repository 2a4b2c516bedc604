"""What a run of `onnxsub adversarial` writes beside the result tables (one row per pair): its examples and its tables."""

from __future__ import annotations

from pathlib import Path

from onnxsub.evaluate.received import keep_file
from onnxsub.files import write_atomic
from onnxsub.metrics.adversarial_result import AdversarialResult, examples_npz
from onnxsub.results import dumps

__all__ = ["write_pair_files"]

EXAMPLES, SUMMARY = "examples.npz", "adversarial.json"


def write_pair_files(result: AdversarialResult, folder: Path) -> None:
    """Writes `examples.npz` and `adversarial.json`. Raises OutputError."""
    write_atomic(folder / EXAMPLES, examples_npz(result.models))
    keep_file(folder / SUMMARY, (dumps(result) + "\n").encode())
