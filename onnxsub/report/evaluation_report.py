"""The report of a run of `onnxsub evaluate`: how distances are spread, what substitutes give, every sample by itself."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.reference import kept_reference
from onnxsub.evaluate.row import Row, rows_of
from onnxsub.evaluate.settings import is_paper
from onnxsub.report.distance_tables import samples_csv
from onnxsub.report.evaluation import Distances
from onnxsub.report.figures import figures
from onnxsub.report.images import images
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.picture import Picture
from onnxsub.report.table import records_csv

__all__ = ["data_words", "evaluation_report", "read_rows"]

Report = Callable[[float, str], None]


def evaluation_report(run: Path, options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: another version, nothing done yet, a reference that is not understood.
    """
    plan = read_plan(run / PLAN)
    settings = plan["settings"]
    rows, counts, failures = read_rows(run)
    found = Distances.of(rows, kept_reference(run, plan, options.reference))
    pictures: list[Picture] = []
    for picture in figures(rows, found):
        pictures.append(picture)
        if progress is not None:
            progress(len(pictures) / (len(pictures) + 3), picture.title)
    with read_ledger(run) as ledger:
        for entry in plan["model"]:
            shown = images(ledger, entry["name"], tuple(settings["domain"]), count=options.shown, samples=options.samples)
            pictures += [] if shown is None else [shown]
    pictures.sort(key=lambda p: _order(p, plan))
    trainings = {entry["name"]: entry.get("training", "") for entry in plan["model"]}
    tables = [*found.summaries(trainings, settings["protocol"]), *found.single()]
    facts = _facts(options, run, plan, counts, found, failures)
    texts = {"table": records_csv(found.lines), "distances": records_csv(found.spread), "samples": samples_csv(found.samples)}
    return Contents(files_of(facts, tables, pictures, **texts), tuple(found.lines), counts, tuple(found.spread))


def read_rows(run: Path) -> tuple[list[Row], dict[str, int], list[str]]:
    """Rows of a run, its units by state, and why some failed. Raises InputError where nothing is done yet."""
    with read_ledger(run) as ledger:
        counts = ledger.counts()
        if not counts["done"]:
            raise InputError(f"{str(run)!r} has no results yet; run onnxsub evaluate --run {run} first")
        failures = {u.reason: None for u in ledger.units() if u.state == "failed" and u.reason}
        return list(rows_of(ledger)), counts, list(failures)


def _order(picture: Picture, plan: Mapping[str, Any]) -> int:
    """What is of all networks first, then network by network."""
    names = [entry["name"] for entry in plan["model"]]
    return next((i + 1 for i, name in enumerate(names) if picture.group == name or picture.group.startswith(f"{name}, ")), 0)


def _facts(
    options: ReportOptions, run: Path, plan: Mapping[str, Any], counts: Mapping[str, int], found: Distances, failures: Sequence[str]
) -> Facts:
    settings, data, models = plan["settings"], plan["data"], plan["model"]
    title = options.title or f"Distances on substitutes: {', '.join(m['name'] for m in models)}"
    warnings = []
    waiting = counts["pending"] + counts["running"]
    if waiting:
        warnings.append(f"the run is not finished: {waiting:,} of {sum(counts.values()):,} units of work are still to be done.")
    warnings += [f"units failed: {reason}" for reason in failures]
    warnings += found.contradictions
    limit, nodes = settings.get("timeout"), settings.get("nodes")
    each = "solver run" if is_paper(settings["protocol"]) else "distance"
    facts = (
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in models)),
        ("data", data_words(data)),
        ("protocol", settings["protocol"]),
        ("verifier", ", ".join(v + (f" ({settings['solver']})" if v == "milp" else "") for v in settings["verifiers"])),
        ("time limit", "none" if limit is None else f"{limit:g} s per {each}"),
        *([] if nodes is None else [("node limit", f"{nodes:,} per distance")]),
        ("ranking", settings["rank"] + (", refined" if settings["refine"] else "")),
        ("seed", str(settings["seed"])),
        ("made by", f"onnxsub {plan['version']}"),
    )
    return Facts(title, tuple(found.lead), facts, f"onnxsub evaluate --run {shlex.quote(str(run))}", tuple(warnings))


def data_words(data: Mapping[str, Any]) -> str:
    """Which samples of which file."""
    return f"{Path(data['source']).name}{' ' + data['array'] if data.get('array') else ''}, samples {data['index']}"
