"""`onnxsub study regimes`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.errors import OptionError

__all__ = ["command"]


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise OptionError(f"--radii {value!r} is no list of numbers; give for example 0.05,0.1,0.2") from None


@click.command("regimes", cls=Command, epilog="Example: onnxsub study regimes --dataset fashion-mnist --run regimes")
@click.option("--dataset", metavar="NAME", help="mnist, fashion-mnist or cifar10: downloaded once; with --data any name.")
@click.option("--data", "files", multiple=True, metavar="FILE", help="Images from an .npz in place of a download; may be repeated.")
@click.option("--run", "folder", required=True, metavar="DIR", help="Folder of the study; the same command goes on in it.")
@click.option("--architectures", callback=_names, metavar="LIST", help="Decided is on the last one.  [default: fc100,fc30]")
@click.option("--regimes", callback=_names, metavar="LIST", help="[default: all but cr and confidence]")
@click.option("--decided", callback=_names, metavar="LIST", help="Regimes that are decided on.  [default: base,scr,sr,lr]")
@click.option("--recipe", metavar="NAME", help="Of zoo train.  [default: published]")
@click.option("--epochs", type=int, metavar="N", help="[default: the recipe's]")
@click.option("--seed", type=SeedType(), metavar="N", help="[default: 0]")
@click.option("--eps", type=float, metavar="EPS", help="Radius of the regimes and of what is decided.  [default: 0.1]")
@click.option("--radii", callback=_numbers, metavar="LIST", help="Of the attacks.  [default: 0.02,0.05,0.1,0.15,0.2,0.3]")
@click.option("--attacked", type=int, metavar="N", help="Test images that are attacked.  [default: 500]")
@click.option("--images", type=int, metavar="N", help="Test images that are decided.  [default: 200]")
@click.option("--timeout", type=float, metavar="S", help="Seconds for each decision.  [default: 20]")
@click.option("--marabou", metavar="PYTHON", help="Ask Marabou too, by an interpreter that has maraboupy.")
@click.option("--marabou-images", type=int, metavar="N", help="That many of --images.  [default: 200]")
@output_options
def command(dataset: str | None, files: tuple[str, ...], folder: str, out: Output, **given: Any) -> int:
    """Train a network by each regime, attack it over the radius, decide properties; tables and figures in the folder.

    A study that was interrupted goes on where it was when the same command is run again, and finds the same figures.
    """
    if dataset is None and not files:
        raise click.UsageError("no images: say which images: --dataset fashion-mnist, or --data FILE.npz")
    from onnxsub.study.regimes import RegimesOptions, study_regimes
    from onnxsub.study.regimes_report import tables, write_report
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import read_npz

    regimes = given["regimes"] or RegimesOptions.regimes
    for name in given["decided"] or ():
        if name not in regimes:
            raise click.UsageError(f"--decided {name} is not trained; add it to --regimes, or leave it out")
    options = replace(RegimesOptions(), **{key: value for key, value in given.items() if value is not None})
    name = dataset or Path(files[0]).stem
    with out.progress() as progress:
        data = read_npz(files, name) if files else load_dataset(name, progress=progress)
        found = study_regimes(data, options, Path(folder), progress=progress)
        written = write_report(found, Path(folder))
    rows = [("study", f"{len(found.networks)} networks on {found.data}"), ("written", ", ".join(map(str, written)))]
    accuracy, *others = tables(found)
    for table in others:
        rows.append((table.title.lower(), table.note))
    out.result(found, rows, [accuracy.heads, *accuracy.cells])
    if found.interrupted:
        out.note("interrupted: this is what was done so far; the same command goes on with it")
        return Exit.INTERRUPTED
    return Exit.DONE
