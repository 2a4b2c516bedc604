"""`onnxsub bounds`."""

from __future__ import annotations

from pathlib import Path

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, radius_option, radius_text, scale_option
from onnxsub.cli.options import Command, Request, anchor_options
from onnxsub.cli.points import check_writable

__all__ = ["BOUND_METHODS", "command"]

BOUND_METHODS = ("ibp", "fastlin", "fastlin-ibp", "crown", "alpha-crown")


@click.command("bounds", cls=Command, epilog="Example: onnxsub bounds model.onnx --x0 image.npy --eps 0.05 --method crown")
@radius_option(required=True)
@scale_option
@click.option("--method", type=click.Choice(BOUND_METHODS), default="crown", show_default=True, help="How to bound.")
@click.option("-o", "--out", "output", metavar="FILE", help="Write the annotated .onnx, and all arrays to an .npz of that name.")
@anchor_options
def command(request: Request, eps: float | str, scale: str | None, method: str, output: str | None) -> int:
    """Bound the input of every activation on the ball of radius E around the anchor, clipped to the domain.

    Bounds are all or nothing: at the time limit the command ends with exit code 3 and no result.
    """
    check_writable(output, (".onnx",))
    if output is not None:
        check_writable(str(Path(output).with_suffix(".npz")), (".npz",))
    request.refuse_device("bounds")
    from onnxsub.budget import OutOfTime
    from onnxsub.passes.bounds import BoundsOptions, bounds

    radius, weights = ball_of(eps, scale)
    assert radius is not None
    options = BoundsOptions(eps=radius, method=method)
    budget = request.budget()
    with budget.stage("read"):
        query = request.query(scale=weights)
    try:
        with request.out.progress() as report, budget.stage("bounds"):
            report(0.0, f"bounds: {method}")
            result = bounds(query, options, budget=budget)
    except OutOfTime:
        request.out.stopped(f"bounds stopped: {budget.why}; nothing is known, since bounds are all or nothing")
        return Exit.UNDECIDED
    ball = f"{radius_text(eps)}, {method}"
    rows = [("anchor", request.anchor_line(query)), ("ball", ball), ("time", f"{result.time_s['total']:.2f} s")]
    if output is not None:
        from onnxsub.passes.annotate import save_annotated

        rows.append(("written", f"{output}, {save_annotated(query.model, result, output)}"))
    table: list[tuple[str, ...]] = [("layer", "units", "on", "off", "unstable", "width min", "mean", "max")]
    for layer in result.layers:
        keys = layer.to_json()
        widths = [f"{keys[k]:.4g}" for k in ("width_min", "width_mean", "width_max")]
        table.append((layer.name, *[f"{keys[k]:,}" for k in ("units", "stable_on", "stable_off", "unstable")], *widths))
    request.out.result(result, rows, table)
    return Exit.DONE
