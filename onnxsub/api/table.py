"""The answer about a batch of anchors: one row each."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.report.picture import BLACK, COLOURS, check_matplotlib
from onnxsub.results import VERSION
from onnxsub.shown import Shown, html_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Table"]


@dataclass(frozen=True, eq=False, repr=False)
class Table(Shown):
    """One row per anchor, in the order of the batch: `len`, iteration, `table[3]`, `table[:5]`, `table["upper"]`.

    Attributes:
        call: whose answers they are: `distance`, `verify`, `attack` or `prune`.
        rows: name of a column -> value; None: not known or not applicable.
        results: the whole result of each row, None where it failed; empty for a table out of a run folder.
        run: that folder; None without one.
        interrupted: Ctrl-C ended it; the rows are those until then.
    """

    call: str
    rows: tuple[Mapping[str, Any], ...]
    results: tuple[Any, ...] = field(default=())
    run: str | None = None
    interrupted: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.rows[0]) if self.rows else ()

    @property
    def line(self) -> str:
        counts: dict[str, int] = {}
        for row in self.rows:
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        said = ", ".join(f"{n:,} {status}" for status, n in counts.items())
        return f"{self.call}, {len(self.rows):,} rows: {said}" + (", interrupted" if self.interrupted else "")

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)

    @overload
    def __getitem__(self, key: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Table: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            if key not in self.columns:
                raise InputError(f"the table has no column {key!r}; it has {', '.join(self.columns)}")
            return [row[key] for row in self.rows]
        if isinstance(key, slice):
            return Table(self.call, self.rows[key], self.results[key], self.run, self.interrupted)
        return self.rows[key]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of the rows.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise MissingDependencyError("a data frame needs pandas; run pip install pandas") from error
        return pandas.DataFrame([dict(row) for row in self.rows], columns=list(self.columns))

    def plot(self) -> Figure:
        """A figure of the distances, nearest anchors first: each bracket, and beside it what a substitute proves of the model.

        A notebook shows it; `figure.savefig("distances.png")` writes it.

        Raises:
            InputError: the rows hold no distances. MissingDependencyError: matplotlib is not installed.
        """
        if not {"lower", "upper"} <= set(self.columns):
            raise InputError(f"the rows of {self.call} hold no brackets; plot is for a table of distance")
        check_matplotlib()
        from matplotlib.figure import Figure

        rows = sorted((r for r in self.rows if r["upper"] is not None or r["lower"] is not None), key=_nearness)
        if not rows:
            raise InputError("no row holds a distance; there is nothing to plot")
        with_substitute = "original_lower" in self.columns
        figure = Figure(figsize=(7.0, 4.0), layout="constrained")
        axes = figure.subplots()
        at = range(len(rows))
        if with_substitute:
            _brackets(axes, at, rows, ("original_lower", "original_upper"), BLACK, "model: certified to confirmed", -0.15)
        name = "substitute" if with_substitute else "model"
        shift = 0.15 if with_substitute else 0.0
        _brackets(axes, at, rows, ("lower", "upper"), COLOURS["lin"], f"{name}: lower to upper end", shift)
        axes.set(xlabel="anchor (position in the batch)", ylabel="distance (un-normalised input units)")
        if len(rows) <= 40:
            axes.set_xticks(list(at), [str(r["index"]) for r in rows], rotation=90 if len(rows) > 20 else 0)
        else:
            axes.set_xlabel("anchors, nearest first")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        return figure

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.table/1`."""
        return {
            "schema": "onnxsub.table/1",
            "version": VERSION,
            "call": self.call,
            "run": self.run,
            "interrupted": self.interrupted,
            "rows": [dict(row) for row in self.rows],
        }

    def _repr_html_(self) -> str:
        return super()._repr_html_() + html_table(self.rows)


def _nearness(row: Mapping[str, Any]) -> float:
    return float(row["lower"] if row["upper"] is None else row["upper"])


def _brackets(
    axes: Any, at: Sequence[int], rows: Sequence[Mapping[str, Any]], ends: tuple[str, str], colour: str, name: str, shift: float
) -> None:
    """Bars from one end to the other; an open upper end is an arrow."""
    low = [row[ends[0]] or 0.0 for row in rows]
    high = [row[ends[1]] for row in rows]
    closed = [i for i in at if high[i] is not None]
    open_ = [i for i in at if high[i] is None]
    axes.vlines([i + shift for i in closed], [low[i] for i in closed], [high[i] for i in closed], color=colour, linewidth=2)
    axes.plot([i + shift for i in closed], [high[i] for i in closed], "o", markersize=4, color=colour, label=name)
    axes.plot([i + shift for i in closed], [low[i] for i in closed], "_", markersize=7, color=colour)
    if open_:
        name = f"{name}, not bounded above"
        axes.plot([i + shift for i in open_], [low[i] for i in open_], "^", markersize=6, color=colour, label=name)
