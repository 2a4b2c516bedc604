"""`onnxsub distance`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, scale_option, target_option
from onnxsub.cli.options import Command, Request, anchor_options, check_tighten, typed, verifier_options
from onnxsub.cli.output import solver_row
from onnxsub.cli.points import POINT_FILES, check_writable, write_point
from onnxsub.cli.prune import RANKS
from onnxsub.errors import InputError, OptionError

if TYPE_CHECKING:
    from onnxsub.pruning.prune import PruneOptions
    from onnxsub.verifiers.distance import DistanceResult

__all__ = ["command"]


@click.command("distance", cls=Command, epilog="Example: onnxsub distance model.onnx --x0 image.npy --via lin:0.99")
@click.option("--via", metavar="METHOD:GAMMA", help="Measure on the substitute con, lin or act, for example lin:0.99.")
@click.option("--keep", type=int, metavar="K", help="Number of units that it keeps, in place of GAMMA (--via lin --keep 16).")
@click.option("--rank", type=click.Choice(RANKS), default="influence", show_default=True, help="Which units it keeps.")
@click.option("--refine", is_flag=True, help="Re-anchor the substitute at the better point that it leads to, and repeat.")
@click.option("--certify", type=float, metavar="S", help="Then search the model itself for S seconds: raises its certified end.")
@verifier_options
@click.option("--search", type=click.Choice(["direct", "bisect"]), default="direct", show_default=True, help="How it searches.")
@click.option("--tol", type=float, default=1e-6, show_default=True, metavar="T", help="exact: upper - lower <= T.")
@target_option
@scale_option
@click.option("-o", "--out", "output", metavar="FILE", help="Write the witness: .npy, .npz or .png (8-bit, hence rounded).")
@anchor_options
def command(
    request: Request,
    via: str | None,
    keep: int | None,
    rank: str,
    refine: bool,
    certify: float | None,
    verifier: str,
    solver: str,
    nodes: int | None,
    memory: float,
    tighten: str,
    search: str,
    tol: float,
    target: int | None,
    scale: str | None,
    output: str | None,
) -> int:
    """The distance from the anchor to the decision boundary of MODEL, or of its local substitute with --via.

    The answer is a bracket, lower <= distance <= upper, at every moment: a time limit or Ctrl-C ends it with what is proved.
    """
    check_tighten(tighten, verifier)
    if search != "direct" and verifier != "milp":
        raise click.UsageError(f"--search {search} is of --verifier milp; leave it out for {verifier}")
    if via is None and typed("rank"):
        raise click.UsageError("--rank says which units a substitute keeps; say which one with --via lin:0.99")
    check_writable(output, POINT_FILES)
    from onnxsub.passes.attack import AttackOptions
    from onnxsub.verifiers.distance import DistanceOptions, distance
    from onnxsub.verifiers.installed import check_engines
    from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions

    check_engines((verifier,), solver)
    options = DistanceOptions(
        limits=Limits(timeout=request.timeout, nodes=nodes, threads=request.threads, seed=request.seed, tol=tol),
        milp=MilpOptions(solver=solver, search=search, tighten=tighten),
        via=substitute_of(via, keep, rank),
        attack=AttackOptions(seed=request.seed, device=request.device, threads=request.threads),
        verifier=verifier,
        bab=BabOptions.of_gib(memory, request.device),
        refine=refine,
        certify=certify,
    )
    query = request.query(target, ball_of(None, scale)[1])
    with request.out.progress() as report:
        reach = query.space.reach(query.x0)

        def told(lower: float, upper: float, text: str) -> None:
            report(_share(lower, upper, reach), text, f"[{lower:.4g}, {upper:.4g}]")

        result = distance(query, options, progress=told)
    if output is not None:
        if result.witness is None or not result.witness.confirmed:
            request.out.note(f"there is no confirmed witness, so {output!r} was not written")
        else:
            write_point(output, result.witness.x, query.space)
            if output.lower().endswith(".png"):
                request.out.note(f"{output} is rounded to 8 bits and is not the confirmed point; .npy keeps that")
            result = replace(result, witness=replace(result.witness, path=output))
    request.out.result(result, _rows(request.anchor_line(query), result, output, tol), _targets(result))
    if result.interrupted:
        request.out.note("interrupted: this is what was proved so far")
        return Exit.INTERRUPTED
    return Exit.UNDECIDED if result.status == "bracket" else Exit.DONE


def substitute_of(via: str | None, keep: int | None, rank: str) -> PruneOptions | None:
    """`METHOD:GAMMA`, or `METHOD` and the number of units kept, as options of the pass `prune`.

    Raises:
        InputError: not of that form, or both GAMMA and `keep`.
    """
    if via is None:
        if keep is not None:
            raise OptionError("--keep says how many units a substitute keeps; say which one with --via lin")
        return None
    from onnxsub.passes.select import SelectOptions
    from onnxsub.pruning.prune import PruneOptions

    method, colon, share = via.partition(":")
    if bool(colon) == (keep is not None):
        raise OptionError(f"--via {via!r} must say how much is pruned, once: --via lin:0.99, or --via lin --keep 16")
    try:
        gamma = float(share) if colon else None
    except ValueError:
        raise OptionError(f"--via {via!r} is not METHOD:GAMMA; give for example lin:0.99") from None
    try:
        return PruneOptions(method=method, select=SelectOptions(gamma=gamma, keep=keep, rank=rank))
    except InputError as error:
        raise OptionError(f"--via {via!r}: {error}") from error


def _share(lower: float, upper: float, reach: float) -> float:
    """How far a bracket is: 1 when it is closed."""
    top = min(upper, reach)
    return max(0.0, min(1.0, lower / top)) if math.isfinite(lower) and top > 0 else 0.0


def _rows(anchor: str, result: DistanceResult, output: str | None, tol: float) -> list[tuple[str, str]]:
    what = "distance" if result.substitute is None else "of the substitute"
    rows = [("anchor", anchor)]
    if result.substitute is not None:
        s = result.substitute
        kept = " + ".join(map(str, s["kept_per_layer"]))
        rows.append(("substitute", f"{s['method']}, {s['units_pruned']:,} of {s['units_total']:,} units pruned, kept {kept}"))
        if s["refinements"]:
            rows.append(("refined", f"{s['refinements']} times"))
    if result.status == "none":
        rows.append((what, "no decision boundary inside the domain (proved)"))
    elif result.status == "misclassified":
        rows.append((what, "0: the anchor is beyond the boundary to begin with"))
    elif result.status == "exact":
        rows.append((what, f"{result.upper:.6g}  (exact: proved lower end {result.lower:.6g})"))
    else:
        rows.append((what, f"between {result.lower:.6g} and {result.upper:.6g}"))
    if result.witness is not None:
        w = result.witness
        rows.append(("witness", f"class {w.label}, {w.kind}, margin {w.margin:.3g}" + (f", written to {output}" if w.path else "")))
    if result.original is not None:
        o = result.original
        if o.exact and result.status == "exact":
            rows.append(("of the model", f"{o.upper:.6g}  (exact: no pruned unit can leave its piece on that ball)"))
        elif o.upper - o.lower <= tol:
            rows.append(("of the model", f"{o.upper:.6g}  (exact: proved lower end {o.lower:.6g})"))
        else:
            rows.append(("of the model", f"between {o.lower:.6g} (certified) and {o.upper:.6g} (a confirmed point)"))
    if result.reason is not None:
        rows.append(("note", result.reason))
    rows.append(solver_row(result))
    rows.append(("time", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result.time_s.items())))
    return rows


def _targets(result: DistanceResult) -> list[tuple[str, ...]]:
    if not result.targets:
        return []
    table: list[tuple[str, ...]] = [("class", "lower", "upper", "status")]
    table += [(str(t), f"{r.lower:.6g}", f"{r.upper:.6g}", r.status) for t, r in sorted(result.targets.items())]
    return table
