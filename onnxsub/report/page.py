"""One self-contained HTML page: no script, no font, no image from anywhere else; reads on a telephone, sorts long tables."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from onnxsub.report.picture import Picture, slug
from onnxsub.report.style import CSS
from onnxsub.report.table import Table
from onnxsub.visible import visible

__all__ = ["Facts", "page"]

# nothing may be fetched from anywhere, whatever a name in the data contains
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_FIRST = 10
"""So many rows of a longer table are seen at once; the rest is behind a click."""

_UNIT = re.compile(
    r"(?<=[0-9]) (?=(?:%|s|GiB|MiB)(?![A-Za-z]))"
    r"|(?<=[0-9]) (?=of [0-9])|(?<=[0-9] of) (?=[0-9])"
    r"|(?<=,) (?=s$)| (?=± )|(?<= ±) "
)

_SHORT = 14
"""Name and figure of so many letters take half the width of a telephone."""


@dataclass(frozen=True)
class Facts:
    """What the page says of the run in words.

    Attributes:
        title: of the page. lead: its main sentences.
        facts: name and value. command: repeats the run. warnings: what a reader must know first.
    """

    title: str
    lead: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    command: str
    warnings: tuple[str, ...]


def page(facts: Facts, tables: Sequence[Table], pictures: Sequence[Picture]) -> str:
    """The page: what is of all of the run, then network by network its figures and then its tables."""
    parts = [(t.title, _table(t)) for t in tables if not t.group]
    overview = [p for p in pictures if not p.group]
    if overview:
        parts.append(("Overview", _figures(overview)))
    for group in dict.fromkeys([*(p.group for p in pictures), *(t.group for t in tables)]):
        if group:
            own = [p for p in pictures if p.group == group]
            parts += [(group, _figures(own))] if own else []
            parts += [(t.title, _table(t)) for t in tables if t.group == group]
    rows = "".join(f"<dt>{_text(k)}</dt><dd>{_text(v)}</dd>\n" for k, v in facts.facts)
    again = f"<dt>again</dt><dd><code>{escape(facts.command)}</code></dd>\n"
    parts.append(("The run", f"<dl>\n{rows}{again}</dl>\n"))
    names = [f"{i}-{slug(title).lower()}" for i, (title, _) in enumerate(parts, 1)]
    links = "".join(f'<li><a href="#{n}">{_text(title)}</a></li>\n' for n, (title, _) in zip(names, parts, strict=True))
    warnings = "".join(f"<p><strong>Note:</strong> {_text(w)}</p>\n" for w in facts.warnings)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(facts.title)}</title>
<style>
{CSS}
</style>
</head>
<body>
<main>
<h1>{_text(facts.title)}</h1>
{warnings}{"".join(f"<p>{_text(s)}</p>{chr(10)}" for s in facts.lead)}
<nav id="contents" aria-label="Contents">
<ul>
{links}</ul>
</nav>
{"".join(_section(n, title, body) for n, (title, body) in zip(names, parts, strict=True))}
</main>
</body>
</html>
"""


def _text(text: str) -> str:
    """As markup; a number and its unit, a mean and its deviation stay on one line."""
    return escape(_UNIT.sub("\u00a0", visible(text)))


def _section(name: str, title: str, body: str) -> str:
    up = '<a class="up" href="#contents" aria-label="to the contents">↑</a>'
    return f'<section id="{escape(name)}">\n<h2><span>{_text(title)}</span>{up}</h2>\n{body}</section>\n'


def _table(table: Table) -> str:
    note = f'<p class="note">{_text(table.note)}</p>\n'
    if not table.orders:
        return f"{_rows(table, table.cells)}{note}"
    if len(table.cells) <= _FIRST + 2:
        return f"{_sortable(table)}{note}"
    first = f"<h3>{_text(table.orders[0].name)}: {_FIRST} of {len(table.cells):,}</h3>\n{_rows(table, table.cells[:_FIRST])}"
    every = f"<details>\n<summary>All {len(table.cells):,} rows, in any order</summary>\n{_sortable(table)}</details>\n"
    return f"{first}{note}{every}"


def _rows(table: Table, cells: Sequence[Sequence[str]]) -> str:
    body = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in cells)
    return f"<table>\n{_heads(table)}\n<tbody>\n{body}\n</tbody>\n</table>\n"


def _sortable(table: Table) -> str:
    """A table whose rows are put in order by the style sheet: each row knows its place in every order, a button chooses one.

    A browser without these styles shows the first order.
    """
    name = slug(table.title).lower()
    buttons = "".join(
        f'<input type="radio" name="{escape(name)}" id="{escape(name)}-{i}"{"" if i else " checked"}>'
        f'<label for="{escape(name)}-{i}">{_text(order.name)}</label>\n'
        for i, order in enumerate(table.orders)
    )
    widths = " ".join(f"minmax(0,{_weight(table, i)}fr)" for i in range(len(table.heads)))
    places = zip(*(order.places for order in table.orders), strict=True)
    body = "\n".join(
        f'<tr style="{";".join(f"--o{i}:{place}" for i, place in enumerate(row))}">{_cells(table, cells)}</tr>'
        for cells, row in zip(table.cells, places, strict=True)
    )
    return (
        f'<div class="sortable">\n{buttons}<table style="--columns:{widths}">\n{_heads(table)}\n<tbody>\n{body}\n</tbody>\n'
        "</table>\n</div>\n"
    )


def _weight(table: Table, column: int) -> int:
    """How wide a column is: its longest cell, or the longest word of its head."""
    longest = max((len(row[column]) for row in table.cells), default=0)
    return min(max(longest, *map(len, table.heads[column].split()), 4), 28)


def _heads(table: Table) -> str:
    heads = "".join(f'<th scope="col"{_kind(n)}>{_text(h)}</th>' for h, n in zip(table.heads, table.numeric, strict=True))
    return f"<thead><tr>{heads}</tr></thead>"


def _cells(table: Table, row: Sequence[str]) -> str:
    cells = zip(table.heads, row, table.numeric, strict=True)
    return "".join(
        f'<td data-head="{_text(h)}"{_kind(n, short=len(h) + len(c) <= _SHORT)}>{_text(c)}</td>' for h, c, n in cells
    )


def _kind(numeric: bool, *, short: bool = False) -> str:
    names = " ".join(["number"] * numeric + ["short"] * short)
    return f' class="{names}"' if names else ""


def _figures(pictures: Sequence[Picture]) -> str:
    return f'<div class="figures">\n{"".join(map(_figure, pictures))}</div>\n'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    return (
        f'<figure id="{escape(picture.name)}">\n<h3>{_text(picture.title)}</h3>\n'
        f'<img alt="{escape(picture.alt)}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{_text(picture.caption)}</figcaption>\n</figure>\n"
    )
