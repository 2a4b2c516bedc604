"""`onnxsub adversarial`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import data_options, feeding_options, read_data
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options, positive, typed
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.errors import OptionError

if TYPE_CHECKING:
    from onnxsub.evaluate.samples import Samples
    from onnxsub.metrics.adversarial import AdversarialOptions
    from onnxsub.metrics.adversarial_pairs import Pairs
    from onnxsub.metrics.adversarial_result import AdversarialResult
    from onnxsub.metrics.tables import Spread, Tried

__all__ = ["command"]


@click.command(
    "adversarial", cls=Command,
    epilog="Example: onnxsub adversarial model.onnx --data mnist.npz --limit 20 --eps 0.05 --transfer other.onnx -o examples.npz",
)  # fmt: skip
@click.argument("model", metavar="MODEL")
@data_options(required=True)
@click.option("--eps", type=float, required=True, metavar="E", help="Radius of the ball, in un-normalised input units.")
@click.option(
    "--targets", default="all", show_default=True, metavar="all|LIST|runner-up", help="Classes that each anchor is moved to."
)
@click.option("--verifier", type=click.Choice(["bab", "milp"]), default="bab", show_default=True, help="How a pair is solved.")
@click.option(
    "--solver", type=click.Choice(["highs", "gurobi", "scip"]), default="highs", show_default=True, help="As for distance."
)
@click.option(
    "--memory", type=float, default=4.0, show_default=True, metavar="GIB", help="What bab's open nodes may take, per job."
)
@click.option(
    "--tol", type=float, default=1e-4, show_default=True, metavar="T", help="exact: the gap is at most T x the largest logit."
)
@click.option("--timeout", type=float, metavar="S", help="Seconds per pair.  [default: none]")
@click.option("--nodes", type=int, metavar="N", help="Nodes of the search per pair.  [default: none]")
@click.option("--transfer", metavar="OTHER", help="A second model: its examples are made too, and each model's tried on the other.")
@click.option("--domain", nargs=2, type=float, default=(0.0, 1.0), metavar="LO HI", show_default=True, help="Valid input range.")
@feeding_options
@click.option("--threads", type=int, default=1, show_default=True, metavar="N", help="Of one job.")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--jobs", type=int, default=1, show_default=True, metavar="N", help="Pairs side by side.")
@click.option(
    "--run", "folder", metavar="DIR", help="Folder of the run: begun, or gone on with by the same command; pairs, examples, tables."
)
@click.option("--engine", type=click.Choice(["processes", "ray"]), help="Of --run: who does the pairs.  [default: processes]")
@click.option("--address", metavar="HOST:PORT", help="Of --run: the Ray cluster.  [default: a local one]")
@click.option("--kill-after", type=float, metavar="S", help="Of --run: hard limit of a pair.  [default: 2 x --timeout + 60]")
@click.option("--retry-failed", is_flag=True, help="Of --run: do pairs again that had failed or were altered.")
@click.option("-o", "--output", metavar="FILE.npz", help="Write the examples.")
@output_options
def command(
    model: str, eps: float, targets: str, transfer: str | None, jobs: int, folder: str | None, output: str | None, out: Output,
    engine: str | None, address: str | None, kill_after: float | None, retry_failed: bool, **given: Any,
) -> int:
    """Adversarial examples with the smallest margin f_y - f_t on the ball round each sample, per target class t, with a proof.

    An example counts only where onnxruntime gives f_t > f_y on MODEL; ties are counted apart. Per pair the smallest margin is
    bracketed: where its lower end is positive, no example exists.
    """
    check_writable(output, (".npz",))
    began = time.perf_counter()
    options = _options(eps, targets, given)
    samples = _samples(given)
    for note in samples.notes:
        out.note(note)
    from onnxsub.cli.options import limit_threads
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.pairs.files import write_pair_files
    from onnxsub.evaluate.pairs.run import anchors_for, run_pairs
    from onnxsub.files import write_atomic
    from onnxsub.metrics.adversarial_pairs import find_pairs
    from onnxsub.metrics.adversarial_result import AdversarialResult, examples_npz
    from onnxsub.metrics.tables import try_examples

    limit_threads(given["threads"])
    names = _names(model, transfer)
    anchors = [anchors_for(path, samples, options) for path in (model, *([transfer] if transfer else []))]
    done: list[Pairs] = []
    failures: Mapping[str, int] = {}
    if folder is None:
        if any(typed(name) for name in ("engine", "address", "kill_after", "retry_failed")):
            raise click.UsageError("--engine, --address, --kill-after and --retry-failed are of a run folder; add --run DIR")
        with out.progress() as report:
            for path, name, own in zip((model, transfer), names, anchors, strict=False):
                if path is not None and not any(p.interrupted for p in done):
                    done.append(find_pairs(path, own, options, jobs=jobs, name=name, progress=report))
    else:
        how = RunOptions(jobs, engine or "processes", address, kill_after, retry_failed)
        models = (model,) if transfer is None else (model, transfer)
        with out.progress() as report:
            run = run_pairs(models, samples, options, Path(folder), how, progress=report)
        done, failures = list(run.summary), run.failures
    tried: tuple[Tried, ...] = ()
    if len(done) == 2:
        tried = tuple(
            try_examples(source, other.path, own, options.space, other.name)
            for source in done for other, own in zip(done, anchors, strict=True)
        )  # fmt: skip
    data = {"source": samples.source, "sha256": samples.sha256, "array": samples.array, "labels": samples.labels}
    result = AdversarialResult(
        done[0], done[1] if len(done) == 2 else None, tried, options, {**data, "samples": samples.index},
        {"total": time.perf_counter() - began}, output, folder, jobs,
    )  # fmt: skip
    if output is not None:
        write_atomic(output, examples_npz(result.models))
    if folder is not None:
        write_pair_files(result, Path(folder))
    out.result(result, _rows(result), *(_table(pairs, named=len(done) > 1) for pairs in result.models if pairs.pairs))
    for reason, count in failures.items():
        out.note(f"{count} pairs failed: {reason}")
    if result.interrupted:
        more = "" if folder is None else "; the same command goes on with the run"
        out.note(f"interrupted: this is what was done so far{more}")
        return Exit.INTERRUPTED
    return Exit.DONE


def _options(eps: float, targets: str, given: dict[str, Any]) -> AdversarialOptions:
    from onnxsub.metrics.adversarial import AdversarialOptions, Targets
    from onnxsub.metrics.margin import MarginOptions
    from onnxsub.region import InputSpace
    from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions

    if given["timeout"] is not None:
        positive(given["timeout"], "--timeout")
    if given["seed"] < 0:
        raise OptionError(f"--seed {given['seed']} is negative; give 0 or more")
    limits = Limits(timeout=given["timeout"], nodes=given["nodes"], threads=given["threads"], seed=given["seed"])
    milp, bab = MilpOptions(solver=given["solver"]), BabOptions.of_gib(given["memory"])
    margin = MarginOptions(limits, milp, bab, verifier=given["verifier"], tol=given["tol"])
    low, high = given["domain"]
    space = InputSpace(low, high, given["mean"], given["std"])
    return AdversarialOptions(eps, Targets.parse(targets), margin, space)


def _samples(given: dict[str, Any]) -> Samples:
    from onnxsub.evaluate.samples import Choice

    every = 1 if given["every"] is None else given["every"]
    return read_data(given, Choice(given["index"], every, given["limit"]))


def _names(model: str, transfer: str | None) -> tuple[str, ...]:
    """What the models are called: their files' names, made different where two files have one. Raises InputError."""
    from onnxsub.metrics.tables import check_classes
    from onnxsub.model import load_model

    if transfer is None:
        return (Path(model).stem,)
    one, other = load_model(model), load_model(transfer)
    check_classes(model, max(one.outputs, 2), transfer, max(other.outputs, 2))
    name, second = Path(model).stem, Path(transfer).stem
    if name == second and not Path(model).samefile(transfer):
        second = f"{second}-{other.sha256[:8]}"
    return name, second


def _rows(result: AdversarialResult) -> list[tuple[str, str]]:
    from onnxsub.metrics.adversarial_result import objective, side_by_side, verdicts
    from onnxsub.metrics.tables import spread, success_by

    rows = [("ball", f"eps {result.options.eps:g}, targets {result.options.targets}")]
    for pairs in result.models:
        n = verdicts(pairs)
        anchors = len(pairs.labels)
        rows.append(("model", f"{pairs.name}: {anchors} samples, {len(pairs.misclassified)} of them misclassified"))
        rows.append(("pairs", f"{len(pairs.found)} of {pairs.planned} done, {sum(p.status == 'exact' for p in pairs.pairs)} exact"))
        rows.append(("", f"{n['example']} examples, {n['tie']} ties, {n['none']} proved to have none, {n['undecided']} undecided"))
        rows.append(("f_y - f_t", _spread(objective(pairs), "")))
        if n["example"]:
            rows.append(("of examples", _spread(objective(pairs, examples=True), "")))
        rows.append(("time", _spread(spread(p.seconds for p in pairs.pairs), " s")))
        if n["example"] and n["example"] < len(pairs.found):
            for name, part in side_by_side(pairs).items():
                rows.append((name, f"{len(part)} pairs: f_y - f_t {_quartiles(spread(p.upper for p in part), '')}"))
                rows.append(("", f"time {_quartiles(spread(p.seconds for p in part), ' s')}"))
        for what, key in (("source", "label"), ("target", "target")):
            shares = [f"{k} {100 * s.examples / s.pairs:.0f} %" for k, s in success_by(pairs.pairs, key).items()]
            if shares:
                rows.append((f"by {what}", f"pairs with an example: {', '.join(shares)}"))
    for t in result.transfer:
        if t.made_on != t.tried_on:
            share = f" ({100 * t.rate:.0f} %)" if t.right else ""
            what = f"{t.fooled_right} of {t.right} examples{share} fool it, {t.to_target} of {t.examples} with their target class"
            what += f"; its accuracy on all of them is {100 * t.accuracy:.0f} %" if t.examples else ""
            rows.append((f"{t.made_on} on {t.tried_on}", what))
    rows += [("written", path) for path in (result.output, result.run) if path]
    rows.append(("total", f"{result.time_s['total']:.1f} s"))
    return rows


def _spread(s: Spread, unit: str) -> str:
    if not s.count:
        return "-"
    return f"median {s.median:.4g}{unit}, mean {s.mean:.4g}{unit}, from {s.least:.4g}{unit} to {s.most:.4g}{unit}"


def _quartiles(s: Spread, unit: str) -> str:
    ends = ", ".join(f"{v:.4g}{unit}" for v in (s.least, s.lower, s.median, s.upper, s.most))
    return f"{ends} (extremes, quartiles), mean {s.mean:.4g}{unit} ± {s.deviation:.4g}{unit}"


def _table(pairs: Pairs, *, named: bool) -> list[tuple[str, ...]]:
    """Examples by source class (rows) and target class (columns); as many pairs stand behind them as the last column says."""
    from onnxsub.metrics.adversarial_result import matrix

    targeted = matrix(pairs).targeted
    sources, targets = (sorted({getattr(p, key) for p in pairs.pairs}) for key in ("label", "target"))
    what = f"{pairs.name}: examples from" if named else "examples from"
    table: list[tuple[str, ...]] = [(f"{what} \\ to", *map(str, targets), "all", "of pairs")]
    for y in sources:
        asked = {p.target for p in pairs.pairs if p.label == y}
        cells = (str(targeted[y][t]) if t in asked else "-" for t in targets)
        table.append((str(y), *cells, str(sum(targeted[y])), str(sum(p.label == y for p in pairs.pairs))))
    return table
