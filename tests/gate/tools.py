"""Small gates whose verdicts are told: two tiny networks, ten samples, and an engine that says what the test wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub import gate
from onnxsub.evaluate import drive
from onnxsub.evaluate.task import Outcome, Task, pack
from onnxsub.gate.result import GateResult
from tests.robustness_tools import Here

__all__ = ["Told", "tell", "tiny"]

_ENDS: dict[str, tuple[int, ...]] = {"x": (1, 4, 4), "y": (3,)}
_REASONS = {"undecided": "2 classes are open: the limit of 2,000 nodes ended it", "proved": "bounds exclude every other class"}
_WORDS = {"P": "proved", "V": "violated", "U": "undecided", "M": "misclassified", "F": "failed"}


@dataclass(frozen=True)
class Told:
    """Files of a gate.

    Attributes:
        old, new, data: files. engine: that speaks; `tasks` are what it was asked. folder: of everything.
    """

    old: Path
    new: Path
    data: Path
    engine: Here
    folder: Path

    def gate(self, **more: Any) -> GateResult:
        """The gate of the two."""
        given = {"data": self.data, "eps": 0.1, "cache": self.folder / "cache", **more}
        return gate(self.new, given.pop("baseline", self.old), **given)


def tiny(seed: int) -> onnx.ModelProto:
    """A linear classifier of 4 x 4 images."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (16, 3), "b": (3,)}
    weights = [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()]
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "w", "b"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in _ENDS.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def tell(
    folder: Path, patch: pytest.MonkeyPatch, old: Sequence[Any], new: Sequence[Any], brackets: bool = False, labels: bool = True
) -> Told:
    """Verdicts, one letter per sample (`PVUMF`), or with `brackets` pairs `(lower, upper)` of distances."""
    count = len(new)
    paths = folder / "released.onnx", folder / "candidate.onnx"
    for seed, path in enumerate(paths):
        onnx.save(tiny(seed), path)
    x = np.random.default_rng(0).random((count, 1, 4, 4)).astype(np.float32)
    data = folder / "data.npz"
    np.savez(data, x_test=x, **({"y_test": np.zeros(count, dtype=np.int64)} if labels else {}))
    said = {path.stem: [v if brackets else _WORDS[v] for v in verdicts] for path, verdicts in zip(paths, (old, new), strict=True)}
    rows = {row.tobytes(): number for number, row in enumerate(x)}

    def answer(task: Task) -> Outcome:
        assert isinstance(task.model, str)
        word = said[Path(task.model).stem][rows[task.x.tobytes()]]
        facts = {"label": 0, "predicted": 1 if word == "misclassified" else 0, "time_s": {"total": 0.25}}
        if word == "failed":
            return Outcome(task.id, "failed", "the solver broke off")
        if brackets:
            ends = {end: value if np.isfinite(value) else None for end, value in zip(("lower", "upper"), word, strict=True)}
            return Outcome(task.id, "done", None, {**facts, "status": "exact", **ends})
        more = {"status": word, "reason": _REASONS.get(word), "distance": 0.07 if word == "violated" else None}
        point = pack(task.x + np.float32(0.05)) if word == "violated" else None
        return Outcome(task.id, "done", None, {**facts, **more}, point)

    engine = Here(answer)
    patch.setattr(drive, "Processes", lambda jobs, run_id: engine)
    return Told(*paths, data, engine, folder)
