"""A unit of work as it travels to a worker, and what comes back."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.ops.base import Array

if TYPE_CHECKING:
    from onnxsub.evaluate.plan import RunSettings

__all__ = ["KINDS", "Attacked", "Block", "Done", "Outcome", "Task", "pack", "unpack"]

KINDS = ("attack", "original", "substitute")
"""Of `onnxsub evaluate`.

`attack`: `d_adv` of a sample. `original`: `d_bnd` of it. `substitute`: `d_hat` by one method, gamma and verifier.
"""


@dataclass(frozen=True, eq=False)
class Attacked:
    """What the sample's attack found; all of its other units begin with it.

    Attributes:
        x_adv: float32, per-sample shape.
    """

    d_adv: float
    x_adv: Array = field(repr=False)
    adversarial_label: int
    margin: float


@dataclass(frozen=True, eq=False)
class Block:
    """The samples of a unit that is about several.

    Attributes:
        index: their positions. x: float32, `(samples, *shape)`. labels: None: the predicted ones.
    """

    index: tuple[int, ...]
    x: Array = field(repr=False)
    labels: tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Task:
    """One unit of work.

    Attributes:
        id: of the ledger.
        kind: see `KINDS`, and the table in `onnxsub.evaluate.work`.
        model: a path, or the file's bytes. sha256: of the model, under which a worker keeps it.
        x: the anchor, float32, per-sample shape. label: the class to defend, None: the predicted one.
        method, gamma, verifier: as far as the kind has them.
        threads: that it may use.
        attacked: for what builds on the sample's attack.
        block: of a unit that is about several samples, of which `x` is the first.
    """

    id: int
    kind: str
    model: str | bytes = field(repr=False)
    sha256: str
    x: Array = field(repr=False)
    label: int | None
    method: str | None
    gamma: float | None
    verifier: str | None
    settings: RunSettings
    threads: int
    attacked: Attacked | None
    block: Block | None = None

    def bearing(self, settings: RunSettings | None) -> Task:
        """The same with other settings, or to travel without. Twice for every unit of a run: `replace` takes ten times as long."""
        other = object.__new__(Task)
        other.__dict__.update(self.__dict__, settings=settings)
        return other


@dataclass(frozen=True, eq=False)
class Done:
    """What the work of a unit gave.

    Attributes:
        result: plain values; `time_s` holds its stages in seconds.
        point: the adversarial point or witness. anchor: where the report shows it.
    """

    result: Mapping[str, Any]
    point: Array | None = field(default=None, repr=False)
    anchor: Array | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a unit ended.

    Attributes:
        id: of the unit.
        state: `done`, `failed` (it would fail again) or `died` (the worker was lost: try again).
        reason: one line, unless done.
        result: plain JSON values.
        point, anchor: the adversarial point or witness, and for an attack the anchor, packed.
        seconds: wall time in the worker.
    """

    id: int
    state: str
    reason: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    point: bytes | None = field(default=None, repr=False)
    anchor: bytes | None = field(default=None, repr=False)
    seconds: float = 0.0


def pack(x: Array) -> bytes:
    """A point as compressed little-endian float32 values."""
    return zlib.compress(np.ascontiguousarray(x, dtype="<f4").tobytes(), 1)


def unpack(data: bytes) -> Array:
    """What `pack` was given, flat."""
    return np.frombuffer(zlib.decompress(data), dtype="<f4")
