"""Where a substitute comes from, in its own metadata: which anchor, which model, how, and where it holds.

Keys of `metadata_props`, each with the prefix `onnxsub.`: method, gamma, keep, rank, bounds, anchor.sha256, model.sha256, d_adv,
label, domain, mean, std, radius, version, layout. Numbers are decimal, lists are separated by blanks. Read without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from onnxsub.errors import ModelError
from onnxsub.model import Model

__all__ = ["PREFIX", "VALID_RADIUS", "Provenance", "numbers", "read_provenance", "warn_if_other_anchor"]

PREFIX = "onnxsub."
_VALID_RADIUS = "chain.valid_radius"
VALID_RADIUS = PREFIX + _VALID_RADIUS
"""The metadata key of a chain that is exact on a ball only."""


@dataclass(frozen=True)
class Provenance:
    """What a substitute says of itself.

    Attributes:
        method: `con`, `lin` or `act`.
        gamma: share of the units to be pruned, as asked for; where a number to keep was asked for, the share that came of it.
        keep: number of units that were kept.
        rank, bounds: how units were ranked.
        anchor_sha256: of the anchor's float32 bytes.
        model_sha256: of the original file.
        d_adv: radius of the best adversarial point; infinite where none was found.
        label: the class that the substitute was built to defend.
        target: the one class that it was built to defend it against; None: every other one.
        domain_sha256: of a domain per feature; None: one range for all.
        scale_sha256: of the scale in whose units `d_adv`, `radius` and `valid_radius` are; None: those of the input.
        domain: valid input range, un-normalised; of a domain per feature, the lowest and the highest end.
        mean, std: normalisation of the model's inputs; empty: none.
        radius: radius of the ball whose bounds ranked the units: the substitute is meant for this ball.
        version: of onnxsub.
        layout: `inplace`, `compact` or `chain`.
        valid_radius: the file equals the substitute on the ball of this radius only; None: on the whole domain.
    """

    method: str
    gamma: float
    keep: int
    rank: str
    bounds: str
    anchor_sha256: str
    model_sha256: str
    d_adv: float
    label: int
    domain: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    radius: float
    version: str
    layout: str
    valid_radius: float | None = None
    target: int | None = None
    domain_sha256: str | None = None
    scale_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same facts in plain JSON types; an infinite `d_adv` and what is absent are null."""
        return {
            "method": self.method,
            "gamma": self.gamma,
            "keep": self.keep,
            "rank": self.rank,
            "bounds": self.bounds,
            "anchor": {"sha256": self.anchor_sha256, "label": self.label, "target": self.target},
            "model": {"sha256": self.model_sha256},
            "d_adv": self.d_adv if math.isfinite(self.d_adv) else None,
            "domain": list(self.domain),
            "domain_sha256": self.domain_sha256,
            "scale_sha256": self.scale_sha256,
            "mean": list(self.mean) or None,
            "std": list(self.std) or None,
            "radius": self.radius,
            "valid_radius": self.valid_radius,
            "version": self.version,
            "layout": self.layout,
        }


def read_provenance(model: Model | ModelProto) -> Provenance | None:
    """What a model says of its origin; None for one that is no substitute.

    Raises:
        ModelError: the metadata of a substitute is incomplete or not readable.
    """
    where = model.where if isinstance(model, Model) else "model"
    metadata = model.metadata if isinstance(model, Model) else {p.key: p.value for p in model.metadata_props}
    if f"{PREFIX}method" not in metadata or f"{PREFIX}layout" not in metadata:
        return None
    read = _Reader(where, metadata)
    low, high = read.numbers("domain", 2)
    return Provenance(
        method=read.text("method"),
        gamma=read.number("gamma"),
        keep=read.integer("keep"),
        rank=read.text("rank"),
        bounds=read.text("bounds"),
        anchor_sha256=read.text("anchor.sha256"),
        model_sha256=read.text("model.sha256"),
        d_adv=read.number("d_adv"),
        label=read.integer("label"),
        domain=(low, high),
        mean=read.numbers("mean"),
        std=read.numbers("std"),
        radius=read.number("radius"),
        version=read.text("version"),
        layout=read.text("layout"),
        valid_radius=read.number(_VALID_RADIUS) if PREFIX + _VALID_RADIUS in metadata else None,
        target=read.integer("target") if f"{PREFIX}target" in metadata else None,
        domain_sha256=metadata.get(f"{PREFIX}domain.sha256"),
        scale_sha256=metadata.get(f"{PREFIX}scale.sha256"),
    )


def warn_if_other_anchor(model: Model | ModelProto, anchor_sha256: str) -> str | None:
    """One line of warning where a model is a substitute of another anchor; None where all is well."""
    found = read_provenance(model)
    if found is None or found.anchor_sha256 == anchor_sha256:
        return None
    where = model.where if isinstance(model, Model) else "the model"
    return (
        f"{where} is a local substitute built for another anchor (sha256 {found.anchor_sha256[:12]}, given {anchor_sha256[:12]}): "
        "away from its own anchor it says nothing about the original; prune the original at this anchor"
    )


class _Reader:
    """Values by their key, checked."""

    def __init__(self, where: str, metadata: Mapping[str, str]) -> None:
        self._where = where
        self._metadata = metadata

    def text(self, key: str) -> str:
        if PREFIX + key not in self._metadata:
            raise ModelError(f"{self._where}: a substitute without the metadata {PREFIX + key}; write it again with onnxsub prune")
        return self._metadata[PREFIX + key]

    def number(self, key: str) -> float:
        (value,) = self.numbers(key, 1)
        return value

    def integer(self, key: str) -> int:
        value = self.number(key)
        if not value.is_integer():
            raise self._unreadable(key)
        return int(value)

    def numbers(self, key: str, count: int | None = None) -> tuple[float, ...]:
        words = self.text(key).split()
        try:
            values = tuple(float(word) for word in words)
        except ValueError as error:
            raise self._unreadable(key) from error
        if any(math.isnan(v) for v in values) or (count is not None and len(values) != count):
            raise self._unreadable(key)
        return values

    def _unreadable(self, key: str) -> ModelError:
        return ModelError(
            f"{self._where}: metadata {PREFIX + key} is {self._metadata[PREFIX + key]!r}, which cannot be read; "
            "write the substitute again with onnxsub prune"
        )


def numbers(values: tuple[float, ...]) -> str:
    """Numbers as one metadata value: shortest decimals that give the same float64 back, separated by blanks."""
    return " ".join(repr(float(v)) for v in values)
