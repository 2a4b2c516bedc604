"""`onnxsub study tradeoff`."""

from __future__ import annotations

from pathlib import Path

import click

from onnxsub.cli.engine_options import engine_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.errors import OptionError

__all__ = ["command"]


def _part(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    i, _, n = value.partition("/")
    try:
        return int(i), int(n)
    except ValueError:
        raise OptionError(f"--part {value!r} is none; give for example 1/8 to 8/8") from None


@click.command("tradeoff", cls=Command, epilog="Example: onnxsub study tradeoff --grid grid.toml --dataset mnist --run tradeoff")
@click.option("--grid", required=True, metavar="FILE", help="Networks, and what is asked of them (TOML).")
@click.option("--dataset", metavar="NAME", help="mnist, fashion-mnist or cifar10: downloaded once; with --data any name.")
@click.option("--data", "files", multiple=True, metavar="FILE", help="Images from an .npz in place of a download; may be repeated.")
@click.option("--run", "folder", required=True, metavar="DIR", help="Folder of the study; the same command goes on in it.")
@click.option("--part", callback=_part, metavar="I/N", help="Only make every N-th network from the I-th on; then run it without.")
@engine_options("Attacks")
@output_options
def command(
    grid: str, dataset: str | None, files: tuple[str, ...], folder: str, part: tuple[int, int] | None, jobs: int, engine: str,
    address: str | None, out: Output,
) -> int:  # fmt: skip
    """Train, prune and sample the networks of a grid, attack them, and set accuracy against robustness.

    A study that was interrupted goes on where it was when the same command is run again, and finds the same figures.
    """
    if dataset is None and not files:
        raise click.UsageError("no images: say which images: --dataset mnist, or --data FILE.npz")
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.study.tradeoff import prepare, study_tradeoff
    from onnxsub.study.tradeoff_grid import read_grid
    from onnxsub.study.tradeoff_report import tables, write_report
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import read_npz

    options, asked = RunOptions(jobs=jobs, engine=engine, address=address), read_grid(grid)
    with out.progress() as progress:
        name = dataset or Path(files[0]).stem
        data = read_npz(files, name) if files else load_dataset(name, progress=progress)
        if part is not None:
            made = prepare(data, asked, Path(folder), part=part, progress=progress)
            out.note(f"{len(made)} of {len(asked.members)} networks are made; without --part the same command goes on")
            return Exit.DONE
        found = study_tradeoff(data, asked, Path(folder), options, progress=progress)
        written = write_report(found, Path(folder))
    rows = [
        ("study", f"{len(found.networks)} networks on {found.data}, {found.images} test images attacked at radius {asked.eps:g}"),
        ("written", ", ".join(map(str, written))),
    ]
    if found.diverged:
        out.note(f"{len(found.diverged)} trainings diverged, and have no figures: {', '.join(found.diverged)}")
    first = tables(found)[0]
    out.result(found, rows, [first.heads, *first.cells])
    return Exit.DONE
