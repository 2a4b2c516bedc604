"""The report of a run of `onnxsub robustness`: the page of one figure, or that of a grid of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from onnxsub.errors import OptionError
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.robustness_grid import grid_parts
from onnxsub.report.robustness_run import read_robustness
from onnxsub.report.robustness_single import single_parts

__all__ = ["robustness_report"]

Report = Callable[[float, str], None]


def robustness_report(run: Path, options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: nothing done yet, options of another command's report.
    """
    options.refuse_of_images()
    found = read_robustness(run)
    if len(found.cells) == 1:
        options.refuse_of_grids()
    elif options.tolerances is not None:
        raise OptionError("--tolerances is of a robustness run of one figure; leave it out for this one")
    parts = single_parts(found, options) if len(found.cells) == 1 else grid_parts({"": found}, options)
    again = f"onnxsub robustness --run {shlex.quote(str(run))}"
    facts = Facts(options.title or parts.title, parts.lead, parts.facts, again, tuple(found.warnings))
    return Contents(files_of(facts, parts.tables, parts.pictures, **parts.texts), parts.lines, found.units)
