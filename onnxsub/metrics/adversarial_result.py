"""What `onnxsub adversarial` answers: the pairs of one or two models and the tables over them; and the files that keep it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxsub.metrics.adversarial import AdversarialOptions, Pair
from onnxsub.metrics.adversarial_pairs import Found, Pairs
from onnxsub.metrics.tables import VERDICTS, Confusion, Spread, Tried, confusion, count_by, spread, success_by
from onnxsub.ops.base import Array
from onnxsub.results import VERSION, jsonable

__all__ = ["SCHEMA", "AdversarialResult", "examples_npz", "side_by_side"]

SCHEMA = "onnxsub.adversarial/1"


@dataclass(frozen=True, eq=False)
class AdversarialResult:
    """The pairs and their tables.

    Attributes:
        pairs: of the model; other: of the model of `--transfer`, None without one.
        transfer: the examples of each tried on both.
        options, data: what was asked, of which anchors.
        output, run: where examples and results were written.
        time_s: `total`.
    """

    pairs: Pairs
    other: Pairs | None
    transfer: tuple[Tried, ...]
    options: AdversarialOptions
    data: Mapping[str, Any]
    time_s: Mapping[str, float]
    output: str | None = None
    run: str | None = None
    jobs: int = field(default=1)

    @property
    def models(self) -> tuple[Pairs, ...]:
        return (self.pairs,) if self.other is None else (self.pairs, self.other)

    @property
    def interrupted(self) -> bool:
        return any(p.interrupted for p in self.models)

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.adversarial/1`."""
        document: dict[str, Any] = jsonable(
            {
                "schema": SCHEMA,
                "version": VERSION,
                "model": {"path": self.pairs.path, "sha256": self.pairs.sha256},
                "data": dict(self.data),
                "settings": self.options.to_json(),
                **_tables(self.pairs),
                "transfer": None if self.other is None else [t.to_json() for t in self.transfer],
                "other": None
                if self.other is None
                else {"model": {"path": self.other.path, "sha256": self.other.sha256}, **_tables(self.other)},
                "interrupted": self.interrupted,
                "output": self.output,
                "run": self.run,
                "time_s": dict(self.time_s),
            }
        )
        return document


def verdicts(pairs: Pairs) -> dict[str, int]:
    """Number of pairs by verdict."""
    found = Counter(p.verdict for p in pairs.pairs)
    return {v: found[v] for v in VERDICTS}


def objective(pairs: Pairs, *, examples: bool = False) -> Spread:
    """Statistics of the objective `f_y - f_t` (its upper end), of all pairs or of the examples."""
    return spread(p.upper for p in pairs.pairs if not examples or p.verdict == "example")


_CLASSES = (("by_source", "label"), ("by_target", "target"))


def side_by_side(pairs: Pairs) -> dict[str, list[Pair]]:
    """The pairs with an example (`successful`), and all others (`unsuccessful`: proved, tied or undecided)."""
    found: dict[str, list[Pair]] = {"successful": [], "unsuccessful": []}
    for pair in pairs.pairs:
        found["successful" if pair.verdict == "example" else "unsuccessful"].append(pair)
    return found


def matrix(pairs: Pairs) -> Confusion:
    """The confusion matrices of a model's examples."""
    return confusion(pairs.pairs, pairs.classes)


def _tables(pairs: Pairs) -> dict[str, Any]:
    status = Counter(p.status for p in pairs.pairs)
    return {
        "pairs": {"planned": pairs.planned, "done": len(pairs.found), **verdicts(pairs)},
        "status": {s: status[s] for s in ("exact", "bracket", "timeout")},
        "misclassified": pairs.misclassified,
        "by_source": count_by(pairs.pairs, "label"),
        "by_target": count_by(pairs.pairs, "target"),
        "success": {name: {k: s.to_json() for k, s in success_by(pairs.pairs, key).items()} for name, key in _CLASSES},
        "confusion": matrix(pairs).to_json(),
        "objective": {"all": objective(pairs).to_json(), "examples": objective(pairs, examples=True).to_json()},
        "seconds": spread(p.seconds for p in pairs.pairs).to_json(),
        "statistics": {
            name: {"objective": spread(p.upper for p in part).to_json(), "seconds": spread(p.seconds for p in part).to_json()}
            for name, part in side_by_side(pairs).items()
        },
        "results": [p.to_json() for p in pairs.pairs],
    }


def examples_npz(models: tuple[Pairs, ...]) -> bytes:
    """An `.npz` of the examples: `x`, `sample`, `label`, `target`, `predicted`, `objective`.

    Those of a second model are `other_x` and so on; ties stand apart, as `tie_x` and so on.
    """
    arrays: dict[str, Array] = {}
    for prefix, pairs in zip(("", "other_"), models, strict=False):
        for kind, name in (("example", ""), ("tie", "tie_")):
            found = [f for f in pairs.found if f.pair.verdict == kind]
            if kind == "example" or found:
                arrays |= {f"{prefix}{name}{k}": v for k, v in _columns(found).items()}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _columns(found: list[Found]) -> dict[str, Array]:
    x = np.stack([f.x for f in found]) if found else np.zeros((0,), dtype=np.float32)
    keys = {"sample": "sample", "label": "label", "target": "target", "predicted": "predicted"}
    columns = {k: np.array([getattr(f.pair, v) for f in found], dtype=np.int64) for k, v in keys.items()}
    return {"x": x, **columns, "objective": np.array([f.pair.upper for f in found], dtype=np.float64)}
