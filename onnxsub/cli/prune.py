"""`onnxsub prune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.bounds import BOUND_METHODS
from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, scale_option, target_option
from onnxsub.cli.options import Command, Request, anchor_options
from onnxsub.cli.points import check_writable

__all__ = ["GAMMA", "LAYOUTS", "RANKERS", "RANKS", "SUBSTITUTES", "command"]

SUBSTITUTES = ("con", "lin", "act")
RANKS = ("width", "influence")
LAYOUTS = ("inplace", "compact", "chain")
EXACT_ON = ("domain", "ball", "auto")
RANKERS = ("auto", "estimate", *BOUND_METHODS)
GAMMA = 0.99


@click.command("prune", cls=Command, epilog="Example: onnxsub prune model.onnx --x0 image.npy --method lin --gamma 0.99")
@click.option(
    "--method", type=click.Choice(SUBSTITUTES), default="lin", show_default=True, help="What a pruned unit becomes: "
    "its value at the anchor, the line through anchor and adversarial point, or its piece at the anchor.",
)  # fmt: skip
@click.option("--gamma", type=float, metavar="G", help=f"Share of all units to prune, 0 to 1.  [default: {GAMMA}]")
@click.option("--keep", type=int, metavar="K", help="Number of units to keep, in place of --gamma.")
@click.option("--rank", type=click.Choice(RANKS), default="influence", show_default=True, help="Which units go first.")
@click.option(
    "--gamma0", type=float, default=0.3, show_default=True, metavar="H", help="Share of the remaining units that one round prunes."
)
@click.option("--eps", type=float, metavar="E", help="Radius of the ball whose bounds rank the units.  [default: d_adv]")
@click.option(
    "--bounds", type=click.Choice(RANKERS), default="auto", show_default=True,
    help="Bounds that rank the units; auto: fastlin-ibp, and estimate (no bounds) in networks of more than 20,000 units.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="The original graph (inplace), folded (compact), or folded to Gemm and Relu only (chain).  "
    "[default: chain, or compact where smooth units are kept]",
)
@click.option(
    "--exact-on", type=click.Choice(EXACT_ON), default="auto", show_default=True, help="Layout chain: where it equals the "
    "substitute. auto: the ball of radius --eps where MaxPool would make the file ten times the model, else the domain.",
)  # fmt: skip
@click.option("--flat-input", is_flag=True, help="Layout chain: the file takes rows (1, n) and has no Flatten.")
@click.option(
    "--best-effort", is_flag=True, help="At the time limit write what whole rounds have pruned by then, in place of nothing."
)
@target_option
@scale_option
@click.option("-o", "--out", "output", metavar="FILE", help="The substitute.  [default: MODEL.METHOD-GAMMA.onnx, right here]")
@anchor_options
def command(
    request: Request,
    method: str,
    gamma: float | None,
    keep: int | None,
    rank: str,
    gamma0: float,
    eps: float | None,
    bounds: str,
    layout: str | None,
    exact_on: str,
    flat_input: bool,
    best_effort: bool,
    target: int | None,
    scale: str | None,
    output: str | None,
) -> int:
    """Write the local substitute of MODEL at the anchor: the same function there, almost all of its units affine.

    An attack finds the nearest adversarial point; bounds on the ball of its radius say which units matter least. A command that the
    time limit ends writes nothing (exit code 3), unless --best-effort is given.
    """
    if gamma is None and keep is None:
        gamma = GAMMA
    if output is None:
        amount = f"keep{keep}" if gamma is None else f"{gamma:g}"
        output = f"{Path(request.model).stem}.{method}-{amount}.onnx"
    check_writable(output, (".onnx",))
    from onnxsub.budget import OutOfTime
    from onnxsub.model import save_model
    from onnxsub.passes.attack import AttackOptions
    from onnxsub.passes.select import SelectOptions
    from onnxsub.pruning.prune import PruneOptions, prune

    options = PruneOptions(
        method=method,
        select=SelectOptions(gamma=gamma, keep=keep, gamma0=gamma0, rank=rank, bounds=bounds),
        layout=layout,
        exact_on=exact_on,
        flat_input=flat_input,
        eps=eps,
        attack=AttackOptions(seed=request.seed, timeout=request.timeout, device=request.device, threads=request.threads),
        best_effort=best_effort,
    )
    budget = request.budget()
    with budget.stage("read"):
        query = request.query(target, ball_of(None, scale)[1])
    try:
        with request.out.progress() as report:
            result = prune(query, options, budget=budget, progress=report)
    except OutOfTime:
        first = ", since no round of the selection was complete" if best_effort and budget.cut in ("attack", "select") else ""
        request.out.stopped(f"prune stopped: {budget.why}; nothing was written{first}")
        return Exit.UNDECIDED
    save_model(result.proto, output)
    result = replace(result, output=output)

    keys = result.to_json()
    pruned, total = keys["units_pruned"], keys["units_total"]
    estimated = " on estimated widths" if keys["settings"]["bounds"] == "estimate" else ""
    errors = {"x0": "anchor", "x_adv": "adversarial point"}
    rows = [
        ("anchor", request.anchor_line(query)),
        ("d_adv", f"{keys['d_adv']:.6g}" if result.substitute.x_adv is not None else "no adversarial point found"),
        ("pruned", f"{pruned:,} of {total:,} {_kinds(keys)}, {method}, ranked by {rank}{estimated} in {keys['rounds']} rounds"),
        ("kept", " + ".join(map(str, keys["kept_per_layer"])) + f" = {total - pruned}"),
        ("preserves", ", ".join(f"|g - f| {error:.2g} at the {errors[point]}" for point, error in keys["preserves"].items())),
        ("written", f"{output}  (layout {result.layout}, {Path(output).stat().st_size / 1024:.1f} kB)"),
        ("time", f"{keys['time_s']['total']:.2f} s"),
    ]
    request.out.result(result, rows)
    for note in result.notes:
        request.out.note(note)
    if not result.complete:
        rest = f"{pruned:,} of {total:,} units are pruned after {keys['rounds']} whole rounds, fewer than was asked for"
        request.out.note(f"the time limit ended the selection: {rest}; give more time (--timeout)")
    elif result.stage is not None:
        request.out.note(f"the time did not suffice for a layout that every verifier reads: {result.layout} was written")
    return Exit.DONE


def _kinds(keys: dict[str, Any]) -> str:
    """`units`, or what of the total are windows."""
    return f"units and windows ({keys['windows_total']:,} windows)" if keys["windows_total"] else "units"
