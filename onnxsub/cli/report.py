"""`onnxsub report`."""

from __future__ import annotations

from pathlib import Path

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output

__all__ = ["command"]


@click.command("report", cls=Command, epilog="Example: onnxsub report study --images 6")
@click.argument("run", metavar="RUN")
@click.option("-o", "--output", metavar="DIR", help="Folder of the report.  [default: RUN/report]")
@click.option("--images", type=int, default=4, show_default=True, metavar="N", help="Samples shown as images, per network.")
@click.option("--samples", metavar="LIST", help="Which ones, for example 0,5,10-12.  [default: spread over their distances]")
@click.option("--title", metavar="TEXT", help="Of the page.")
@output_options
def command(run: str, output: str | None, images: int, samples: str | None, title: str | None, out: Output) -> int:
    """Tables (Markdown, CSV, LaTeX), figures (SVG, PNG) and one self-contained page of a run folder, finished or not."""
    from onnxsub.evaluate.samples import parse_indices
    from onnxsub.report.report import ReportOptions, report

    options = ReportOptions(output, images, None if samples is None else parse_indices(samples), title)
    with out.progress() as progress:
        result = report(Path(run), options, progress=progress)
    figures = sum(name.endswith(".svg") for name in result.files)
    waiting = result.counts["pending"] + result.counts["running"]
    if waiting:
        out.note(f"the run is not finished: {waiting:,} units of work are still to be done")
    rows = [
        ("page", str(result.page)),
        ("tables", ", ".join(name for name in result.files if name.startswith("table."))),
        ("figures", f"{figures}, as SVG and PNG, in {result.folder / 'figures'}"),
        ("lines", f"{len(result.lines)} in the table"),
    ]
    out.result(result, rows)
    return Exit.DONE
