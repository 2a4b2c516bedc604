"""`onnxsub demo2d`."""

from __future__ import annotations

import math

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.errors import OptionError

__all__ = ["command"]


@click.command("demo2d", cls=Command, epilog="Example: onnxsub demo2d -o pictures")
@click.option("-o", "--output", default="demo2d", show_default=True, metavar="DIR", help="Folder of the pictures.")
@click.option("--methods", default="con,lin,act", show_default=True, metavar="LIST", help="Substitutes, by commas.")
@click.option("--gammas", default="0.5,0.75,0.95", show_default=True, metavar="LIST", help="Shares of units to prune, by commas.")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of data, training and attack.")
@output_options
def command(output: str, methods: str, gammas: str, seed: int, out: Output) -> int:
    """A small classifier of two inputs, its decision regions before and after pruning, and the substitutes of one unit."""
    try:
        shares = tuple(float(g) for g in gammas.split(",") if g.strip())
    except ValueError:
        raise OptionError(f"--gammas {gammas!r} is no list of numbers; give for example 0.5,0.95") from None
    from onnxsub.report.demo2d import Demo2dOptions, demo2d

    names = tuple(m.strip() for m in methods.split(",") if m.strip())
    with out.progress() as report:
        result = demo2d(Demo2dOptions(output, names, shares, seed), progress=report)
    own, *rest = result.planes
    rows = [
        ("classifier", f"2 inputs, {own.kept} ReLUs, right on {100 * result.accuracy:.1f} % of its points"),
        ("anchor", f"{result.anchor[0]:.4f}, {result.anchor[1]:.4f}"),
        ("distance", f"{own.upper:.6g}  (attack: {result.d_adv:.6g})"),
        ("written", ", ".join(f for f in result.files if not f.endswith(".png")) + f" and PNG, in {output}"),
    ]
    table: list[tuple[str, ...]] = [("substitute", "kept", "distance", "difference")]
    for p in rest:
        found = math.isfinite(p.upper)
        share = f"{100 * (p.upper / own.upper - 1):+.2f} %" if found and own.upper else "-"
        table.append((f"{p.method} {p.gamma:g}", str(p.kept), f"{p.upper:.6g}" if found else "none", share))
    out.result(result, rows, table)
    return Exit.DONE
