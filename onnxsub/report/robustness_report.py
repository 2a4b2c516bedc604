"""The report of a robustness run: what was measured and what is guaranteed in plain words, tables, figures, one page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.robustness.measure import Measure
from onnxsub.evaluate.robustness.row import SampleRow, sample_rows
from onnxsub.evaluate.robustness.run import sum_up
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally
from onnxsub.evaluate.robustness.words import beyond_words, property_words, title_of
from onnxsub.metrics.convergence import convergence
from onnxsub.report.evaluation_report import data_words
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.robustness_figures import curve_of, robustness_figures, settled_values
from onnxsub.report.robustness_tables import (
    Figures,
    convergence_table,
    counts_table,
    curve_table,
    samples_csv,
    single_table,
)
from onnxsub.report.table import records_csv

__all__ = ["read_samples", "robustness_report"]

_ERRORS = (0.2, 0.1, 0.05, 0.02)
_REPEATS = 100
_FEWEST = 100
"""Estimates drawn again from fewer samples than these are as coarse as the tolerances that they should show."""

Report = Callable[[float, str], None]


def robustness_report(run: Path, options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: nothing done yet, options of another command's report.
    """
    if options.samples is not None or options.reference is not None:
        given = "--samples names images" if options.samples is not None else "--reference stands beside the distances"
        raise InputError(f"{given} of a run of onnxsub evaluate; leave it out for this one")
    plan, s, everything, used, units = read_samples(run)
    _, counts, found = sum_up(everything, s)
    rows = [r for r in everything[:used] if r.status != "pending"]
    (entry,) = plan["model"]
    model = entry["name"]
    values = settled_values(rows, s)
    low, high = s.values
    errors = [e * (high - low) for e in _ERRORS]
    enough = len(values) >= _FEWEST
    settled = convergence(values, errors, s.confidence, value_range=s.values, repeats=_REPEATS, seed=s.seed) if enough else ()
    pictures = list(robustness_figures(model, rows, counts, s, settled))
    line = Figures.of(model, s, counts, found)
    points = curve_of(rows, s) if s.metric == "pointwise" else ()
    tables = [counts_table(counts, s)]
    if points:
        tables.append(curve_table(points, s))
    if settled:
        tables.append(convergence_table(settled, s))
    single = single_table(model, rows, s)
    tables += [] if single is None else [single]
    again = f"onnxsub robustness --run {shlex.quote(str(run))}"
    warnings = tuple(_warnings(rows, units))
    lead = _lead(counts, found, s)
    if values and not settled:
        lead.append(
            f"What is not drawn. How repeated estimates settle, which takes {_FEWEST} samples: drawn again and again from "
            f"{len(values)}, they would only show how few there are."
        )
    facts = Facts(options.title or f"{title_of(s)}, {model}", tuple(lead), _facts(plan, s), again, warnings)
    texts = {"table": records_csv([line]), "samples": samples_csv(everything, s)}
    texts |= {"curve": records_csv(points)} if points else {}
    return Contents(files_of(facts, tables, pictures, **texts), (line,), units)


def read_samples(run: Path) -> tuple[dict[str, Any], RobustnessSettings, list[SampleRow], int, Mapping[str, int]]:
    """Plan, settings, rows, how many of the rows are used, and units by state of a run. Raises InputError where nothing is done."""
    plan = read_plan(run / PLAN, RobustnessSettings.SCHEMA)
    s = RobustnessSettings.from_json(plan["settings"])
    with read_ledger(run) as ledger:
        units: Mapping[str, int] = ledger.counts()
        if not units["done"]:
            raise InputError(f"{str(run)!r} has no results yet; run onnxsub robustness --run {run} first")
        everything = list(sample_rows(ledger))
    used, _, found = sum_up(everything, s)
    if s.sequential and found.more.get("reached"):
        units = {**units, "pending": 0, "running": 0, "not needed": units["pending"] + units["running"]}
    return plan, s, everything, used, units


def _lead(counts: Tally, found: Measure, s: RobustnessSettings) -> list[str]:
    """What was measured, what came out, what is guaranteed, what is not."""
    return [
        f"What was measured. For each sample, whether {property_words(s)}. From that, the {found.quantity}.",
        f"What came out. {_outcome(found)} Of {counts.seen:,} samples {_named(counts, s)}. How they count: {found.counted}.",
        f"What is guaranteed. {found.guarantee}",
        f"What is not. {beyond_words(s)}",
    ]


def _outcome(found: Measure) -> str:
    if found.lower is None or found.upper is None:
        return "Nothing yet."
    value = f"{found.lower:.4f}" if found.lower == found.upper else f"between {found.lower:.4f} and {found.upper:.4f}"
    text = f"On the samples it is {value}."
    if found.interval is not None:
        i = found.interval
        text += f" For all inputs of this kind: between {i.lower:.4f} and {i.upper:.4f}, with {100 * i.confidence:g} % confidence."
    if found.more.get("error") is not None:
        text += f" The error asked for, {found.more['error']:g}, is {'reached' if found.more['reached'] else 'not reached'}."
    return text


def _named(counts: Tally, s: RobustnessSettings) -> str:
    names = ["proved", "violated", "undecided", *(["misclassified"] if s.needs_label else [])]
    parts = [f"{len(getattr(counts, name)):,} {'is' if len(getattr(counts, name)) == 1 else 'are'} {name}" for name in names]
    return ", ".join(parts[:-1]) + f" and {parts[-1]}"


def _facts(plan: Mapping[str, Any], s: RobustnessSettings) -> tuple[tuple[str, str], ...]:
    data = plan["data"]
    (entry,) = plan["model"]
    found: list[tuple[str, str]] = [
        ("network", f"{entry['name']} (sha256 {entry['sha256'][:12]})"),
        ("data", data_words(data)),
        ("metric", s.metric + (", sequential" if s.sequential else "") + (", quantitative" if s.quantitative else "")),
        ("property", ", ".join(f"{k} {v}" for k, v in s.local.parameters().items() if k != "property")),
    ]
    found[-1] = ("property", f"{s.prop}, {found[-1][1]}")
    if s.distances is not None:
        found.append(("distances", s.distances + (f" ({s.via})" if s.via else "")))
    if s.verifier is not None:
        found.append(("verifier", s.verifier + (f" ({s.solver})" if s.verifier == "milp" else "")))
    if s.draws is not None:
        found.append(("uniform points", f"{s.draws:,} per sample"))
    if s.error is not None:
        found.append(("error asked for", f"{s.error:g} at confidence {s.confidence:g}"))
    if s.nodes is not None:
        found.append(("node limit", f"{s.nodes:,} per sample"))
    found += [
        ("time limit", "none" if s.timeout is None else f"{s.timeout:g} s per sample"),
        ("seed", str(s.seed)),
        ("made by", f"onnxsub {plan['version']}"),
    ]
    return tuple(found)


def _warnings(rows: Sequence[SampleRow], units: Mapping[str, int]) -> list[str]:
    waiting = units["pending"] + units["running"]
    left = f"the run is not finished: {waiting:,} of {sum(units.values()):,} samples are still to be looked at."
    found = [left] if waiting else []
    reasons = {r.reason: None for r in rows if r.status == "failed" and r.reason}
    return found + [f"samples failed, which count as undecided: {reason}" for reason in reasons]


