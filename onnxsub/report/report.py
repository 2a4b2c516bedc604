"""The report of a run folder, or of several: tables, figures and one page, as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.plan import schema_of
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.run import PLAN
from onnxsub.evaluate.settings import Settings
from onnxsub.files import make_folder, refuse_links, write_atomic
from onnxsub.report.evaluation_report import evaluation_report
from onnxsub.report.joined_report import joined_report
from onnxsub.report.options import Contents, ReportOptions
from onnxsub.report.pairs_report import pairs_report
from onnxsub.report.picture import check_matplotlib
from onnxsub.report.robustness_report import robustness_report
from onnxsub.results import VERSION, Result
from onnxsub.shown import Shown

__all__ = ["ReportOptions", "ReportResult", "report", "report_joined"]

Report = Callable[[float, str], None]

_REPORTS: Mapping[str, Callable[[Path, ReportOptions, Report | None], Contents]] = {
    Settings.SCHEMA: evaluation_report,
    RobustnessSettings.SCHEMA: robustness_report,
    PairSettings.SCHEMA: pairs_report,
    ManySettings.SCHEMA: robustness_report,
}


@dataclass(frozen=True, eq=False, repr=False)
class ReportResult(Shown):
    """What was written.

    Attributes:
        runs: that it is of. folder: of the report. files: in it. lines: of the table. counts: units of the runs by state.
        spread: mean and quantiles of the distances of `onnxsub evaluate`.
    """

    runs: tuple[str, ...]
    folder: Path
    files: tuple[str, ...]
    lines: tuple[Result, ...]
    counts: Mapping[str, int]
    spread: tuple[Result, ...] = ()

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
            "run": self.runs[0],
            "runs": list(self.runs),
            "output": str(self.folder),
            "files": list(self.files),
            "units": dict(self.counts),
            "table": [line.to_json() for line in self.lines],
            "distances": [line.to_json() for line in self.spread],
        }


def report(run: Path, options: ReportOptions | None = None, *, progress: Report | None = None) -> ReportResult:
    """Writes the report of a run, finished or not.

    Raises:
        InputError: no run folder, another version, nothing done yet, a reference that is not understood, `output` is a run folder.
        OptionError: what is of grids only, for another run.
        MissingDependencyError: matplotlib is not installed.
        OutputError: it cannot be written.
    """
    options = options or ReportOptions()
    check_matplotlib()
    schema = _schema(run)
    make = _REPORTS.get(schema)
    if make is None:
        raise InputError(f"{str(run)!r} holds a run of schema {schema!r}, of which there is no report; give another run")
    if make is not robustness_report:  # which knows whether its run is a grid
        options.refuse_of_grids()
    contents = make(run, options, progress)
    folder = run / "report" if options.output is None else Path(options.output)
    if options.output is None:  # nobody named what may be behind a link
        for name in contents.files:
            refuse_links(run, folder / name)
    return _written((run,), folder, contents)


def report_joined(runs: Sequence[Path], options: ReportOptions | None = None, *, progress: Report | None = None) -> ReportResult:
    """Writes one report that shows several runs of one command side by side, paired by sample where their data are the same.

    Raises:
        InputError: as `report`, or runs of different commands. OptionError: a run that is named twice, what is of one run only.
        MissingDependencyError, OutputError: as `report`.
    """
    options = options or ReportOptions()
    check_matplotlib()
    schemas = {str(run): _schema(run) for run in runs}
    if len(schemas) < len(runs):
        raise OptionError("a run is named twice; give each once")
    made = {_REPORTS.get(schema) for schema in schemas.values()}
    if len(made) > 1 or None in made:
        words = ", ".join(f"{run!r} of {schema}" for run, schema in schemas.items())
        raise InputError(f"runs of different commands cannot stand side by side: {words}; give runs of one command")
    contents = joined_report(runs, options, progress)
    return _written(runs, Path("comparison" if options.output is None else options.output), contents)


def _schema(run: Path) -> str:
    if not (run / PLAN).is_file():
        raise InputError(f"{str(run)!r} is no run folder: it has no {PLAN}; give the folder of a run that was begun")
    return schema_of(run / PLAN) or ""


def _written(runs: Sequence[Path], folder: Path, contents: Contents) -> ReportResult:
    if (folder / PLAN).exists():
        raise InputError(f"{str(folder)!r} is the folder of a run, whose tables a report would overwrite; give another -o")
    for name, data in contents.files.items():
        target = folder / name
        make_folder(target.parent, "choose another -o")
        write_atomic(target, data)
    names = tuple(contents.files)
    return ReportResult(tuple(map(str, runs)), folder, names, contents.lines, contents.counts, contents.spread)
