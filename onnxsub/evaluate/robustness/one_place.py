"""Settings of one place, as a grid of it: see `onnxsub.evaluate.many.settings.ManySettings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, cast

if TYPE_CHECKING:
    from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["OnePlace"]


class OnePlace:
    """What a grid has, of a place alone.

    Attributes:
        alone: whether units and rows need not name their place. batch: samples that are attacked together.
    """

    alone: ClassVar[bool] = True
    batch: ClassVar[int] = 0

    @property
    def _self(self) -> RobustnessSettings:
        return cast("RobustnessSettings", self)

    @property
    def places(self) -> Mapping[tuple[str, str, float], RobustnessSettings]:
        """The only one."""
        s = self._self
        return {(s.metric, s.prop, s.eps): s}

    @property
    def radii(self) -> tuple[float, ...]:
        """The only one."""
        return (self._self.eps,)

    def of(self, kind: str, prop: str, eps: float | None) -> RobustnessSettings:
        """The settings of a unit of work: these."""
        return self._self
