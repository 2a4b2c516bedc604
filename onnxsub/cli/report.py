"""`onnxsub report`."""

from __future__ import annotations

from pathlib import Path

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import Numbers
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output

__all__ = ["command"]


@click.command("report", cls=Command, epilog="Example: onnxsub report study --images 6")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="DIR", help="Folder of the report.  [default: RUN/report; of several runs: comparison]")
@click.option("--images", type=int, metavar="N", help="Samples shown as images, per network.  [default: 4]")
@click.option("--samples", metavar="LIST", help="Which ones, for example 0,5,10-12.  [default: spread over their distances]")
@click.option("--title", metavar="TEXT", help="Of the page.")
@click.option(
    "--reference", metavar="FILE.csv", help="Values beside the distances: sample, value.  [default: those of evaluate --reference]"
)
@click.option(
    "--group", metavar="FIELD,..",
    help="Of a grid of robustness: box plots by depth, width, parameters, sparsity, epochs, training, or a field of the cards.",
)  # fmt: skip
@click.option(
    "--tolerances", type=Numbers(), metavar="E,..",
    help="Of robustness: at which repeated estimates are shown.  [default: 0.2,0.1,0.05,0.02]",
)
@click.option("--compare", metavar="A,B", help="Of a grid of robustness: two networks, sample by sample.")
@output_options
def command(
    runs: tuple[str, ...], output: str | None, images: int | None, samples: str | None, title: str | None, reference: str | None,
    group: str | None, tolerances: tuple[float, ...] | None, compare: str | None, out: Output,
) -> int:
    """Tables (Markdown, CSV, LaTeX), figures (SVG, PNG) and one self-contained page of a run folder, finished or not.

    Of several runs of one command: one page with all of them side by side.
    """
    from onnxsub.evaluate.samples import parse_indices
    from onnxsub.report.report import ReportOptions, report, report_joined

    fields, pair = ((None if text is None else tuple(map(str.strip, text.split(",")))) for text in (group, compare))
    chosen = None if samples is None else parse_indices(samples)
    options = ReportOptions(output, images, chosen, title, reference, fields or (), pair, tolerances)
    with out.progress() as progress:
        if len(runs) == 1:
            result = report(Path(runs[0]), options, progress=progress)
        else:
            result = report_joined(tuple(map(Path, runs)), options, progress=progress)
    figures = sum(name.endswith(".svg") for name in result.files)
    waiting = result.counts["pending"] + result.counts["running"]
    if waiting:
        which = "the run is not" if len(runs) == 1 else "not every run is"
        out.note(f"{which} finished: {waiting:,} units of work are still to be done")
    rows = [
        ("page", str(result.page)),
        ("tables", ", ".join(name for name in result.files if "/" not in name and name != "index.html")),
        ("figures", f"{figures}, as SVG and PNG, in {result.folder / 'figures'}"),
        ("lines", f"{len(result.lines)} in the table"),
    ]
    out.result(result, rows)
    return Exit.DONE
