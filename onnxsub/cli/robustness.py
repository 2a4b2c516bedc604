"""`onnxsub robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import DATA, classes_stated, data_options, feeding_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import Names, Numbers
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.reading import stated
from onnxsub.cli.robustness_grid import is_grid, refuse_typed, run_grid

if TYPE_CHECKING:
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.robustness.result import RobustnessResult
    from onnxsub.evaluate.robustness.settings import RobustnessSettings

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
    "--distances", type=click.Choice(["exact", "substitute", "attack", "region"]),
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
@click.option("--seed", type=int, metavar="N", help="Of everything random.  [default: 0]")
@click.option("--jobs", type=int, default=1, show_default=True, metavar="N", help="Samples side by side.")
@click.option("--engine", type=click.Choice(["processes", "ray"]), default="processes", show_default=True, help="Who does them.")
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster.  [default: a local one]")
@click.option("--kill-after", type=float, metavar="S", help="Hard limit of a sample.  [default: 2 x --timeout + 60]")
@click.option("--retry-failed", is_flag=True, help="Do samples again that had failed or were altered.")
@click.option("--allow-commands", is_flag=True, help="The folder's run.toml may name programs to start: it is your own.")
@output_options
def command(
    models: tuple[str, ...],
    folder: str,
    jobs: int,
    engine: str,
    address: str | None,
    kill_after: float | None,
    retry_failed: bool,
    allow_commands: bool,
    out: Output,
    **experiment: Any,
) -> int:
    """Robustness of each MODEL over a data set: one number with its interval, and what is guaranteed.

    Several models, radii, properties or metrics make a grid in one run folder, and a table.

    The run is a folder. Kill it at any moment and give the same command again, or only --run: what is done is kept.
    """
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.robustness.run import open_robustness, robustness

    options = RunOptions(jobs, engine, address, kill_after, retry_failed, allow_commands)
    if is_grid(models, experiment, Path(folder)):
        return run_grid(models, Path(folder), options, experiment, out)
    if models:
        plan = _plan(models[0], experiment)
        for note in plan.samples.notes:
            out.note(note)
    else:
        refuse_typed(experiment, folder)
        plan = open_robustness(Path(folder), allow_commands=allow_commands)
    with out.progress() as report:
        result = robustness(plan, Path(folder), options, progress=report)
    out.result(_Shown(result, out.verbose), _rows(plan, result))
    for reason, count in result.failures.items():
        out.note(f"{count} failed, which count as undecided: {reason}")
    if result.interrupted:
        out.note("interrupted; the same command goes on with the run")
        return Exit.INTERRUPTED
    return Exit.UNDECIDED if result.nothing_decided else Exit.DONE


class _Shown:
    """The result as it is printed: with the positions of the samples where the user wants to know more."""

    def __init__(self, result: RobustnessResult, indices: bool) -> None:
        self._result = result
        self._indices = indices

    def to_json(self) -> dict[str, Any]:
        return self._result.to_json(indices=self._indices)


def _plan(model: str, given: dict[str, Any]) -> Plan[RobustnessSettings]:
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.robustness.choose import choose
    from onnxsub.evaluate.robustness.settings import RobustnessSettings
    from onnxsub.evaluate.samples import Choice

    for option in ("data", "eps"):
        if given[option] is None:
            raise click.UsageError(f"a new run needs --{option}; give it, or only --run to go on with one")
    values: dict[str, Any] = {k: v for k, v in given.items() if k not in (*DATA, "property_", "metric", "eps", "batch")}
    (metric,), (eps,), prop = given["metric"] or ("satisfaction",), given["eps"], given["property_"]
    values |= {"prop": None if prop is None else prop[0], "metric": metric, "eps": eps}
    values["input_shape"] = stated(None, given["input_shape"]).input_shape
    settings = RobustnessSettings(**{k: v for k, v in values.items() if v is not None})
    every = 1 if given["every"] is None else given["every"]
    choice = Choice(given["index"], every, given["limit"])
    samples = choose(settings, given["data"], choice, given["array"], given["labels"], classes_stated(given))
    return Plan.of((model,), samples, settings)


def _rows(plan: Plan[RobustnessSettings], result: RobustnessResult) -> list[tuple[str, str]]:
    from onnxsub.evaluate.robustness.words import title_of

    counts, found = result.counts, result.measure
    rows = [
        ("run", str(result.folder)),
        ("model", plan.models[0].name),
        ("metric", title_of(plan.settings)),
        ("samples", f"{found.samples:,} of the {len(plan.samples.index):,} chosen of {plan.samples.source}"),
        ("proved", f"{len(counts.proved):,}"),
        ("violated", f"{len(counts.violated):,}"),
        ("undecided", f"{len(counts.undecided):,}"),
    ]
    if plan.settings.needs_label:
        rows.append(("misclassified", f"{len(counts.misclassified):,}"))
    if counts.pending:
        rows.append(("not yet seen", f"{len(counts.pending):,}"))
    rows += [("estimate", _between(found.lower, found.upper)), ("", found.quantity), ("", found.counted)]
    if found.interval is not None:
        i = found.interval
        rows.append(("interval", f"{_between(i.lower, i.upper)} at {100 * i.confidence:g} % confidence ({i.method})"))
    if plan.settings.error is not None:
        reached = "reached" if found.more.get("reached") else "not reached: more samples are needed, or fewer that are undecided"
        reached = "not reached yet" if not result.finished else reached
        rows.append(("error", f"{plan.settings.error:g} asked for, {reached}"))
    rows.append(("guarantee", found.guarantee))
    rows += [("results", str(result.folder / "samples.csv")), ("time", f"{result.wall_s:.1f} s")]
    return rows


def _between(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return "-"
    return f"{lower:.4f}" if lower == upper else f"{lower:.4f} to {upper:.4f}"
