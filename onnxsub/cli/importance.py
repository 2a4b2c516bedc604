"""`onnxsub importance`."""

from __future__ import annotations

from typing import Any

import click

from onnxsub.cli.data_options import data_options, feeding_options, read_data
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options, positive
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable

__all__ = ["command"]


@click.command(
    "importance", cls=Command, epilog="Example: onnxsub importance model.onnx --data mnist.npz --images 10 -o scored.onnx",
)  # fmt: skip
@click.argument("model", metavar="MODEL")
@data_options(required=True)
@click.option("--images", type=int, default=10, show_default=True, metavar="N", help="The first N of the chosen samples.")
@click.option(
    "--binaries", type=click.Choice(["relaxed", "exact"]), default="exact", show_default=True, help="0 or 1, or fractions."
)
@click.option("--weight", type=float, default=5.0, show_default=True, metavar="W", help="Of the loss against units that stay.")
@click.option("--radius", type=float, default=1e-3, show_default=True, metavar="R", help="Of the interval for bounds.")
@click.option("--gap", type=float, default=1e-3, show_default=True, metavar="G", help="optimal: bound and value are this near.")
@click.option("--solver", type=click.Choice(["highs", "gurobi", "scip"]), default="highs", show_default=True, help="Who solves.")
@click.option("--most", type=int, default=20_000, show_default=True, metavar="N", help="Binaries that are still tried.")
@click.option("--domain", nargs=2, type=float, default=(0.0, 1.0), metavar="LO HI", show_default=True, help="Valid input range.")
@feeding_options
@click.option("--timeout", type=float, metavar="S", help="Seconds after which the best scores so far are given.  [default: none]")
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Of the solver.")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of the solver.")
@click.option("-o", "--output", metavar="FILE.onnx", help="Write the model with its scores as metadata.")
@output_options
def command(model: str, images: int, output: str | None, out: Output, **given: Any) -> int:
    """Score every unit (every channel of a convolution) between 0 and 1 by one mixed-integer program over a few images.

    Units that score below 0.001 can go: onnxsub compress. Exit code 3: the time limit came before the optimum.
    """
    check_writable(output, (".onnx",))
    if given["timeout"] is not None:
        positive(given["timeout"], "--timeout")
    import numpy as np

    from onnxsub.budget import Budget
    from onnxsub.compress.importance import annotated, importance
    from onnxsub.compress.options import THRESHOLD, ImportanceOptions
    from onnxsub.evaluate.samples import Choice, anchor_of
    from onnxsub.model import load_model, save_model
    from onnxsub.region import InputSpace

    keys = ("weight", "binaries", "solver", "radius", "gap", "threads", "seed")
    options = ImportanceOptions(**{k: given[k] for k in keys}, limit=given["most"])
    every = 1 if given["every"] is None else given["every"]
    limit = None if given["index"] else images if given["limit"] is None else min(images, given["limit"])
    samples = read_data(given, Choice(given["index"], every, limit))
    for note in samples.notes:
        out.note(note)
    loaded = load_model(model)
    low, high = given["domain"]
    space = InputSpace(low, high, given["mean"], given["std"])
    shape = loaded.input_shape
    x = np.stack([anchor_of(row, shape, space.interval, f"sample {i}") for i, row in zip(samples.index, samples.x, strict=True)])
    x = space.normalise(x)
    labels = _predicted(loaded, x) if samples.y is None else samples.y
    data = {"source": samples.source, "sha256": samples.sha256, "array": samples.array, "samples": list(samples.index)}
    with out.progress() as report:
        result = importance(loaded, x, labels, options, data=data, budget=Budget(given["timeout"]), progress=report)
    rows = [
        ("images", f"{len(x)} of {samples.source}"),
        ("program", f"{result.size['binaries']:,} binaries, {result.size['columns']:,} columns, {result.size['rows']:,} rows"),
        ("solver", f"{options.solver}, {result.status}, {len(result.rounds)} rounds of tangents"),
        ("objective", f"{result.value:.5g}, not below {result.bound:.5g}"),
        ("time", f"{result.time_s['total']:.1f} s"),
    ]
    if output is not None:
        save_model(annotated(loaded, result), output)
        rows.append(("written", output))
    table: list[tuple[str, ...]] = [("layer", "scores", f"below {THRESHOLD:g}", "mean", "at 1")]
    for layer in result.layers:
        s = layer.scores
        below = str(len(layer.below(THRESHOLD)))
        table.append((layer.name, f"{len(s)} {layer.kind}s", below, f"{s.mean():.3f}", str(int((s > 1 - 1e-6).sum()))))
    out.result(result, rows, table)
    return Exit.DONE if result.status == "optimal" else Exit.UNDECIDED


def _predicted(model: Any, x: Any) -> Any:
    from onnxsub.query import two_classes
    from onnxsub.runtime import Runtime

    return two_classes(Runtime(model).logits(x)).argmax(axis=1)
