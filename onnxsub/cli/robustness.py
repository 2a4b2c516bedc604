"""`onnxsub robustness`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import classes_stated, data_options, feeding_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import Names, Numbers, SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.reading import stated
from onnxsub.cli.robustness_shown import grid_rows, grid_tables, single_rows
from onnxsub.cli.run_options import new_or_open, run_ended, run_options

if TYPE_CHECKING:
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.robustness.grid import GridPlan
    from onnxsub.evaluate.robustness.result import RobustnessResult

__all__ = ["command"]


@click.command(
    "robustness", cls=Command,
    epilog="Example: onnxsub robustness model.onnx --data mnist.npz --limit 250 --eps 0.1 --timeout 60 --run release",
)  # fmt: skip
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option(
    "--run", "folder", required=True, metavar="DIR",
    help="Folder of the run: begun, or gone on with. Without MODEL: as its run.toml says.",
)  # fmt: skip
@data_options()
@click.option(
    "--metric", type=Names(["satisfaction", "security", "accuracy", "pointwise", "global"]), metavar="NAME,..",
    help="What is measured: satisfaction, security, accuracy, pointwise, global.  [default: satisfaction]",
)  # fmt: skip
@click.option(
    "--property", "property_", type=Names(["cr", "sr", "scr", "lr", "confidence"]), metavar="NAME,..",
    help="What must hold on the ball: cr, sr, scr, lr, confidence.  [default: cr, the class does not change]",
)  # fmt: skip
@click.option("--eps", type=Numbers(), metavar="E,..", help="Radius of the ball round each sample, or several.")
@click.option(
    "--batch", type=int, metavar="N",
    help="Of security over several models or radii: samples attacked together.  [default: 100; 0: each by itself]",
)  # fmt: skip
@click.option("--delta", type=float, metavar="D", help="Of sr: the largest change of the logits.")
@click.option("--eta", type=float, metavar="P", help="Of scr: the smallest score of the true class.")
@click.option("--lipschitz", type=float, metavar="L", help="Of lr: the largest change of a logit per change of the input.")
@click.option("--gamma", type=float, metavar="G", help="Of confidence: the largest change of a score.")
@click.option("--norm", type=click.Choice(["inf", "1", "2"]), help="Of sr: norm of the change of the logits.  [default: inf]")
@click.option("--error", type=float, metavar="E", help="Of global: half the interval's width; decides how many samples are taken.")
@click.option("--confidence", type=float, metavar="C", help="Of the intervals.  [default: 0.95]")
@click.option("--sequential", is_flag=True, help="Of global: stop as soon as --error is reached.")
@click.option("--quantitative", is_flag=True, help="Of global: the mean of a value in place of the share that is robust.")
@click.option("--range", "value_range", nargs=2, type=float, metavar="A B", help="Of --quantitative: the value is cut to it.")
@click.option(
    "--approximate", type=click.Choice(["fgsm", "pgd"]),
    help="Of --quantitative: a bound on one side of the value by this attack; nothing is proved.",
)  # fmt: skip
@click.option("--attack", type=click.Choice(["fgsm", "pgd"]), help="Of security.  [default: the strongest, as for attack]")
@click.option(
    "--distances", type=click.Choice(["exact", "substitute", "attack", "region", "lbfgs"]),
    help="Of pointwise: how the distance of a sample is found.  [default: exact]",
)  # fmt: skip
@click.option("--via", metavar="METHOD:GAMMA", help="Of --distances substitute: which one.  [default: lin:0.99]")
@click.option("--draws", type=int, metavar="N", help="Of accuracy: uniform points per ball.  [default: 1000]")
@click.option("--verifier", metavar="NAME", help="As for distance.  [default: bab]")
@click.option("--solver", type=click.Choice(["highs", "gurobi", "scip"]), help="As for distance.  [default: highs]")
@click.option("--timeout", type=float, metavar="S", help="Seconds per sample.  [default: none]")
@click.option("--nodes", type=int, metavar="N", help="Nodes of the search per sample.  [default: none]")
@click.option("--output", metavar="NAME", help="Which output of a model is meant, where it has several.")
@click.option("--input-shape", metavar="N,N..", help="Lengths of the input, where a model leaves them open: 3,224,224.")
@click.option("--domain", nargs=2, type=float, metavar="LO HI", help="Valid input range.  [default: 0 1]")
@feeding_options
@click.option("--threads", type=int, metavar="N", help="Of one worker.  [default: 1]")
@click.option("--seed", type=SeedType(), metavar="N", help="Of everything random.  [default: 0]")
@run_options("Samples", "a sample")
@output_options
def command(
    models: tuple[str, ...],
    folder: str,
    how: RunOptions,
    out: Output,
    **experiment: Any,
) -> int:
    """Robustness of each MODEL over a data set: one number with its interval, and what is guaranteed.

    Several models, radii, properties or metrics make a grid in one run folder, and a table.

    The run is a folder. Kill it at any moment and give the same command again, or only --run: what is done is kept.
    """
    from onnxsub.evaluate.robustness.run import open_robustness, robustness

    plan = new_or_open(models, folder, experiment, _plan, open_robustness, how)
    if models:
        for note in plan.samples.notes:
            out.note(note)
    with out.progress() as report:
        result = robustness(plan, Path(folder), how, progress=report)
    shown = _Shown(result, out.verbose)
    if result.alone:
        out.result(shown, single_rows(plan, result))
    else:
        out.result(shown, grid_rows(plan, result), *grid_tables(result.cells))
    ended = run_ended(out, result.failures, result.interrupted, ", which count as undecided")
    if ended is not None:
        return ended
    return Exit.UNDECIDED if result.nothing_decided else Exit.DONE


class _Shown:
    """The result as it is printed: with the positions of the samples where the user wants to know more."""

    def __init__(self, result: RobustnessResult, indices: bool) -> None:
        self._result = result
        self._indices = indices

    def to_json(self) -> dict[str, Any]:
        return self._result.to_json(indices=self._indices)


def _plan(models: tuple[str, ...], given: Mapping[str, Any]) -> GridPlan:
    from onnxsub.evaluate.robustness.choose import choose
    from onnxsub.evaluate.robustness.grid import grid_of, plan_of
    from onnxsub.evaluate.robustness.settings import RobustnessSettings
    from onnxsub.evaluate.samples import Choice

    for option in ("data", "eps"):
        if given[option] is None:
            raise click.UsageError(f"a new run needs --{option}; give it, or only --run to go on with one")
    names = {f.name for f in fields(RobustnessSettings)} - {"metric", "prop", "eps"}
    shared = {k: v for k, v in given.items() if k in names}  # 0 is a value
    shape = stated(None, given["input_shape"]).input_shape
    shared |= {} if shape is None else {"input_shape": shape}
    metrics, props = given["metric"] or ("satisfaction",), given["property_"] or ("cr",)
    settings = grid_of(len(models), metrics, props, given["eps"], given["batch"], shared)
    choice = Choice(given["index"], 1 if given["every"] is None else given["every"], given["limit"])
    samples = choose(settings, given["data"], choice, given["array"], given["labels"], classes_stated(given))
    return plan_of(models, samples, settings)
