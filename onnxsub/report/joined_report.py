"""Several runs of one command on one page: the same figures side by side, and sample by sample where their data are the same."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.numbers import NONE, Digits
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import read_plan, schema_of
from onnxsub.evaluate.reference import kept_reference
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import verdict_of
from onnxsub.evaluate.robustness.words import title_of
from onnxsub.evaluate.settings import Settings
from onnxsub.report.distance_tables import digits_of
from onnxsub.report.evaluation import Distances
from onnxsub.report.evaluation_report import data_words, read_rows
from onnxsub.report.joined_figures import paired_scatter, runs_distribution, runs_shares
from onnxsub.report.joined_tables import (
    Member,
    against_table,
    changed_table,
    members_table,
    runs_spread,
    verdicts_table,
)
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.pairs_report import read_pairs
from onnxsub.report.pairs_tables import PairsLine, verdict_table
from onnxsub.report.picture import Picture
from onnxsub.report.robustness_grid import grid_parts
from onnxsub.report.robustness_run import read_robustness
from onnxsub.report.robustness_tables import Figures
from onnxsub.report.table import Table, distances, records_csv
from onnxsub.results import Result

__all__ = ["joined_report"]

Report = Callable[[float, str], None]


@dataclass
class _Page:
    """What has been gathered of the runs so far."""

    lead: list[str]
    tables: list[Table]
    pictures: list[Picture]
    lines: list[Result]
    spread: list[Result]
    texts: dict[str, str]
    counts: dict[str, int]
    warnings: list[str]

    def count(self, name: str, units: Mapping[str, int]) -> None:
        """Adds the units of a run, and says where some are left."""
        for state, n in units.items():
            self.counts[state] = self.counts.get(state, 0) + n
        waiting = units["pending"] + units["running"]
        if waiting:
            left = f"{waiting:,} of {sum(units.values()):,} units of work are still to be done"
            self.warnings.append(f"{name} is not finished: {left}.")


def joined_report(runs: Sequence[Path], options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: nothing done yet in a run, another version, options that are of one run only.
    """
    options.check_joined()
    folders = _names(runs)
    plans = {name: read_plan(run / PLAN, schema_of(run / PLAN) or "") for name, run in folders.items()}
    schemas = {plan["schema"] for plan in plans.values()}
    page = _Page([], [], [], [], [], {}, {}, [])
    if ManySettings.SCHEMA in schemas:
        _grids(page, folders, options)
    else:
        options.refuse_of_grids()
        (schema,) = schemas
        parts = {Settings.SCHEMA: _distances, RobustnessSettings.SCHEMA: _robustness, PairSettings.SCHEMA: _pairs}
        parts[schema](page, folders, plans)
    if progress is not None:
        progress(0.9, "the page")
    facts = [(name, f"{', '.join(m['name'] for m in plan['model'])}; {data_words(plan['data'])}") for name, plan in plans.items()]
    facts += [(f"settings.{key}", values) for key, values in _unlike(plans).items()]
    facts.append(("made by", f"onnxsub {next(iter(plans.values()))['version']}"))
    title = options.title or f"{len(runs)} runs side by side: {', '.join(folders)}"
    again = shlex.join(["onnxsub", "report", *map(str, runs), *(["-o", options.output] if options.output else [])])
    words = Facts(title, tuple(page.lead), tuple(facts), again, tuple(page.warnings))
    return Contents(files_of(words, page.tables, page.pictures, **page.texts), tuple(page.lines), page.counts, tuple(page.spread))


def _names(runs: Sequence[Path]) -> dict[str, Path]:
    """What the runs are called: their folders' names, their paths where two have one name."""
    short = [run.resolve().name for run in runs]
    return {name if short.count(name) == 1 else str(run): run for name, run in zip(short, runs, strict=True)}


def _unlike(plans: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Settings that the runs do not share, with the value of each."""
    keys = dict.fromkeys(key for plan in plans.values() for key in plan["settings"])
    found = {}
    for key in keys:
        values = {name: plan["settings"].get(key) for name, plan in plans.items()}
        if len({str(v) for v in values.values()}) > 1:
            found[key] = "; ".join(f"{name}: {_shown(v)}" for name, v in values.items())
    return found


def _shown(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _same_data(plans: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a position in the data is the same sample in every run."""
    return len({(plan["data"]["sha256"], plan["data"].get("array")) for plan in plans.values()}) == 1


def _distances(page: _Page, folders: Mapping[str, Path], plans: Mapping[str, Mapping[str, Any]]) -> None:
    members: list[Member] = []
    for name, run in folders.items():
        rows, counts, failures = read_rows(run)
        page.count(name, counts)
        page.warnings += [f"{name}, units failed: {reason}" for reason in failures]
        found = Distances.of(rows, kept_reference(run, plans[name]))
        for key, group in found.names.items():
            label = name if len(found.names) == 1 else f"{name}: {group}"
            lines = [replace(x, model=label) for x in found.lines if (x.model, x.verifier) == key]
            spread = [replace(x, model=label) for x in found.spread if (x.model, x.verifier) == key]
            members.append(Member(label, key[0], tuple(found.groups[group]), tuple(lines), tuple(spread)))
    digits = digits_of([s for m in members for s in m.samples])
    page.lines += [x for m in members for x in m.lines]
    protocols = {plan["settings"]["protocol"] for plan in plans.values()}
    page.tables.append(runs_spread(members, digits))
    page.tables.append(distances([x for m in members for x in m.lines], {}, protocols.pop() if len(protocols) == 1 else "fast"))
    page.pictures.append(runs_distribution(members, digits))
    page.spread += [x for m in members for x in m.spread]
    page.texts |= {"table": records_csv(page.lines), "distances": records_csv(page.spread)}
    if not _same_data(plans):
        page.lead.append("The data of the runs differ, so samples are not paired: figures over all samples stand side by side.")
        return
    first, *others = members
    page.lead += [f"{m.label}, {m.model}: {_middle(m, digits)}" for m in members]
    page.lead.append(f"The runs are of the same data, so every sample is paired with itself; changes are against {first.label}.")
    if others:
        page.tables.append(against_table(first, others, digits))
        page.pictures += [p for other in others for p in [paired_scatter(first, other)] if p is not None]
        page.tables.append(members_table(members, digits))


def _middle(member: Member, digits: Digits) -> str:
    upper = next((x for x in member.spread if x.quantity == "d_bnd_upper"), None)
    if upper is None or upper.median is None:
        return "no distance is known yet."
    exact = sum(s.status == "exact" for s in member.samples)
    middle = digits.near(upper.median)
    return f"half of {upper.counted:,} samples lie at most {middle} from a boundary; {exact:,} distances are exact."


def _grids(page: _Page, folders: Mapping[str, Path], options: ReportOptions) -> None:
    """Runs of which one at least is a grid: all of their figures together."""
    runs = {name: read_robustness(run) for name, run in folders.items()}
    for name, run in runs.items():
        page.count(name, run.units)
    parts = grid_parts(runs, options)
    page.lead += parts.lead
    page.tables += parts.tables
    page.pictures += parts.pictures
    page.lines += parts.lines
    page.texts |= parts.texts


def _robustness(page: _Page, folders: Mapping[str, Path], plans: Mapping[str, Mapping[str, Any]]) -> None:
    verdicts: dict[str, dict[int, str]] = {}
    rows: list[Figures] = []
    for name, run in folders.items():
        found = read_robustness(run)
        (cell,) = found.cells
        page.count(name, found.units)
        rows.append(Figures.of(cell, name))
        verdicts[name] = {r.index: verdict_of(r, cell.settings) for r in cell.seen}
        page.lead.append(f"{name}: {title_of(cell.settings)}, {cell.model}. {_estimate(rows[-1])}")
    page.lines += rows
    page.tables.append(verdicts_table(rows))
    verdicts_of = ("proved", "undecided", "violated", "misclassified")
    page.pictures.append(runs_shares({x.model: {v: getattr(x, v) for v in verdicts_of} for x in rows}))
    page.texts["table"] = records_csv(rows)
    asked = {tuple(sorted((k, str(v)) for k, v in plan["settings"].items() if k in _PROPERTY)) for plan in plans.values()}
    defended = {plan["data"].get("labels_sha256") for plan in plans.values()}
    if not _same_data(plans) or len(asked) > 1 or len(defended) > 1:
        what = "data" if not _same_data(plans) else "properties that were asked for" if len(asked) > 1 else "labels"
        page.lead.append(f"The {what} of the runs differ, so samples are not paired.")
        return
    page.tables.append(changed_table(verdicts))


_PROPERTY = ("eps", "prop", "delta", "eta", "lipschitz", "gamma", "norm")


def _estimate(x: Figures) -> str:
    if x.estimate_lower is None or x.estimate_upper is None:
        return "No estimate yet."
    same = x.estimate_lower == x.estimate_upper
    value = f"{x.estimate_lower:.4f}" if same else f"{x.estimate_lower:.4f} to {x.estimate_upper:.4f}"
    interval = ""
    if x.interval_lower is not None and x.interval_upper is not None:
        interval = f"; for all inputs of this kind {x.interval_lower:.4f} to {x.interval_upper:.4f} ({100 * x.confidence:g} %)"
    return f"On the {x.samples:,} samples {value}{interval}."


def _pairs(page: _Page, folders: Mapping[str, Path], plans: Mapping[str, Mapping[str, Any]]) -> None:
    lines: list[PairsLine] = []
    smallest = []
    for name, run in folders.items():
        _, named, _, units, failures = read_pairs(run)
        page.count(name, units)
        page.warnings += [f"{name}, pairs failed: {reason}" for reason in failures]
        for model, part in named:
            label = name if len(named) == 1 else f"{name}: {model}"
            lines.append(PairsLine(label, part["pairs"]))
            v = part["objective"]["all"]
            figures = (NONE if v[k] is None else f"{v[k]:.4g}" for k in ("min", "median", "mean", "max"))
            smallest.append((label, f"{v['count']:,}", *figures))
    page.lines += lines
    note = "f_y - f_t: lead of the class of the sample over the target class, in units of the logits, at each pair's best point."
    heads = ("network", "pairs", "smallest", "median", "mean", "largest")
    page.tables += [verdict_table(lines), Table("Smallest leads", note, heads, (False, *[True] * 5), tuple(smallest))]
    verdicts = ("none", "undecided", "example", "tie")
    page.pictures.append(runs_shares({x.model: {v: x.figures[v] for v in verdicts} for x in lines}, what="pairs"))
    page.lead.append("Pairs of a sample and a target class, by verdict, run by run.")
