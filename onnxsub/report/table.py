"""The table of a run as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from onnxsub.evaluate.numbers import NONE
from onnxsub.evaluate.settings import is_paper
from onnxsub.evaluate.summary import Line
from onnxsub.evaluate.tables import cell
from onnxsub.report.paper_table import PAPER_HEADS, PAPER_NOTE, paper_cells
from onnxsub.visible import visible

T = TypeVar("T")

__all__ = ["Order", "Table", "certificates", "distances", "ordered", "records_csv", "to_latex", "to_markdown"]

@dataclass(frozen=True)
class Order:
    """A way of sorting the rows of a table.

    Attributes:
        name: what stands first. places: of each row, from 0.
    """

    name: str
    places: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Words and figures as a reader sees them.

    Attributes:
        title, note: above and below it.
        heads: of the columns; `numeric`: which of them hold figures.
        cells: row by row.
        orders: how the page lets a reader sort the rows; the first one is that of the rows. Empty: they have one order only.
        group: the network that it is of; empty for all of the run.
    """

    title: str
    note: str
    heads: tuple[str, ...]
    numeric: tuple[bool, ...]
    cells: tuple[tuple[str, ...], ...]
    orders: tuple[Order, ...] = ()
    group: str = ""


def ordered(table: Table, items: Sequence[T], orders: Mapping[str, Callable[[T], Any]]) -> Table:
    """The table of `items`, row by row, with its rows sorted by the first key, and sortable by all of them.

    Args:
        orders: name of an order -> its key.
    """
    if not items or not orders:
        return table
    first, *_ = orders.values()
    sequence = sorted(range(len(items)), key=lambda i: first(items[i]))
    rows = [items[i] for i in sequence]
    found = []
    for name, key in orders.items():
        places = [0] * len(rows)
        for place, i in enumerate(sorted(range(len(rows)), key=lambda i: key(rows[i]))):
            places[i] = place
        found.append(Order(name, tuple(places)))
    return replace(table, cells=tuple(table.cells[i] for i in sequence), orders=tuple(found))


def distances(lines: Sequence[Line], trainings: Mapping[str, str], protocol: str) -> Table:
    """Difference of the distances, times with and without pruning, speed-up.

    Args:
        trainings: model -> how it was trained, where that is known.
        protocol: `paper` counts seconds per solver run, `fast` seconds per distance.
    """
    verifiers = len({x.verifier for x in lines}) > 1
    trained = any(trainings.values())
    paper = is_paper(protocol)
    heads = ["network", *(["training"] if trained else []), *(["verifier"] if verifiers else []), "type", "gamma", "counted"]
    words = len(heads)
    heads += PAPER_HEADS if paper else [
        "difference, mean ± sd", "largest", "attack", "pruning, s", "solver with, s", "solver without, s", "speed-up",
    ]  # fmt: skip
    cells = []
    for x in lines:
        own = paper_cells(x, _percent, _seconds) if paper else (
            _percent(x.difference) if x.sd is None else f"{_percent(x.difference)} ± {_percent(x.sd)}",
            _percent(x.worst), _percent(x.attack_difference), _seconds(x.prune_s), _seconds(x.hat_s), _seconds(x.bnd_s),
            NONE if x.speed_up is None else f"{x.speed_up:.3g}x",
        )  # fmt: skip
        cells.append((
            x.model, *([trainings.get(x.model) or NONE] if trained else []), *([x.verifier] if verifiers else []),
            x.method, f"{x.gamma:g}", f"{x.counted:,} of {x.samples:,}", *own,
        ))  # fmt: skip
    note = PAPER_NOTE if paper else (
        "Difference: |d_hat - d_bnd| / d_bnd over the samples whose two distances are both exact (counted). "
        "Attack: d_adv / d_bnd - 1 over the same samples. Solver with and without pruning, mean per sample; "
        "speed-up counts pruning; a time-out counts as long as it took."
    )
    numeric = (*[False] * words, *[True] * (len(heads) - words))
    return Table("Distances on substitutes", note, tuple(heads), numeric, tuple(cells))


def certificates(lines: Sequence[Line]) -> Table | None:
    """What the substitutes prove of the networks; None where nothing was asked."""
    drawn = [x for x in lines if x.original_lower is not None]
    if not drawn:
        return None
    cells = tuple(
        (
            x.model, x.method, f"{x.gamma:g}", f"{x.counted:,} of {x.samples:,}",
            _share(x.original_lower), _share(x.original_upper),
            f"{x.exact_bnd:,} of {x.timed:,}", f"{x.exact_hat:,} of {x.timed:,}",
        )
        for x in drawn
    )  # fmt: skip
    heads = (
        "network",
        "type",
        "gamma",
        "counted",
        "certified lower / d_bnd",
        "confirmed upper / d_bnd",
        "d_bnd exact",
        "d_hat exact",
    )
    note = (
        "Means over the counted samples: how near the certified bracket of the network, found by way of the substitute, "
        "comes to its own distance (1 is tight). Exact: distances that were found exactly within the limits."
    )
    return Table("What the substitutes prove of the networks", note, heads, (False,) * 3 + (True,) * 5, cells)


def to_markdown(tables: Sequence[Table]) -> str:
    """Each table under its title."""
    parts = []
    for table in tables:
        rows = [table.heads, tuple("---:" if n else "---" for n in table.numeric), *table.cells]
        body = "\n".join("| " + " | ".join(_markdown(text) for text in row) + " |" for row in rows)
        parts.append(f"### {table.title}\n\n{body}\n\n{table.note}\n")
    return "\n".join(parts)


def records_csv(records: Sequence[Any]) -> str:
    """Every field of some records of one kind, unrounded; empty where there is none."""
    text = io.StringIO()
    if records:
        names = [f.name for f in fields(records[0])]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([cell(getattr(record, name)) for name in names] for record in records)
    return text.getvalue()


def to_latex(tables: Sequence[Table]) -> str:
    """`booktabs` tables, one after the other."""
    parts = ["% needs \\usepackage{booktabs}"]
    for table in tables:
        columns = "".join("r" if n else "l" for n in table.numeric)
        heads, *rows = [" & ".join(map(_tex, row)) + r" \\" for row in (table.heads, *table.cells)]
        parts += [
            r"\begin{table}", r"  \centering", f"  \\caption{{{_tex(table.title)}. {_tex(table.note)}}}",
            f"  \\begin{{tabular}}{{{columns}}}", r"    \toprule", f"    {heads}", r"    \midrule",
            *(f"    {row}" for row in rows), r"    \bottomrule", r"  \end{tabular}", r"\end{table}", "",
        ]  # fmt: skip
    return "\n".join(parts)


_TEX = {
    "\\": r"\textbackslash{}", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"$|$",
}  # fmt: skip


_TAG = re.compile("<(?=[A-Za-z/!?])")


def _markdown(text: str) -> str:
    """A cell of a table; a tag in a name is text."""
    return _TAG.sub("&lt;", visible(text)).replace("|", "\\|")


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in visible(text))


def _percent(value: float | None) -> str:
    """Three figures, but no more than three decimals."""
    if value is None:
        return NONE
    v = 100 * value
    return f"{v:.3f} %" if abs(v) < 1 else f"{v:.2f} %" if abs(v) < 10 else f"{v:,.1f} %" if abs(v) < 100 else f"{v:,.0f} %"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
