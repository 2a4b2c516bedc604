"""The points that a run found: of `adversarial`, `robustness` or `evaluate`, out of its ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import LEDGER
from onnxsub.evaluate.ledger import Ledger
from onnxsub.ops.base import Array

__all__ = ["Points", "read_points"]


@dataclass(frozen=True, eq=False)
class Points:
    """Points beside anchors, whatever they are to a model: adversarial, a tie, or the best that was found.

    Attributes:
        x: `(N, n)` float32, flat, in un-normalised input units. y: `(N,)` int64, the class that is defended at the anchor.
    """

    x: Array = field(repr=False)
    y: Array = field(repr=False)

    def __len__(self) -> int:
        return len(self.y)


def read_points(folder: Path, size: int) -> Points:
    """Every point of the units that are done, each once, in the order of the units.

    Args:
        size: elements of an input.

    Raises:
        InputError: no run folder, damaged, of inputs of another size, or without any point.
    """
    rows: dict[tuple[bytes, int], Array] = {}
    known: dict[int, int] = {}
    with Ledger(folder / LEDGER, readonly=True) as ledger:
        for unit in ledger.units():
            result = unit.result or {}
            # a distance of `evaluate` is told its class by the attack on the sample
            label = result.get("label", known.get(unit.needs or -1))
            if unit.state != "done" or label is None:
                continue
            _, point = ledger.result(unit.id)
            # of a batch of samples there is a list of labels, and which of the points is whose
            batch = isinstance(label, list)
            if not batch:
                known[unit.id] = label
            if point is None:
                continue
            labels, places = (label, result["witness"]) if batch else ([label], [0])
            count = sum(place is not None for place in places)
            if point.size != size * count:
                raise InputError(
                    f"{str(folder)!r} holds points of {point.size // max(count, 1)} numbers, the model takes {size}; give runs of "
                    "this model"
                )
            for place, y in zip(places, labels, strict=True):
                if place is not None and np.isfinite(x := point.reshape(count, size)[place]).all():
                    rows.setdefault((x.tobytes(), int(y)), x)
    if not rows:
        raise InputError(
            f"{str(folder)!r} holds no points; give a run of adversarial, or of robustness with --metric pointwise, that found some"
        )
    classes = np.array([label for _, label in rows], dtype=np.int64)
    return Points(np.stack(list(rows.values())).astype(np.float32), classes)
