"""The page of a gate: verdict, checks, and every sample that was lost or won, with pictures."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence

from onnxsub.evaluate.samples import format_indices
from onnxsub.evaluate.tables import cell
from onnxsub.gate.markdown import markdown
from onnxsub.gate.pictures import pictures
from onnxsub.gate.result import GateResult, witness_distance
from onnxsub.gate.tables import changed_table, checks_table, verdicts_table
from onnxsub.gate.words import evidence_words
from onnxsub.report.page import Facts, page
from onnxsub.report.table import Table

__all__ = ["gate_page", "samples_csv"]

_MOST_ROWS = 200
_MOST_PICTURES = 24


def gate_page(result: GateResult, command: Sequence[str]) -> dict[str, bytes]:
    """Files by name: `index.html`, `summary.md`, `samples.csv`, and the pictures.

    Args:
        command: that repeats the gate, as its arguments.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    drawn = pictures(result, _MOST_PICTURES)
    tables = _tables(result)
    return {
        "index.html": page(_facts(result, shlex.join(command)), tables, drawn).encode(),
        "summary.md": markdown(result).encode(),
        "samples.csv": samples_csv(result).encode(),
        **{f"figures/{p.name}.svg": p.svg for p in drawn},
    }


def samples_csv(result: GateResult) -> str:
    """One line per sample."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sample", "label", "predicted", "baseline", "new", "change", "distance", "seconds", "reason"))
    for p in result.pairs:
        row, before = p.new.row, "" if p.old is None else p.old.verdict
        distance = witness_distance(p.new)
        known = (p.index, p.label, row.predicted, before, p.new.verdict, p.change, distance, row.time_total)
        writer.writerow((*known, cell(row.reason)))
    return text.getvalue()


def _tables(result: GateResult) -> list[Table]:
    tables = [checks_table(result), verdicts_table(result)]
    if result.lost:
        tables.append(changed_table(f"Samples lost: {len(result.lost):,}", result.lost, _MOST_ROWS))
    if result.won:
        tables.append(changed_table(f"Samples won: {len(result.won):,}", result.won, _MOST_ROWS))
    return tables


def _facts(result: GateResult, command: str) -> Facts:
    o, new, old, s = result.options, result.new, result.old, result.samples
    against = "" if old is None else f" against {old.name}"
    lead = [f"{result.headline[0].upper()}{result.headline[1:]}."]
    if result.comparison is not None:
        lead.append(f"{evidence_words(result.comparison, o)}.")
    facts: list[tuple[str, str]] = [("new model", f"{new.name} (sha256 {new.sha256[:12]})")]
    if old is not None:
        facts.append(("baseline", f"{old.name} (sha256 {old.sha256[:12]})"))
    facts += [
        ("data", f"{s.source}{' ' + s.array if s.array else ''}, samples {format_indices(s.index)}"),
        ("metric", f"{o.metric}, radius {o.eps:g}"),
        ("limits", _limits(result)),
        ("seed", str(o.seed)),
    ]
    failures = {**(old.failures if old is not None else {}), **new.failures}
    warnings = [f"samples broke off, which count as undecided: {reason}" for reason in failures]
    if o.by_machine:
        warnings.append("a time limit was given, so the verdicts may depend on the machine; --nodes does not")
    return Facts(f"Robustness gate: {result.verdict}, {new.name}{against}", tuple(lead), tuple(facts), command, tuple(warnings))


def _limits(result: GateResult) -> str:
    o = result.options
    parts = [f"{o.nodes:,} nodes"] if o.nodes is not None else []
    parts += [f"{o.timeout:g} s"] if o.timeout is not None else []
    return " and ".join(parts) + " per sample" if parts else "those of the attack"
