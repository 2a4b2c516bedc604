"""The report of a run of `onnxsub adversarial`: what came of the pairs in plain words, confusion, transfer, statistics."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.documents import read_json
from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.pairs.files import SUMMARY
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.received import check_kept, read_ledger
from onnxsub.report.evaluation_report import data_words
from onnxsub.report.images import example_images
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.pairs_tables import (
    PairsLine,
    class_table,
    pairs_csv,
    single_table,
    spread_table,
    transfer_table,
    verdict_table,
)
from onnxsub.report.picture import COLOURS, GREY, Picture, draw, slug

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pairs_report", "read_pairs"]

Report = Callable[[float, str], None]


def pairs_report(run: Path, options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: the command has not come to its end, nor was it interrupted; options of another command's report.
    """
    if options.reference is not None:
        raise InputError("--reference stands beside the distances of a run of onnxsub evaluate; leave it out for this one")
    plan, named, document, units, failures = read_pairs(run)
    s = PairSettings.from_json(plan["settings"])
    lines = [PairsLine(name, part["pairs"]) for name, part in named]
    tables = [verdict_table(lines)]
    if document["transfer"]:
        tables.append(transfer_table(document["transfer"]))
    pictures = []
    with read_ledger(run) as ledger:
        for name, part in named:
            pictures += _pictures(name, part)
            shown = example_images(ledger, name, s.domain, count=options.shown, samples=options.samples)
            pictures += [] if shown is None else [shown]
            tables += [spread_table(name, part), class_table(name, part, "by_source", "class of the sample")]
            tables.append(class_table(name, part, "by_target", "target class"))
            tables += [single_table(name, part)] if part["results"] else []
    warnings = [f"the run is not finished: {units['pending']:,} pairs are still to be solved."] if units["pending"] else []
    warnings += [f"pairs failed: {reason}" for reason in failures]
    facts = (
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in plan["model"])),
        ("data", data_words(plan["data"])),
        ("radius", f"{s.eps:g}"),
        ("targets", s.targets),
        ("verifier", s.verifier + (f" ({s.solver})" if s.verifier == "milp" else "")),
        ("time limit", "none" if s.timeout is None else f"{s.timeout:g} s per pair"),
        *([] if s.nodes is None else [("node limit", f"{s.nodes:,} per pair")]),
        ("seed", str(s.seed)),
        ("made by", f"onnxsub {plan['version']}"),
    )
    title = options.title or f"Adversarial examples at radius {s.eps:g}: {', '.join(n for n, _ in named)}"
    words = Facts(title, tuple(_lead(named, document["transfer"], s)), facts, _command(plan, s, run), tuple(warnings))
    return Contents(files_of(words, tables, pictures, table=pairs_csv(named)), tuple(lines), units)


Named = list[tuple[str, Mapping[str, Any]]]


def read_pairs(run: Path) -> tuple[dict[str, Any], Named, dict[str, Any], Mapping[str, int], list[str]]:
    """Plan, tables by network, the document, units by state, and why units failed. Raises InputError where there is no document."""
    plan = read_plan(run / PLAN, PairSettings.SCHEMA)
    with read_ledger(run) as ledger:
        units = ledger.counts()
        failures = {u.reason: None for u in ledger.units() if u.state == "failed" and u.reason}
    check_kept(run / SUMMARY)
    try:
        document = read_json(run / SUMMARY)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(run)!r} has no results yet; give the command of onnxsub adversarial again first") from error
    named = [(entry["name"], part) for entry, part in zip(plan["model"], (document, document["other"]), strict=False) if part]
    return plan, named, document, units, list(failures)


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
            f"Samples that are misclassified to begin with have no pairs: {len(part['misclassified']):,}."
        )
    said += [
        f"Transfer: {t['fooled_right']:,} of {t['right']:,} examples of {t['made_on']} fool {t['tried_on']}, on samples that it "
        "gets right by themselves."
        for t in transfer or ()
        if t["made_on"] != t["tried_on"]
    ]
    said.append("What is not said: anything of inputs farther away, or of samples other than these.")
    return said


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


