"""The report of a run of `onnxsub adversarial`: what came of the pairs in plain words, confusion, transfer, statistics."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import LEDGER, PLAN
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.pairs.files import SUMMARY
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import read_plan
from onnxsub.report.figures import slug
from onnxsub.report.page import Facts, page
from onnxsub.report.picture import COLOURS, GREY, Picture, draw
from onnxsub.report.table import Table, to_latex, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PairsLine", "pairs_report"]

_VERDICTS = {
    "example": "an input of the ball that the model gives more of the target class: confirmed by onnxruntime",
    "tie": "an input on which both classes are equal: none of either",
    "none": "proved that no such input exists",
    "undecided": "neither was found within the limits",
}


@dataclass(frozen=True)
class PairsLine:
    """The line of a model: pairs by verdict."""

    model: str
    figures: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Name and numbers."""
        return {"model": self.model, **self.figures}


def pairs_report(run: Path, title: str | None) -> tuple[dict[str, bytes], list[PairsLine], Mapping[str, int]]:
    """Files by name, the lines of the table, and the units by state.

    Raises:
        InputError: the command has not come to its end, nor was it interrupted.
    """
    plan = read_plan(run / PLAN, PairSettings.SCHEMA)
    s = PairSettings.from_json(plan["settings"])
    with Ledger(run / LEDGER, readonly=True) as ledger:
        units = ledger.counts()
        failures = {u.reason: None for u in ledger.units() if u.state == "failed" and u.reason}
    try:
        document = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(run)!r} has no results yet; give the command of onnxsub adversarial again first") from error
    named = [(entry["name"], part) for entry, part in zip(plan["model"], (document, document["other"]), strict=False) if part]
    lines = [PairsLine(name, part["pairs"]) for name, part in named]
    tables = [_verdict_table(lines), *(_spread_table(name, part) for name, part in named)]
    if document["transfer"]:
        tables.append(_transfer_table(document["transfer"]))
    pictures = [p for name, part in named for p in _pictures(name, part)]
    warnings = [f"the run is not finished: {units['pending']:,} pairs are still to be solved."] if units["pending"] else []
    warnings += [f"pairs failed: {reason}" for reason in failures]
    data = plan["data"]
    facts = (
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in plan["model"])),
        ("data", f"{Path(data['source']).name}{' ' + data['array'] if data.get('array') else ''}, samples {data['index']}"),
        ("radius", f"{s.eps:g}"),
        ("targets", s.targets),
        ("verifier", s.verifier + (f" ({s.solver})" if s.verifier == "milp" else "")),
        ("time limit", "none" if s.timeout is None else f"{s.timeout:g} s per pair"),
        *([] if s.nodes is None else [("node limit", f"{s.nodes:,} per pair")]),
        ("seed", str(s.seed)),
        ("made by", f"onnxsub {plan['version']}"),
    )
    title = title or f"Adversarial examples at radius {s.eps:g}: {', '.join(n for n, _ in named)}"
    words = Facts(title, tuple(_lead(named, document["transfer"], s)), facts, _command(plan, s, run), tuple(warnings))
    files = {
        "table.md": to_markdown(tables).encode(),
        "table.csv": _pairs_csv(named).encode(),
        "table.tex": to_latex(tables).encode(),
        **{f"figures/{p.name}.{kind}": getattr(p, kind) for p in pictures for kind in ("svg", "png")},
        "index.html": page(words, tables, pictures).encode(),
    }
    return files, lines, units


def _command(plan: Mapping[str, Any], s: PairSettings, run: Path) -> str:
    models, data = [m["path"] for m in plan["model"]], plan["data"]
    words = ["onnxsub", "adversarial", models[0], "--data", data["source"], "--index", data["index"], "--eps", repr(s.eps)]
    for option in ("array", "labels"):
        words += [f"--{option}", data[option]] if data.get(option) else []
    usual = PairSettings(s.eps)
    for option in ("targets", "verifier", "solver", "tol", "timeout", "nodes", "seed", "threads"):
        value = getattr(s, option)
        words += [f"--{option}", str(value)] if value != getattr(usual, option) else []
    words += ["--memory", repr(s.memory / 2**30)] if s.memory != usual.memory else []
    words += ["--domain", *map(repr, s.domain)] if s.domain != usual.domain else []
    for option, ends in (("mean", s.mean), ("std", s.std)):
        words += [f"--{option}", ",".join(map(repr, ends))] if ends else []
    return shlex.join([*words, *(["--transfer", models[1]] if len(models) > 1 else []), "--run", str(run)])


def _lead(named: Sequence[tuple[str, Any]], transfer: Sequence[Any] | None, s: PairSettings) -> list[str]:
    said = [
        "What was measured. For each sample and target class, the smallest lead that the class of the sample keeps over the target "
        f"on all valid inputs that differ from the sample by at most {s.eps:g} in each value. Below zero there is an adversarial "
        "example."
    ]
    for name, part in named:
        n = part["pairs"]
        said.append(
            f"{name}: of {n['done']:,} pairs {n['example']:,} have an example, which onnxruntime confirmed on the file; of "
            f"{n['none']:,} it is proved that they have none; {n['tie']:,} end in a tie and {n['undecided']:,} are undecided. "
            f"{len(part['misclassified']):,} samples are misclassified to begin with and have no pairs."
        )
    said += [
        f"Transfer: {t['fooled_right']:,} of {t['right']:,} examples of {t['made_on']} fool {t['tried_on']}, on samples that it "
        "gets right by themselves."
        for t in transfer or ()
        if t["made_on"] != t["tried_on"]
    ]
    said.append("What is not said: anything of inputs farther away, or of samples other than these.")
    return said


def _verdict_table(lines: Sequence[PairsLine]) -> Table:
    cells = tuple(
        (x.model, verdict, meaning, f"{x.figures[verdict]:,}", f"{100 * x.figures[verdict] / max(x.figures['done'], 1):.1f} %")
        for x in lines
        for verdict, meaning in _VERDICTS.items()
    )
    planned = ", ".join(f"{x.model} {x.figures['done']:,} of {x.figures['planned']:,}" for x in lines)
    heads = ("network", "verdict", "meaning", "pairs", "share")
    note = f"A pair is a sample and a target class. Done: {planned}."
    return Table("Pairs by verdict", note, heads, (False,) * 3 + (True,) * 2, cells)


def _spread_table(name: str, part: Mapping[str, Any]) -> Table:
    rows = (("f_y - f_t, all pairs", part["objective"]["all"]), ("f_y - f_t, examples", part["objective"]["examples"]))
    cells = tuple(
        (what, f"{v['count']:,}", *("-" if v[k] is None else f"{v[k]:.4g}" for k in ("min", "median", "mean", "max", "std")))
        for what, v in (*rows, ("time, s", part["seconds"]))
    )
    heads = ("figure", "count", "smallest", "median", "mean", "largest", "deviation")
    note = "f_y - f_t: lead of the class of the sample over the target class, in units of the logits, at the best point."
    return Table(f"{name}: objective and time", note, heads, (False,) + (True,) * 6, cells)


def _transfer_table(transfer: Sequence[Mapping[str, Any]]) -> Table:
    cells = tuple(
        (
            t["made_on"], t["tried_on"], f"{t['examples']:,}", f"{t['fooled']:,}", f"{t['to_target']:,}",
            f"{t['fooled_right']:,} of {t['right']:,}", "-" if t["rate"] is None else f"{100 * t['rate']:.1f} %",
        )
        for t in transfer
    )  # fmt: skip
    heads = ("made on", "tried on", "examples", "another class", "target class", "of anchors it gets right", "rate")
    note = (
        "Every example run on each network by onnxruntime. Rate: of the examples whose sample the network gets right, those that "
        "fool it."
    )
    return Table("Transfer", note, heads, (False,) * 2 + (True,) * 5, cells)


def _pictures(name: str, part: Mapping[str, Any]) -> list[Picture]:
    targeted = np.array(part["confusion"]["targeted"])
    values = [r["upper"] for r in part["results"] if r["upper"] is not None]
    found = []
    if targeted.size and targeted.sum():
        found.append(_heat(name, targeted))
    if values:
        found.append(_histogram(name, values))
    return found


def _heat(name: str, counts: np.ndarray[Any, Any]) -> Picture:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        drawn = axes.imshow(counts, cmap="cividis")
        ticks = np.unique(np.linspace(0, counts.max(), 6).round())
        figure.colorbar(drawn, ax=axes, shrink=0.8, label="examples", ticks=ticks)
        for (y, t), n in np.ndenumerate(counts):
            if n and len(counts) <= 12:
                axes.text(t, y, str(n), ha="center", va="center", fontsize=8, color="black" if n > counts.max() / 2 else "white")
        at = range(len(counts))
        axes.set(xlabel="target class", ylabel="class of the sample", xticks=at, yticks=at)
        axes.grid(visible=False)

    return draw(
        f"confusion-{slug(name)}", f"{name}: examples by class",
        f"Matrix of {int(counts.sum()):,} examples by class of the sample and target.",
        "How many examples lead from each class to each other one.", paint, size=(5.0, 4.4), group=name,
    )  # fmt: skip


def _histogram(name: str, values: Sequence[float]) -> Picture:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.hist(values, bins=min(40, max(8, len(values) // 4)), color=COLOURS["lin"], edgecolor="white")
        axes.axvline(0.0, color=GREY, linestyle="--", linewidth=1)
        axes.set(xlabel="smallest lead f_y - f_t (units of the logits)", ylabel="pairs")

    below = sum(v < 0 for v in values)
    return draw(
        f"objective-{slug(name)}", f"{name}: the smallest lead",
        f"Histogram of {len(values):,} pairs, {below:,} of them below zero.",
        "Left of the dashed line the target class wins: an adversarial example.", paint, size=(5.0, 3.6), group=name,
    )  # fmt: skip


def _pairs_csv(named: Sequence[tuple[str, Any]]) -> str:
    text = io.StringIO()
    rows = [{"model": name, **row} for name, part in named for row in part["results"]]
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
