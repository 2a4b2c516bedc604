"""The cells of one metric and property: every network at every radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.metrics.intervals import Interval, clopper_pearson
from onnxsub.report.picture import slug

__all__ = ["Group"]


@dataclass(frozen=True)
class Group:
    """All networks.

    Attributes:
        metric, prop: what is measured. cells: of it. more: what it differs in from others of the same names.
        predicted: the classes that are defended are those that the networks predict, so which are right is not known.
        files: name of a network -> SHA-256 of its file; runs that are joined may share networks.
    """

    metric: str
    prop: str
    cells: tuple[Cell, ...]
    more: str = ""
    predicted: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """In words."""
        name = f"{self.metric} of {self.prop}" if self.metric != "pointwise" else "adversarial frequency"
        return f"{name} ({self.more})" if self.more else name

    @property
    def file(self) -> str:
        """As part of the name of a file."""
        return slug("-".join(filter(None, (self.metric, self.prop, self.more))))

    @property
    def what(self) -> str:
        """The figure, as an axis is called."""
        return self.name if self.metric == "pointwise" else f"{self.name}, share"

    @cached_property
    def models(self) -> tuple[str, ...]:
        """In the order of the runs."""
        return tuple(dict.fromkeys(c.model for c in self.cells))

    @cached_property
    def radii(self) -> tuple[float, ...]:
        """Ascending, of all networks."""
        return tuple(sorted({c.settings.eps for c in self.cells}))

    @cached_property
    def _by_place(self) -> dict[tuple[str, float], Cell]:
        return {(c.model, c.settings.eps): c for c in self.cells}

    def at(self, model: str, eps: float) -> Cell | None:
        """One cell; None where that network was not measured at the radius."""
        return self._by_place.get((model, eps))

    def value(self, model: str, eps: float) -> float | None:
        """The lower end of the estimate."""
        cell = self.at(model, eps)
        return None if cell is None else cell.measure.lower

    def distinct(self, models: Sequence[str], eps: float) -> tuple[str, ...]:
        """Of the networks those with a value at the radius, each file once: twice the same one is no further network."""
        found: dict[str, str] = {}
        for m in models:
            if self.value(m, eps) is not None:
                found.setdefault(self.files.get(m, m), m)
        return tuple(found.values())

    @cached_property
    def telling(self) -> float:
        """The radius at which the networks differ most, the smallest of these."""

        def spread(eps: float) -> float:
            values = [v for m in self.models for v in [self.value(m, eps)] if v is not None]
            return max(values) - min(values) if values else 0.0

        return max(self.radii, key=lambda eps: (spread(eps), -eps))

    def accuracy(self, model: str) -> tuple[float, Interval] | None:
        """Share of the samples that the network classifies rightly; None where the property or the data do not say the classes.

        Samples of which nothing is known yet, and those that broke off, are left out.
        """
        cell = next((c for c in self.cells if c.model == model), None)
        if cell is None or self.predicted or not cell.settings.needs_label:
            return None
        known = [row for row in cell.seen if row.label is not None and row.predicted is not None]
        if not known:
            return None
        right = sum(row.label == row.predicted for row in known)
        return right / len(known), clopper_pearson(right, len(known), cell.settings.confidence)
