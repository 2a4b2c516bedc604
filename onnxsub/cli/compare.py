"""`onnxsub compare`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from onnxsub.cli.bounds import BOUND_METHODS
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, Request, anchor_options
from onnxsub.cli.points import check_writable
from onnxsub.cli.reading import read_other

if TYPE_CHECKING:
    from onnxsub.model import Model
    from onnxsub.passes.compare import CompareResult
    from onnxsub.query import Query

__all__ = ["command"]

_WORDS = {"yes": "yes, at a point that was tried", "no": "no: proved for the whole ball", "unknown": "not found, not excluded"}


@click.command("compare", cls=Command, epilog="Example: onnxsub compare model.onnx model.lin-0.99.onnx --x0 image.npy --eps 0.05")
@click.option("--eps", type=float, required=True, metavar="E", help="Radius of the ball, in un-normalised input units.")
@click.option(
    "--bounds", type=click.Choice(BOUND_METHODS), default="crown", show_default=True, help="Bounds of the certified figure."
)
@click.option("-o", "--out", "output", metavar="FILE", help="Write the question to other verifiers: VNN-LIB 2.0, .vnnlib.")
@click.option("--delta", type=float, metavar="D", help="With -o: do they differ by D or more?  [default: the certified figure]")
@click.option("--samples", type=int, default=1000, show_default=True, metavar="N", help="Random points.")
@anchor_options
@click.argument("other", metavar="OTHER")
def command(
    request: Request, other: str, eps: float, bounds: str, samples: int, output: str | None, delta: float | None
) -> int:
    """How far the logits of MODEL and OTHER differ on the ball of radius E around the anchor.

    Sampled and attacked figures are attained (lower bounds of the largest difference); the certified one is never exceeded. Where
    the time limit comes first, they are those of the points tried until then, and nothing is certified (exit code 3).
    """
    request.refuse_device("compare")
    check_writable(output, (".vnnlib",))
    if delta is not None and (output is None or not delta > 0):
        raise click.UsageError(f"--delta {delta:g} is for -o FILE.vnnlib, and a positive number; add that, or leave it out")
    from onnxsub.passes.compare import CompareOptions, compare

    options = CompareOptions(eps=eps, method=bounds, samples=samples, seed=request.seed)
    budget = request.budget()
    query = request.query()
    second = read_other(request, other)
    with request.out.progress() as report:
        report(0.0, "compare: samples, attack, certified bound")
        result = compare(query, second, options, budget=budget)
    if result.stage is not None:
        request.out.note(f"the time limit ended it in the stage {result.stage!r}: give more time (--timeout) for all figures")
    if output is not None and delta is None and not 0 < result.certified < math.inf:
        what = "it is certified that they do not differ at all" if result.certified == 0 else "nothing is certified"
        request.out.note(f"{what}, so {output!r} was not written; state a difference with --delta")
    elif output is not None:
        _write_question(query, second, result, result.certified if delta is None else delta, output)
        request.out.note(f"written to {output}: satisfiable where they differ by {delta or result.certified:g} or more")
    rows = [
        ("anchor", request.anchor_line(query)),
        ("ball", f"eps {eps:g}"),
        ("at the anchor", f"{result.at_x0:.4g}"),
        ("sampled", f"{result.sampled:.4g}"),
        ("attacked", f"{result.attacked:.4g}"),
        ("certified", f"{result.certified:.4g}  (never exceeded on the ball)" if math.isfinite(result.certified) else "nothing"),
        ("other class", f"at {result.disagreements:,} of {result.points:,} points tried"),
        ("classes differ", _WORDS[result.classes_differ]),
        ("time", f"{result.time_s['total']:.2f} s"),
    ]
    request.out.result(result, rows)
    return Exit.DONE if result.stage is None else Exit.UNDECIDED


def _write_question(query: Query, other: Model, result: CompareResult, delta: float, path: str) -> None:
    """The two-network question as VNN-LIB 2.0 text, in the units that the models are fed."""
    from onnxsub.files import write_atomic
    from onnxsub.properties import robustness_property
    from onnxsub.properties.two_networks import write_difference

    model = query.model
    box = robustness_property(query, result.options.eps).cases[0]
    comment = f"f: sha256 {model.sha256}\ng: sha256 {other.sha256}\nattained {result.attacked!r}, certified {result.certified!r}"
    text = write_difference(
        box.lower, box.upper, (1, *model.input_shape), (1, *model.output_shape), delta, comment=comment
    )
    write_atomic(path, text.encode())
