"""The tables of a run of `onnxsub adversarial`: pairs by verdict and by class, statistics, transfer, the pairs one by one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.evaluate.numbers import Digits
from onnxsub.report.table import Table, ordered

__all__ = ["PairsLine", "class_table", "pairs_csv", "single_table", "spread_table", "transfer_table", "verdict_table"]

_VERDICTS = {
    "example": "an input of the ball that the model gives more of the target class: confirmed by onnxruntime",
    "tie": "an input on which both classes are equal: none of either",
    "none": "proved that no such input exists",
    "undecided": "neither was found within the limits",
}

_MOST = 1000
"""More single pairs than these are left to `table.csv`."""


@dataclass(frozen=True)
class PairsLine:
    """The line of a model: pairs by verdict."""

    model: str
    figures: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Name and numbers."""
        return {"model": self.model, **self.figures}


def verdict_table(lines: Sequence[PairsLine]) -> Table:
    """How many pairs of each network came to which verdict."""
    cells = tuple(
        (x.model, verdict, meaning, f"{x.figures[verdict]:,}", f"{100 * x.figures[verdict] / max(x.figures['done'], 1):.1f} %")
        for x in lines
        for verdict, meaning in _VERDICTS.items()
    )
    planned = ", ".join(f"{x.model} {x.figures['done']:,} of {x.figures['planned']:,}" for x in lines)
    heads = ("network", "verdict", "meaning", "pairs", "share")
    note = f"A pair is a sample and a target class. Done: {planned}."
    return Table("Pairs by verdict", note, heads, (False,) * 3 + (True,) * 2, cells)


def spread_table(name: str, part: Mapping[str, Any]) -> Table:
    """Objective and time of a network."""
    rows = [("f_y - f_t, all pairs", part["objective"]["all"]), ("f_y - f_t, examples", part["objective"]["examples"])]
    rows.append(("time, s", part["seconds"]))
    if "statistics" in part:  # not of older runs
        named = (("f_y - f_t", "objective"), ("time, s", "seconds"))
        sides = ("successful", "unsuccessful")
        rows = [(f"{what}, {side}", part["statistics"][side][key]) for what, key in named for side in sides]
    keys = ("min", "q1", "median", "q3", "max", "mean", "std")
    cells = tuple(
        (what, f"{v['count']:,}", *("-" if v.get(k) is None else f"{v[k]:.4g}" for k in keys)) for what, v in rows
    )
    heads = ("figure", "pairs", "smallest", "first quartile", "median", "third quartile", "largest", "mean", "deviation")
    note = (
        "f_y - f_t: lead of the class of the sample over the target class, in units of the logits, at the best point. Successful: "
        "pairs with an example. Unsuccessful: all others, proved, tied or undecided."
    )
    return Table(f"{name}: objective and time", note, heads, (False,) + (True,) * 8, cells, group=name)


def class_table(name: str, part: Mapping[str, Any], key: str, what: str) -> Table:
    """Pairs by verdict for each class."""
    cells = tuple(
        (k, *(f"{counts[v]:,}" for v in _VERDICTS), f"{total:,}", f"{100 * counts['example'] / max(total, 1):.1f} %")
        for k, counts in part[key].items()
        for total in [sum(counts[v] for v in _VERDICTS)]
    )
    heads = (what, *_VERDICTS, "pairs", "success rate")
    note = (
        "How many pairs came to which verdict. None: it is proved that there is no example. Success rate: the share with an "
        "example, what is undecided taken as without."
    )
    return Table(f"{name}: pairs by {what}", note, heads, (False, *[True] * (len(heads) - 1)), cells, group=name)


def single_table(name: str, part: Mapping[str, Any]) -> Table:
    """The pairs one by one, the smallest lead first."""
    shown = sorted(part["results"], key=_lead_of)[:_MOST]
    digits = Digits.of(r["distance"] for r in shown)
    cells = tuple(
        (
            str(r["sample"]), str(r["label"]), str(r["target"]), r["verdict"], _ends(r["lower"], r["upper"]),
            str(r["predicted"]), digits.near(r["distance"]), f"{r['seconds']:.2f}",
        )
        for r in shown
    )  # fmt: skip
    heads = ("sample", "class", "target", "verdict", "f_y - f_t", "predicted there", "distance", "time, s")
    left = len(part["results"]) - len(shown)
    note = (
        "f_y - f_t: the smallest lead of the class over the target, in units of the logits, as the two ends that are known. "
        "Predicted there, distance (L∞, input units): of the best point."
        + (f" {left:,} more pairs are in table.csv." if left else "")
    )
    numeric = (True, True, True, False, True, True, True, True)
    table = Table(f"{name}: pairs one by one", note, heads, numeric, cells, group=name)
    return ordered(
        table,
        shown,
        {
            "smallest lead first": _lead_of,
            "by sample": lambda r: (r["sample"], r["target"]),
            "by target": lambda r: (r["target"], r["sample"]),
            "by verdict": lambda r: (list(_VERDICTS).index(r["verdict"]), *_lead_of(r)),
            "slowest first": lambda r: (-r["seconds"], r["sample"], r["target"]),
        },
    )


def _lead_of(r: Mapping[str, Any]) -> tuple[float, int, int]:
    return math.inf if r["upper"] is None else r["upper"], r["sample"], r["target"]


def _ends(low: float | None, high: float | None) -> str:
    a, b = "-∞" if low is None else f"{low:.4g}", "∞" if high is None else f"{high:.4g}"
    return a if a == b else f"{a} to {b}"


def transfer_table(transfer: Sequence[Mapping[str, Any]]) -> Table:
    """How many examples of each network fool which."""
    cells = tuple(
        (
            t["made_on"], t["tried_on"], f"{t['examples']:,}", f"{t['fooled']:,}", f"{t['to_target']:,}",
            f"{t['fooled_right']:,} of {t['right']:,}", "-" if t["rate"] is None else f"{100 * t['rate']:.1f} %",
            "-" if not t["examples"] else f"{100 * (t['examples'] - t['fooled']) / t['examples']:.1f} %",
        )
        for t in transfer
    )  # fmt: skip
    heads = ("made on", "tried on", "examples", "another class", "target class", "of anchors it gets right", "rate", "accuracy")
    note = (
        "Every example run on each network by onnxruntime. Rate: of the examples whose sample the network gets right, those that "
        "fool it. Accuracy: of all examples, those that it gives the class of their sample."
    )
    return Table("Transfer", note, heads, (False,) * 2 + (True,) * 6, cells)


def pairs_csv(named: Sequence[tuple[str, Any]]) -> str:
    """One line per pair; all networks."""
    text = io.StringIO()
    rows = [{"model": name, **row} for name, part in named for row in part["results"]]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
