"""`onnxsub evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import data_options, feeding_options, read_data
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.reading import stated
from onnxsub.cli.run_options import new_or_open, run_ended, run_options
from onnxsub.errors import OptionError

if TYPE_CHECKING:
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.run import EvaluateResult
    from onnxsub.evaluate.settings import Settings

__all__ = ["command"]


@click.command(
    "evaluate", cls=Command, epilog="Example: onnxsub evaluate model.onnx --data mnist.npz --limit 20 --timeout 60 --run study"
)
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--run",
    "folder",
    required=True,
    metavar="DIR",
    help="Folder of the run: begun, or gone on with. Without MODEL: as its run.toml says.",
)
@data_options()
@click.option(
    "--methods", metavar="LIST", help="Substitutes: lin, act, con, by commas.  [default: lin; all three with --protocol paper]"
)
@click.option("--gammas", metavar="LIST", help="Shares of units to prune, by commas.  [default: 0.9,0.99]")
@click.option(
    "--verifier",
    multiple=True,
    metavar="NAME",
    help="As for distance; may be repeated.  [default: bab; milp with --protocol paper, which takes these two]",
)
@click.option("--solver", type=click.Choice(["highs", "gurobi", "scip"]), help="As for distance.  [default: highs]")
@click.option(
    "--rank",
    type=click.Choice(["width", "influence"]),
    help="Which units a substitute keeps.  [default: influence; width with --protocol paper]",
)
@click.option("--refine", is_flag=True, help="Re-anchor each substitute at the better point that it leads to.")
@click.option(
    "--protocol",
    type=click.Choice(["fast", "paper"]),
    help="fast: wall time per sample. paper: the reference experiment.  [default: fast]",
)
@click.option(
    "--tol",
    type=float,
    metavar="T",
    help="exact: upper - lower <= T; with --protocol paper how far radii are bisected.  [default: 1e-6; as published]",
)
@click.option(
    "--timeout",
    type=float,
    metavar="S",
    help="Seconds per distance; with --protocol paper per solver run.  [default: none; 60 with --protocol paper]",
)
@click.option(
    "--radius-timeout", type=float, metavar="S", help="Of --protocol paper: seconds per radius.  [default: 2 x --timeout]"
)
@click.option("--interval", type=float, metavar="R", help="Of --protocol paper: radii are bisected on [0, R].  [default: 0.5]")
@click.option(
    "--known-points", is_flag=True, help="Of --protocol paper: no program for a radius within which a point is known already."
)
@click.option("--nodes", type=int, metavar="N", help="Nodes of the search per distance.  [default: none]")
@click.option("--output", metavar="NAME", help="Which output of a model is meant, where it has several.")
@click.option("--input-shape", metavar="N,N..", help="Lengths of the input, where a model leaves them open: 3,224,224.")
@click.option("--domain", nargs=2, type=float, metavar="LO HI", help="Valid input range.  [default: 0 1]")
@feeding_options
@click.option("--threads", type=int, metavar="N", help="Of one worker.  [default: 1]")
@click.option("--seed", type=SeedType(), metavar="N", help="Of everything random.  [default: 0]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where the attack and bab's bounds compute.  [default: cpu]")
@run_options("Units of work", "a unit of work")
@click.option("--reference", metavar="FILE.csv", help="Values to stand beside the distances, published ones say: sample, value.")
@output_options
def command(
    models: tuple[str, ...],
    folder: str,
    how: RunOptions,
    reference: str | None,
    out: Output,
    **experiment: Any,
) -> int:
    """The experiment over a data set: distances of each MODEL and of its substitutes, sample by sample.

    The run is a folder. Kill it at any moment and give the same command again, or only --run: what is done is kept.
    """
    from onnxsub.cli.distances import distance_tables
    from onnxsub.evaluate.run import evaluate, open_run

    plan = new_or_open(models, folder, experiment, _plan, open_run, how)
    if models:
        for note in plan.samples.notes:
            out.note(note)
    with out.progress() as report:
        result = evaluate(plan, Path(folder), how, progress=report, reference=reference)
    out.result(result, _rows(plan, result), _table(result), *distance_tables(result.samples, result.spread))
    ended = run_ended(out, result.failures, result.interrupted)
    return Exit.DONE if ended is None else ended


def _plan(models: tuple[str, ...], given: Mapping[str, Any]) -> Plan[Settings]:
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.samples import Choice
    from onnxsub.evaluate.settings import Settings

    if given["data"] is None:
        raise click.UsageError("a new run needs data: give --data FILE.npz, or only --run to go on with one")
    index, every = given["index"], given["every"]
    if every is None:
        # the reference experiment takes a tenth of the test samples
        every = 10 if given["protocol"] == "paper" and index is None and given["limit"] is None else 1
    choice = Choice(index, every, given["limit"])
    values: dict[str, Any] = {
        "protocol": given["protocol"],
        "methods": _words(given["methods"]),
        "gammas": _numbers(given["gammas"], "--gammas"),
        "verifiers": given["verifier"] or None,
        "solver": given["solver"],
        "domain": given["domain"],
        "output": given["output"],
        "input_shape": stated(None, given["input_shape"]).input_shape,
        **{k: given[k] for k in _PLAIN},
    }
    settings = Settings(**{k: v for k, v in values.items() if v is not None})
    return Plan.of(models, read_data(given, choice), settings)


_PLAIN = (
    "mean", "std", "rank", "refine", "timeout", "radius_timeout", "interval", "known_points", "nodes", "tol", "seed", "threads",
    "device",
)  # fmt: skip


def _words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise OptionError(f"{option} {text!r} is no list of numbers; give for example 0.9,0.99") from None


def _rows(plan: Plan[Settings], result: EvaluateResult) -> list[tuple[str, str]]:
    s, counts = plan.samples, result.counts
    settled = ", ".join(f"{n:,} {state}" for state, n in counts.items() if n)
    overhead = "" if result.overhead is None else f", {result.done_now:,} units, {100 * result.overhead:.1f} % of it overhead"
    return [
        ("run", str(result.folder)),
        ("models", ", ".join(m.name for m in plan.models)),
        ("samples", f"{len(s.index):,} of {s.source}"),
        ("units", settled),
        ("results", str(result.folder / "samples.csv")),
        ("time", f"{result.wall_s:.1f} s{overhead}"),
    ]


def _table(result: EvaluateResult) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("network", "substitute", "counted", "difference", "attack", "prune", "solve with", "without", "speed-up")
    ]
    several = len({line.verifier for line in result.lines}) > 1
    paper = result.plan["settings"]["protocol"] == "paper"
    for x in result.lines:
        prune_s, with_s, without_s, speed_up = (
            (x.run_prune_s, x.run_hat_s, x.run_bnd_s, x.run_speed_up) if paper else (x.prune_s, x.hat_s, x.bnd_s, x.speed_up)
        )
        table.append((
            x.model + (f" ({x.verifier})" if several else ""),
            f"{x.method} {x.gamma:g}",
            f"{x.counted} of {x.samples}",
            *("-" if share is None else f"{100 * share:.3f} %" for share in (x.difference, x.attack_difference)),
            *("-" if t is None else f"{t:.3f} s" if t < 1 else f"{t:.2f} s" for t in (prune_s, with_s, without_s)),
            "-" if speed_up is None else f"{speed_up:.1f}x",
        ))  # fmt: skip
    return table
