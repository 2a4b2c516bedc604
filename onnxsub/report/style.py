"""The style sheet of a report's page: a screen, a telephone, paper."""

from __future__ import annotations

__all__ = ["CSS"]

_ORDERS = 6

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem 1rem 3rem; max-width: 70rem; font: 1rem/1.5 system-ui, sans-serif; }
body { color: #1b1b1b; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.2rem 0 .6rem; border-bottom: 2px solid #0072b2; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
section { scroll-margin-top: .5rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.note, figcaption { color: #505050; font-size: .92rem; overflow-wrap: anywhere; }
a { color: #005a8c; }
h2 { display: flex; justify-content: space-between; align-items: end; gap: .5rem; }
a.up { text-decoration: none; padding: 0 .4rem; }
nav ul { columns: 18rem 3; margin: .8rem 0; padding: .7rem 1rem .7rem 2rem; background: #f5f7f9; border-radius: .4rem; }
nav li { break-inside: avoid; overflow-wrap: anywhere; padding: .1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; font-size: .9rem; overflow-wrap: anywhere; }
code { background: #f3f3f3; padding: .1rem .25rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { padding: .3rem .5rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
td { overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #1b1b1b; vertical-align: bottom; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.sortable td.number { white-space: normal; }
summary { cursor: pointer; padding: .5rem 0; font-weight: 600; color: #005a8c; }
.sortable > input { position: absolute; opacity: 0; }
.sortable > label { display: inline-block; margin: 0 .3rem .5rem 0; padding: .15rem .7rem; border: 1px solid #8a8a8a; }
.sortable > label { border-radius: 1rem; font-size: .9rem; cursor: pointer; }
.sortable > input:checked + label { background: #0072b2; border-color: #0072b2; color: #fff; }
.sortable > input:focus-visible + label { outline: 3px solid #e69f00; }
.sortable table, .sortable thead { display: block; }
.sortable tbody { display: flex; flex-direction: column; }
.sortable tr { display: grid; grid-template-columns: var(--columns); }
.sortable th { border: 0; align-self: end; }
.sortable thead { position: sticky; top: 0; background: #fff; border-bottom: 2px solid #1b1b1b; }
ORDERS
.figures { columns: 24rem 2; column-gap: 1.6rem; }
figure { margin: 0 0 1.6rem; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; border: 1px solid #e4e4e4; }
@media (max-width: 60rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  thead, .sortable thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr, .sortable tr { display: grid; grid-template-columns: minmax(0,1fr) minmax(0,1fr); grid-auto-flow: dense; }
  tbody tr, .sortable tr { column-gap: 1.2rem; }
  tbody tr { border: 1px solid #ccc; border-radius: .4rem; margin-bottom: .6rem; padding: .2rem .6rem; }
  tbody td { display: flex; justify-content: space-between; gap: .6rem; text-align: right; border-bottom: 1px solid #eee; }
  tbody td, tbody td.number { grid-column: 1 / -1; padding: .22rem 0; white-space: normal; }
  tbody td.short { grid-column: auto; }
  tbody td::before { content: attr(data-head); font-weight: 600; text-align: left; flex: none; max-width: 60%; }
}
@media print {
  a.up, summary, .sortable > label { display: none; }
  figure, tr { break-inside: avoid; }
}
""".strip().replace(
    "ORDERS",
    "\n".join(
        f".sortable > input:nth-of-type({i + 1}):checked ~ table tbody tr {{ order: var(--o{i}); }}" for i in range(_ORDERS)
    ),
)
"""Everything is within the page; the orders of a sortable table are rules for at most six of them."""
