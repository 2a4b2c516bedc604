"""One self-contained HTML page: no script, no font, no image from anywhere else; reads on a telephone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from onnxsub.report.picture import Picture
from onnxsub.report.table import Table

__all__ = ["Facts", "page"]

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 3rem; max-width: 64rem; font: 1rem/1.5 system-ui, sans-serif; }
body { color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 2px solid #0072b2; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 46rem; }
p.note, figcaption { color: #505050; font-size: .92rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .9rem; overflow-wrap: anywhere; }
code { background: #f3f3f3; padding: .1rem .25rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .5rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #1b1b1b; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.6rem; }
figure { margin: 0; min-width: 0; }
figure h3 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
figure img { display: block; width: 100%; height: auto; border: 1px solid #e4e4e4; }
@media (max-width: 48rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { display: block; border: 1px solid #ccc; border-radius: .4rem; margin-bottom: .8rem; padding: .3rem .6rem; }
  tbody td { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid #eee; text-align: right; }
  tbody td:last-child { border-bottom: 0; }
  tbody td::before { content: attr(data-head); font-weight: 600; text-align: left; }
}
""".strip()

# nothing may be fetched from anywhere, whatever a name in the data contains
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
    """The page."""
    groups = list(dict.fromkeys(p.group for p in pictures))
    sections = [_section(g or "All networks", [p for p in pictures if p.group == g]) for g in groups]
    warnings = "".join(f"<p><strong>Note:</strong> {escape(w)}</p>\n" for w in facts.warnings)
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>\n" for k, v in facts.facts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(facts.title)}</title>
<style>
{_CSS}
</style>
</head>
<body>
<main>
<h1>{escape(facts.title)}</h1>
{warnings}{"".join(f"<p>{escape(s)}</p>{chr(10)}" for s in facts.lead)}
{"".join(map(_table, tables))}
{"".join(sections)}
<section>
<h2>The run</h2>
<dl>
{rows}<dt>again</dt><dd><code>{escape(facts.command)}</code></dd>
</dl>
</section>
</main>
</body>
</html>
"""


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"{_kind(n)}>{escape(h)}</th>' for h, n in zip(table.heads, table.numeric, strict=True))
    rows = []
    for row in table.cells:
        cells = zip(table.heads, row, table.numeric, strict=True)
        rows.append("<tr>" + "".join(f'<td data-head="{escape(h)}"{_kind(n)}>{escape(c)}</td>' for h, c, n in cells) + "</tr>")
    body = "\n".join(rows)
    return (
        f"<section>\n<h2>{escape(table.title)}</h2>\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n"
        f'<p class="note">{escape(table.note)}</p>\n</section>\n'
    )


def _kind(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _section(title: str, pictures: Sequence[Picture]) -> str:
    return f'<section>\n<h2>{escape(title)}</h2>\n<div class="figures">\n{"".join(map(_figure, pictures))}</div>\n</section>\n'


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    return (
        f'<figure id="{escape(picture.name)}">\n<h3>{escape(picture.title)}</h3>\n'
        f'<img alt="{escape(picture.alt)}" src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>\n"
    )
