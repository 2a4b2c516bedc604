"""What decides the importance scores, and their result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.errors import OptionError
from onnxsub.ops.base import Array
from onnxsub.results import VERSION
from onnxsub.shown import Shown, number

__all__ = ["THRESHOLD", "ImportanceOptions", "ImportanceResult", "LayerScores", "Round"]

THRESHOLD = 0.001
"""A unit whose score is below it may go (ElAraby, Wolf and Carvalho 2020)."""


@dataclass(frozen=True)
class ImportanceOptions:
    """How the scores are computed.

    Attributes:
        weight: lambda, of the loss against the share of units that stay; 0 is degenerate: every score is 0.
        binaries: `relaxed`: the binaries may be fractions, a linear program; `exact`: they are 0 or 1.
        solver: `highs`, `gurobi` or `scip`.
        radius: of the interval round every image that l and u are taken on, in the units that the model is fed.
        gap: the program is solved once bound and value are within this share of the value (and at least of 1).
        rounds: of tangents, at most.
        limit: binaries (exact) or non-zero coefficients per 100 (relaxed) that are still tried.
        threads, seed: of the solver.
    """

    weight: float = 5.0
    binaries: str = "exact"
    solver: str = "highs"
    radius: float = 1e-3
    gap: float = 1e-3
    rounds: int = 50
    limit: int = 20_000
    threads: int | None = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise OptionError(f"--weight {self.weight:g} is not possible: without the loss every score is 0; give more than 0")
        if self.binaries not in ("relaxed", "exact"):
            raise OptionError(f"--binaries {self.binaries!r} is unknown; choose relaxed or exact")
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise OptionError(f"--radius {self.radius:g} is not possible; give 0 for points, or a small positive number")
        if not 0 < self.gap < 1:
            raise OptionError(f"--gap {self.gap:g} is not possible; give a share between 0 and 1")
        for name, value in (("rounds", self.rounds), ("most", self.limit)):
            if value < 1:
                raise OptionError(f"--{name} {value} is not possible; give 1 or more")


@dataclass(frozen=True, eq=False)
class LayerScores:
    """The scores of one layer.

    Attributes:
        name: the tensor that its Relu writes. kind: `channel` or `unit`.
        scores: in [0, 1], one per unit; per channel where the tensor has spatial axes.
    """

    name: str
    kind: str
    scores: Array

    def below(self, threshold: float) -> Array:
        """Positions of the scores below `threshold`."""
        return np.flatnonzero(self.scores < threshold)

    def to_json(self) -> dict[str, Any]:
        """The keys of one layer in the contract."""
        return {
            "name": self.name, "kind": self.kind, "units": len(self.scores), "below": len(self.below(THRESHOLD)),
            "scores": [float(s) for s in self.scores],
        }  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One solve between two rounds of tangents: what the program said, and what its scores cost with the true loss."""

    bound: float
    value: float
    tangents: int
    nodes: int
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class ImportanceResult(Shown):
    """Importance scores of all layers.

    Attributes:
        head: model and data, as JSON keys.
        layers: in the order of the network.
        status: `optimal`: bound and value are within the gap; `timeout`: the limit came first; `rounds`: so many rounds were not
            enough.
        value: of the best scores, with the true loss. bound: no scores have a smaller one, as the solver says.
        size: columns, rows, binaries and non-zero coefficients of the program.
    """

    options: ImportanceOptions
    head: Mapping[str, Any]
    layers: tuple[LayerScores, ...]
    status: str
    value: float
    bound: float
    rounds: tuple[Round, ...]
    size: Mapping[str, int]
    time_s: Mapping[str, float]

    @property
    def line(self) -> str:
        below = sum(len(x.below(THRESHOLD)) for x in self.layers)
        units = sum(len(x.scores) for x in self.layers)
        return f"{below:,} of {units:,} units score below {THRESHOLD:g}; {self.status}, objective {number(self.value)}"

    def to_json(self) -> dict[str, Any]:
        """The contract `onnxsub.importance/1`."""
        o = self.options
        return {
            "schema": "onnxsub.importance/1",
            "version": VERSION,
            **self.head,
            "settings": {
                "weight": o.weight, "binaries": o.binaries, "solver": o.solver, "radius": o.radius, "gap": o.gap, "seed": o.seed,
            },
            "status": self.status,
            "objective": {"value": self.value, "bound": self.bound},
            "threshold": THRESHOLD,
            "layers": [layer.to_json() for layer in self.layers],
            "program": dict(self.size),
            "rounds": [vars(r) for r in self.rounds],
            "time_s": dict(self.time_s),
        }  # fmt: skip
