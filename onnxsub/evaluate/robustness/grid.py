"""The settings of a run of `onnxsub robustness`: of one place, or of a grid of places; the rest of the package knows grids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from onnxsub.errors import OptionError
from onnxsub.evaluate.many.settings import ManySettings, Place
from onnxsub.evaluate.plan import Plan, schema_of
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Samples

__all__ = ["Grid", "GridPlan", "Place", "grid_from", "grid_of", "kind_in", "plan_of"]

Grid: TypeAlias = RobustnessSettings | ManySettings
"""One metric of one property at one radius of one model is a grid of one place; its units and rows do not name the place."""

GridPlan: TypeAlias = Plan[RobustnessSettings] | Plan[ManySettings]


def grid_of(
    models: int, metrics: Sequence[str], props: Sequence[str], eps: Sequence[float], batch: int | None, shared: Mapping[str, Any]
) -> Grid:
    """The settings of a new run.

    Args:
        models: how many there are. metrics, props, eps: the three lists. batch: see `ManySettings`; None: as by default.
        shared: other fields of `RobustnessSettings`.

    Raises:
        OptionError: values that are impossible, or that nothing heeds.
    """
    shared = {name: value for name, value in shared.items() if value is not None and value is not False}
    if models == 1 and len(metrics) == len(props) == len(eps) == 1:
        if batch is not None:
            raise OptionError("--batch is about several models, metrics, properties or radii; leave it out for one")
        return RobustnessSettings(metric=metrics[0], prop=props[0], eps=eps[0], **shared)
    if batch is not None and "security" not in metrics:
        raise OptionError("--batch belongs to --metric security; leave it out")
    together = {} if batch is None else {"batch": batch}
    return ManySettings(tuple(metrics), tuple(props), tuple(eps), shared=shared, **together)


def plan_of(models: tuple[str, ...], samples: Samples, grid: Grid) -> GridPlan:
    """The plan of a new run. Raises ModelError, InputError: as `Plan.of`."""
    if isinstance(grid, ManySettings):
        return Plan.of(models, samples, grid)
    return Plan.of(models, samples, grid)


def kind_in(path: Path) -> type[RobustnessSettings] | type[ManySettings]:
    """Which of the two the `run.toml` of a robustness run holds. Raises InputError where it cannot be read."""
    return ManySettings if schema_of(path) == ManySettings.SCHEMA else RobustnessSettings


def grid_from(document: Mapping[str, Any]) -> Grid:
    """The settings that a `run.toml` states. Raises InputError."""
    kind = ManySettings if document["schema"] == ManySettings.SCHEMA else RobustnessSettings
    return kind.from_json(document["settings"])
