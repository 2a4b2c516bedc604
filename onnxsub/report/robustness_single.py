"""The page of one figure: what was measured and what is guaranteed in plain words, tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxsub.errors import OptionError
from onnxsub.evaluate.robustness.measure import Measure
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally
from onnxsub.evaluate.robustness.words import beyond_words, property_words, title_of
from onnxsub.metrics.convergence import ConvergenceRow, convergence
from onnxsub.metrics.intervals import hoeffding_samples
from onnxsub.report.evaluation_report import data_words
from onnxsub.report.options import ReportOptions
from onnxsub.report.robustness_figures import curve_of, robustness_figures, settled_values
from onnxsub.report.robustness_run import Parts, RobustnessRun
from onnxsub.report.robustness_tables import (
    Figures,
    convergence_table,
    counts_table,
    curve_table,
    samples_csv,
    single_table,
)
from onnxsub.report.table import records_csv

__all__ = ["single_parts"]

_ERRORS = (0.2, 0.1, 0.05, 0.02)
_FEWEST = 100
"""Subsets of fewer samples than these are nearly everything."""


def single_parts(found: RobustnessRun, options: ReportOptions) -> Parts:
    """What a page says of the only figure of a run."""
    (cell,) = found.cells
    s, counts, rows, model = cell.settings, cell.counts, cell.seen, cell.model
    values = settled_values(rows, s)
    settled, why = _settled(values, s, options.tolerances)
    pictures = list(robustness_figures(model, rows, counts, s, settled))
    line = Figures.of(cell)
    points = curve_of(rows, s) if s.metric == "pointwise" else ()
    tables = [counts_table(counts, s)]
    if points:
        tables.append(curve_table(points, s))
    if settled:
        tables.append(convergence_table(settled, s))
    single = single_table(model, rows, s)
    tables += [] if single is None else [single]
    lead = _lead(counts, cell.measure, s)
    if why:
        lead.append(f"What is not drawn. {why}")
    texts = {"table": records_csv([line]), "samples": samples_csv(cell.rows, s)}
    texts |= {"curve": records_csv(points)} if points else {}
    return Parts(f"{title_of(s)}, {model}", tuple(lead), _facts(found.plan, s), tuple(tables), tuple(pictures), texts, (line,))


def _settled(
    values: Sequence[float], s: RobustnessSettings, wanted: Sequence[float] | None
) -> tuple[tuple[ConvergenceRow, ...], str]:
    """Repeated estimates at the tolerances that there are samples for, and why others are not shown.

    Raises:
        OptionError: tolerances of a metric that has no such estimates, or as large as the range of the values.
    """
    low, high = s.values
    if wanted is not None and not values:
        raise OptionError(f"--tolerances is of --metric satisfaction and global, and this run is of {s.metric}; leave it out")
    for error in wanted or ():
        if error >= high - low:
            raise OptionError(f"--tolerances {error:g} is not below {high - low:g}, the range of the values; give smaller ones")
    if not values:
        return (), ""
    errors = [e * (high - low) for e in _ERRORS] if wanted is None else sorted(set(wanted), reverse=True)
    if wanted is None and len(values) < _FEWEST:
        why = f"How repeated estimates settle, which takes {_FEWEST} samples: subsets of {len(values)} would be nearly the same."
        return (), why
    needed = {error: hoeffding_samples(error, s.confidence, high - low) for error in errors}
    fitting = [error for error in errors if needed[error] <= len(values)]
    left = [f"{error:g} takes {needed[error]:,}" for error in errors if error not in fitting]
    why = f"Estimates at tolerances that take more than the {len(values):,} samples at hand: {', '.join(left)}." if left else ""
    return convergence(values, fitting, s.confidence, value_range=s.values, seed=s.seed), why


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
