"""`onnxsub verify`."""

from __future__ import annotations

import functools
from dataclasses import replace

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, radius_option, radius_text, scale_option, target_option
from onnxsub.cli.options import Command, Request, anchor_options, check_tighten, limit_threads, typed, verifier_options
from onnxsub.cli.output import solver_row
from onnxsub.cli.points import POINT_FILES, check_writable, write_point
from onnxsub.cli.reading import read_model
from onnxsub.cli.verify_property import verify_property

__all__ = ["command"]

_CODES = {"proved": Exit.DONE, "violated": Exit.VIOLATED, "unknown": Exit.UNDECIDED}


@click.command("verify", cls=Command, epilog="Example: onnxsub verify model.onnx --x0 image.npy --eps 0.05 --timeout 60")
@radius_option(required=False)
@target_option
@scale_option
@verifier_options
@click.option("-o", "--out", "output", metavar="FILE", help="Write the witness: .npy, .npz or .png (8-bit, hence rounded).")
@click.option("--vnncomp", is_flag=True, help="With PROPERTY: print result and witness as VNN-COMP has them.")
@functools.partial(anchor_options, required=False)
@click.argument("prop", metavar="[PROPERTY.vnnlib]", required=False)
def command(
    request: Request, prop: str | None, eps: float | str | None, target: int | None, scale: str | None, verifier: str, solver: str,
    nodes: int | None, memory: float, tighten: str, vnncomp: bool, output: str | None,
) -> int:
    """Decide whether every input within the radius E of the anchor keeps its class, or whether a VNN-LIB property holds.

    Give --x0 and --eps, or a PROPERTY file.

    proved (exit code 0) comes only from a proof, violated (1) only from a witness that onnxruntime confirmed on MODEL; else
    unknown (3).
    """
    if prop is not None and (request.x0 or eps is not None or target is not None or scale is not None):
        raise click.UsageError("give either PROPERTY, or --x0 and --eps (and --target, --scale)")
    if prop is not None:
        for name in ("index", "array", "label", "domain", "mean", "std"):
            if typed(name):
                why = "a PROPERTY has boxes of its own, in the units that the model is fed"
                raise click.UsageError(f"--{name} belongs to --x0: {why}; leave it out")
    if prop is None and (not request.x0 or eps is None):
        raise click.UsageError("give --x0 and --eps, or a PROPERTY.vnnlib")
    if vnncomp and prop is None:
        raise click.UsageError("--vnncomp is for a PROPERTY.vnnlib")
    check_tighten(tighten, verifier)
    from onnxsub.verifiers.ascend import AttackPlan
    from onnxsub.verifiers.installed import check_engines
    from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
    from onnxsub.verifiers.verify import VerifyOptions, verify

    check_engines((verifier,), solver)
    limits = Limits(timeout=request.timeout, nodes=nodes, threads=request.threads, seed=request.seed)
    milp = MilpOptions(solver=solver, tighten=tighten)
    options = VerifyOptions(limits, milp, BabOptions.of_gib(memory, request.device), AttackPlan(device=request.device), verifier)
    if prop is not None:
        limit_threads(request.threads)
        model = read_model(request, sigmoids=True)
        return verify_property(model, prop, options, request.out, output=output, vnncomp=vnncomp)
    check_writable(output, POINT_FILES)
    radius, weights = ball_of(eps, scale)
    assert radius is not None
    query = request.query(target, weights)
    with request.out.progress() as report:
        result = verify(query, radius, options, progress=lambda lower, upper, text: report(0.0, text))
    witness = result.witness if result.witness is not None and result.witness.confirmed else None
    if output is not None:
        if witness is None and result.status == "unknown":
            request.out.note(f"there is no confirmed witness, so {output!r} was not written")
        elif witness is not None:
            write_point(output, witness.x, query.space)
            if output.lower().endswith(".png"):
                request.out.note(f"{output} is rounded to 8 bits and is not the confirmed point; .npy keeps that")
            witness = replace(witness, path=output)
            result = replace(result, witness=witness)
    rows = [
        ("anchor", request.anchor_line(query)), ("ball", radius_text(eps)), ("answer", result.status), ("reason", result.reason)
    ]
    if witness is not None:
        written = f", written to {output}" if witness.path else ""
        rows.append(
            ("witness", f"class {witness.label} at {witness.radius:.6g}, {witness.kind}, margin {witness.margin:.3g}{written}")
        )
    if result.original is not None:
        rows.append(("on the model", f"{result.original.kind}, margin {result.original.margin:.3g}"))
    rows.append(solver_row(result))
    rows.append(("time", f"{result.time_s['total']:.2f} s"))
    request.out.result(result, rows)
    if result.interrupted:
        request.out.note("interrupted: this is what was found so far")
        return Exit.INTERRUPTED
    return _CODES[result.status]
