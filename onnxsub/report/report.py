"""The report of a run folder: tables, figures and one page, as files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OptionError, OutputError
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import read_plan, schema_of
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.row import rows_of
from onnxsub.evaluate.run import LEDGER, PLAN
from onnxsub.evaluate.settings import is_paper
from onnxsub.evaluate.summary import Line, summarise
from onnxsub.files import write_atomic
from onnxsub.report.figures import figures
from onnxsub.report.images import images
from onnxsub.report.page import Facts, page
from onnxsub.report.pairs_report import pairs_report
from onnxsub.report.picture import Picture, check_matplotlib
from onnxsub.report.robustness_report import robustness_report
from onnxsub.report.table import certificates, distances, to_csv, to_latex, to_markdown
from onnxsub.results import VERSION, Result
from onnxsub.shown import Shown

__all__ = ["ReportOptions", "ReportResult", "report"]

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class ReportOptions:
    """What is shown.

    Attributes:
        output: folder of the report; None: `report` in the run folder.
        images: how many samples are shown as images, per network. samples: which ones; None: spread over their distances.
        title: of the page; None: made of the networks' names.
    """

    output: str | None = None
    images: int = 4
    samples: tuple[int, ...] | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        if self.images < 0:
            raise OptionError(f"--images {self.images} is negative; give 0 or more")


@dataclass(frozen=True, eq=False, repr=False)
class ReportResult(Shown):
    """What was written.

    Attributes:
        folder: of the report. files: in it. lines: of the table. counts: units of the run by state.
    """

    run: str
    folder: Path
    files: tuple[str, ...]
    lines: tuple[Result, ...]
    counts: Mapping[str, int]

    @property
    def line(self) -> str:
        return f"{str(self.page)!r}, {len(self.files)} files"

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / "index.html"

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.report/1`."""
        return {
            "schema": "onnxsub.report/1",
            "version": VERSION,
            "run": self.run,
            "output": str(self.folder),
            "files": list(self.files),
            "units": dict(self.counts),
            "table": [line.to_json() for line in self.lines],
        }


def report(run: Path, options: ReportOptions | None = None, *, progress: Report | None = None) -> ReportResult:
    """Writes the report of a run, finished or not.

    Raises:
        InputError: no run folder, another version, nothing done yet.
        MissingDependencyError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    options = options or ReportOptions()
    check_matplotlib()
    if not (run / PLAN).is_file():
        raise InputError(f"{str(run)!r} is no run folder: it has no {PLAN}; give the folder of a run that was begun")
    folder = run / "report" if options.output is None else Path(options.output)
    schema = schema_of(run / PLAN)
    if schema in (RobustnessSettings.SCHEMA, PairSettings.SCHEMA):
        if options.samples is not None:
            raise InputError("--samples names images of a run of onnxsub evaluate; leave it out for this one")
        files: Mapping[str, bytes]
        found: Sequence[Result]
        make = robustness_report if schema == RobustnessSettings.SCHEMA else pairs_report
        files, found, counts = make(run, options.title)
        _write(folder, files)
        return ReportResult(str(run), folder, tuple(files), tuple(found), counts)
    plan = read_plan(run / PLAN)
    settings = plan["settings"]
    with Ledger(run / LEDGER, readonly=True) as ledger:
        counts = ledger.counts()
        if not counts["done"]:
            raise InputError(f"{str(run)!r} has no results yet; run onnxsub evaluate --run {run} first")
        rows = list(rows_of(ledger))
        failures = {u.reason: None for u in ledger.units() if u.state == "failed" and u.reason}
        lines = summarise(rows)
        pictures: list[Picture] = []
        for picture in figures(rows, lines):
            pictures.append(picture)
            if progress is not None:
                progress(len(pictures) / (len(pictures) + 3), picture.title)
        for entry in plan["model"]:
            shown = images(ledger, entry["name"], tuple(settings["domain"]), count=options.images, samples=options.samples)
            pictures += [] if shown is None else [shown]
    pictures.sort(key=lambda p: _order(p, plan))
    trainings = {entry["name"]: entry.get("training", "") for entry in plan["model"]}
    tables = [distances(lines, trainings, settings["protocol"])]
    more = certificates(lines)
    tables += [] if more is None else [more]
    written = {
        "table.md": to_markdown(tables).encode(),
        "table.csv": to_csv(lines).encode(),
        "table.tex": to_latex(tables).encode(),
        **{f"figures/{p.name}.svg": p.svg for p in pictures},
        **{f"figures/{p.name}.png": p.png for p in pictures},
        "index.html": page(_facts(options, run, plan, counts, lines, list(failures)), tables, pictures).encode(),
    }
    _write(folder, written)
    return ReportResult(str(run), folder, tuple(written), tuple(lines), counts)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {str(target.parent)!r}: {error.strerror or error}; choose another -o"
            ) from error
        write_atomic(target, data)


def _order(picture: Picture, plan: Mapping[str, Any]) -> int:
    """What is of all networks first, then network by network."""
    names = [entry["name"] for entry in plan["model"]]
    return next((i + 1 for i, name in enumerate(names) if picture.group == name or picture.group.startswith(f"{name}, ")), 0)


def _facts(
    options: ReportOptions,
    run: Path,
    plan: Mapping[str, Any],
    counts: Mapping[str, int],
    lines: Sequence[Line],
    failures: Sequence[str],
) -> Facts:
    settings, data, models = plan["settings"], plan["data"], plan["model"]
    title = options.title or f"Distances on substitutes: {', '.join(m['name'] for m in models)}"
    warnings = []
    waiting = counts["pending"] + counts["running"]
    if waiting:
        warnings.append(f"the run is not finished: {waiting:,} of {sum(counts.values()):,} units of work are still to be done.")
    warnings += [f"units failed: {reason}" for reason in failures]
    limit, nodes = settings.get("timeout"), settings.get("nodes")
    each = "solver run" if is_paper(settings["protocol"]) else "distance"
    facts = (
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in models)),
        ("data", f"{Path(data['source']).name}{' ' + data['array'] if data.get('array') else ''}, samples {data['index']}"),
        ("protocol", settings["protocol"]),
        ("verifier", ", ".join(v + (f" ({settings['solver']})" if v == "milp" else "") for v in settings["verifiers"])),
        ("time limit", "none" if limit is None else f"{limit:g} s per {each}"),
        *([] if nodes is None else [("node limit", f"{nodes:,} per distance")]),
        ("ranking", settings["rank"] + (", refined" if settings["refine"] else "")),
        ("seed", str(settings["seed"])),
        ("made by", f"onnxsub {plan['version']}"),
    )
    return Facts(title, tuple(_lead(lines)), facts, f"onnxsub evaluate --run {shlex.quote(str(run))}", tuple(warnings))


def _lead(lines: Sequence[Line]) -> list[str]:
    """One sentence per network: its nearest substitute at the largest gamma, and what a plain attack gives."""
    found = []
    for model in dict.fromkeys(x.model for x in lines):
        compared = [x for x in lines if x.model == model and x.difference is not None]
        if not compared:
            found.append(f"{model}: no sample has two exact distances, so there is nothing to compare.")
            continue
        top = max(x.gamma for x in compared)
        x = min((x for x in compared if x.gamma == top), key=lambda x: x.difference or 0.0)
        assert x.difference is not None
        sentence = f"{model}: at gamma {x.gamma:g}, {x.method} gives the distance within {_percent(x.difference)} in the mean"
        if x.attack_difference is not None:
            sentence += f" (the attack alone: {_percent(x.attack_difference)})"
        if x.speed_up is not None:
            sentence += f", {x.speed_up:.3g} times as fast as on the network itself, pruning included"
        found.append(f"{sentence}; {x.counted} of {x.samples} samples count.")
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
