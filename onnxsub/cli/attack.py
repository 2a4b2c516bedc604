"""`onnxsub attack`."""

from __future__ import annotations

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, scale_option, target_option
from onnxsub.cli.options import Command, Request, anchor_options
from onnxsub.cli.points import POINT_FILES, check_writable, write_point

__all__ = ["command"]


@click.command("attack", cls=Command, epilog="Example: onnxsub attack model.onnx --x0 image.npy -o x_adv.npy")
@click.option("--method", type=click.Choice(["auto", "pgd", "fgsm"]), default="auto", show_default=True, help="How to search.")
@click.option("-o", "--out", "output", metavar="FILE", help="Write the adversarial point: .npy, .npz or .png (8-bit, rounded).")
@target_option
@scale_option
@anchor_options
def command(request: Request, method: str, target: int | None, scale: str | None, output: str | None) -> int:
    """Find the nearest adversarial point: its radius d_adv is an upper bound of the distance to the decision boundary.

    The point is one that onnxruntime confirms on MODEL, strictly beyond the boundary; with --target, class K is ahead there of the
    class to defend.
    """
    check_writable(output, POINT_FILES)
    from onnxsub.passes.attack import Attacker, AttackOptions

    options = AttackOptions(
        method=method, seed=request.seed, timeout=request.timeout, device=request.device, threads=request.threads
    )
    budget = request.budget()
    query = request.query(target, ball_of(None, scale)[1])
    code = Exit.DONE
    with request.out.progress() as report:
        attacker = Attacker.of(query, options, budget=budget, progress=report)
        try:
            result = attacker.run()
        except KeyboardInterrupt:
            code, result = Exit.INTERRUPTED, attacker.result()
    if code is Exit.INTERRUPTED:
        request.out.note("interrupted: this is the best point so far")
    elif result.stage is not None:
        request.out.note(f"the time limit ended it in the stage {result.stage!r}: this is the best point so far")
    if output is not None:
        if result.x_adv is None:
            request.out.note(f"no adversarial point was found, so {output!r} was not written")
        else:
            write_point(output, result.x_adv, query.space)
    rows = [("anchor", request.anchor_line(query))]
    if result.found:
        rows += [
            ("d_adv", f"{result.d_adv:.6g}"),
            ("class there", f"{result.adversarial_label}  (margin {result.margin:.3g} under onnxruntime)"),
        ]
    else:
        rows.append(("d_adv", "no adversarial point found"))
    if output is not None and result.x_adv is not None:
        rows.append(("written", output))
    rows.append(("time", f"{result.time_s['total']:.2f} s"))
    request.out.result(result, rows)
    return code
