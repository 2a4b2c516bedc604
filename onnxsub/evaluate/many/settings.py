"""What decides the results of a run of several models, metrics, properties or radii: a grid of the settings of single ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.robustness.kinds import BATCH, KIND_OF
from onnxsub.evaluate.robustness.settings import RobustnessSettings, heeding, option_name
from onnxsub.evaluate.settings import plain_settings
from onnxsub.metrics.local.make import PARAMETERS
from onnxsub.reading import Reading
from onnxsub.region import InputSpace

__all__ = ["GRID", "METRICS", "ManySettings", "Place"]

METRICS = ("satisfaction", "security", "accuracy", "pointwise")
"""Metrics that a grid may have: those that are defined at one radius without choosing the samples."""

GRID = ("metric", "prop", "eps")
"""Fields of `RobustnessSettings` that a place in the grid has of its own."""

_SINGLE = ("error", "sequential", "quantitative", "value_range", "approximate")
_TOGETHER = 100

Place = tuple[str, str, float]
"""`(metric, property, radius)`."""


@dataclass(frozen=True)
class ManySettings:
    """All metrics x all properties x all radii, of every model; distances (`pointwise`) are of `cr` alone.

    Attributes:
        metrics, props, eps: the three lists; the radii ascend.
        batch: samples that one unit of `security` attacks together; 0: each by the attack of `onnxsub attack`.
        shared: fields of `RobustnessSettings` that are said for all of the grid; each goes to the places that heed it.
    """

    SCHEMA: ClassVar[str] = "onnxsub.run-robustness-many/1"
    COMMAND: ClassVar[str] = "robustness"
    alone: ClassVar[bool] = False
    sequential: ClassVar[bool] = False

    metrics: tuple[str, ...]
    props: tuple[str, ...]
    eps: tuple[float, ...]
    batch: int = _TOGETHER
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, values in (("--metric", self.metrics), ("--property", self.props), ("--eps", self.eps)):
            if not values:
                raise OptionError(f"{option} is empty; give at least one")
            if len(set(values)) < len(values):
                raise OptionError(f"{option} {','.join(map(str, values))} names something twice; give each once")
        for metric in self.metrics:
            if metric not in METRICS:
                raise OptionError(
                    f"--metric {metric} is of one model, property and radius; choose of {', '.join(METRICS)} for several"
                )
        for name in _SINGLE:
            if self.shared.get(name) not in (None, False):
                raise OptionError(f"{option_name(name)} belongs to --metric global of one model, property and radius; leave it out")
        if self.batch < 0:
            raise OptionError(f"--batch {self.batch} is negative; give 0 or more")
        object.__setattr__(self, "eps", tuple(sorted(map(float, self.eps))))
        object.__setattr__(self, "shared", {k: v for k, v in self.shared.items() if v is not None})
        if "attack" in self.shared:  # which is of one sample
            object.__setattr__(self, "batch", 0)
        self._check_heeded()
        _ = self.places

    def _check_heeded(self) -> None:
        """What no place of the grid heeds is a mistake of the user."""
        for name in self.shared:
            metrics, props = heeding(name), PARAMETERS.get(name)
            if metrics is not None and not set(metrics) & set(self.metrics):
                raise OptionError(f"{option_name(name)} belongs to --metric {' or '.join(metrics)}; leave it out")
            if props is not None and props not in self.props:
                raise OptionError(f"{option_name(name)} belongs to --property {props}; leave it out")

    @cached_property
    def places(self) -> Mapping[Place, RobustnessSettings]:
        """The grid: each place with the settings of a run of its own. Raises OptionError for values that are impossible there."""
        found = {}
        for metric in self.metrics:
            for prop in self.props:
                if metric == "pointwise" and prop != "cr":
                    continue
                for eps in self.eps:
                    found[metric, prop, eps] = RobustnessSettings(metric=metric, prop=prop, eps=eps, **self._own(metric, prop))
        if "pointwise" in self.metrics and "cr" not in self.props:
            raise OptionError("--metric pointwise is about distances to another class; add cr to --property")
        return found  # a plain one: settings travel to workers

    def _own(self, metric: str, prop: str) -> dict[str, Any]:
        return {
            name: value for name, value in self.shared.items()
            if metric in (heeding(name) or METRICS) and PARAMETERS.get(name, prop) == prop
        }  # fmt: skip

    def of(self, kind: str, prop: str, eps: float | None) -> RobustnessSettings:
        """The settings of a unit of work; of units that serve all radii those of the largest."""
        metric = "security" if kind == BATCH else next(m for m in METRICS if KIND_OF[m] == kind)
        return self.places[metric, prop, self.eps[-1] if eps is None else eps]

    @property
    def radii(self) -> tuple[float, ...]:
        """In ascending order."""
        return self.eps

    @property
    def timeout(self) -> float | None:
        """Seconds per sample; None for none."""
        return self.shared.get("timeout")

    @property
    def any(self) -> RobustnessSettings:
        """A place: what all of them share can be read off it."""
        return next(iter(self.places.values()))

    @property
    def seed(self) -> int:
        return self.any.seed

    @property
    def threads(self) -> int:
        return self.any.threads

    @property
    def domain(self) -> tuple[float, float]:
        return self.any.domain

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        return self.any.space

    @property
    def reading(self) -> Reading:
        """How the models are read."""
        return self.any.reading

    @cached_property
    def needs_label(self) -> bool:
        """Whether a place speaks of the class of a sample."""
        return any(s.needs_label for s in self.places.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values: the lists, and what is shared under the names of the fields."""
        return {"metrics": self.metrics, "props": self.props, "eps": self.eps, "batch": self.batch, **self.shared}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ManySettings:
        """What `to_json` gave; lists become tuples and what is missing is None. Raises InputError."""
        own = {f.name for f in fields(ManySettings)} - {"shared"}
        shared = plain_settings(RobustnessSettings, {k: v for k, v in values.items() if k not in own})
        grid = plain_settings(ManySettings, {k: v for k, v in values.items() if k in own})
        lacking = [name for name in ("metrics", "props", "eps") if name not in grid]
        if lacking:
            raise InputError(f"run.toml is damaged: it lacks {lacking[0]}; restore it or choose another --run")
        return ManySettings(**grid, shared=shared)
