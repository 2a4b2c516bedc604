"""`onnxsub verify`."""

from __future__ import annotations

from dataclasses import replace

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, Request, anchor_options, verifier_options
from onnxsub.cli.points import POINT_FILES, check_writable, write_point

__all__ = ["command"]

_CODES = {"proved": Exit.DONE, "violated": Exit.VIOLATED, "unknown": Exit.UNDECIDED}


@click.command("verify", cls=Command, epilog="Example: onnxsub verify model.onnx --x0 image.npy --eps 0.05 --timeout 60")
@click.option("--eps", type=float, required=True, metavar="E", help="Radius of the ball, in un-normalised input units.")
@verifier_options
@click.option("-o", "--output", metavar="FILE", help="Write the witness: .npy, .npz or .png (8-bit, hence rounded).")
@anchor_options
def command(request: Request, eps: float, verifier: str, solver: str, output: str | None) -> int:
    """Decide whether every input within the radius E of the anchor keeps its class.

    proved (exit code 0) comes only from a proof, violated (1) only from a witness that onnxruntime confirmed on MODEL; else
    unknown (3).
    """
    check_writable(output, POINT_FILES)
    request.refuse_device("verify")
    from onnxsub.verifiers.milp.options import MilpOptions
    from onnxsub.verifiers.verify import VerifyOptions, verify

    options = VerifyOptions(
        milp=MilpOptions(solver=solver, timeout=request.timeout, threads=request.threads, seed=request.seed),
        verifier=verifier,
    )
    query = request.query()
    with request.out.progress() as report:
        result = verify(query, eps, options, progress=lambda lower, upper, text: report(0.0, text))
    witness = result.witness if result.witness is not None and result.witness.confirmed else None
    if output is not None:
        if witness is None and result.status == "unknown":
            request.out.note(f"there is no confirmed witness, so {output!r} was not written")
        elif witness is not None:
            write_point(output, witness.x, query.space)
            witness = replace(witness, path=output)
            result = replace(result, witness=witness)
    rows = [("anchor", request.anchor_line(query)), ("ball", f"eps {eps:g}"), ("answer", result.status), ("reason", result.reason)]
    if witness is not None:
        written = f", written to {output}" if witness.path else ""
        rows.append(
            ("witness", f"class {witness.label} at {witness.radius:.6g}, {witness.kind}, margin {witness.margin:.3g}{written}")
        )
    rows.append(("solver", f"{result.solver}, {result.nodes:,} nodes in {result.runs} runs"))
    rows.append(("time", f"{result.time_s['total']:.2f} s"))
    request.out.result(result, rows)
    if result.interrupted:
        request.out.note("interrupted: this is what was found so far")
        return Exit.INTERRUPTED
    return _CODES[result.status]
