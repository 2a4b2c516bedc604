"""`onnxsub gate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import DATA, classes_stated
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.reading import stated
from onnxsub.cli.robustness import command as robustness

if TYPE_CHECKING:
    from onnxsub.evaluate.samples import Samples
    from onnxsub.gate.options import GateOptions
    from onnxsub.gate.result import GateResult

__all__ = ["command"]

_SETTINGS = ("timeout", "verifier", "confidence", "output", "input_shape", "domain", "mean", "std", "threads", "seed")
_RUN = ("jobs", "retry_failed")
"""Options that mean what they mean for a run of `onnxsub robustness`, and are its own objects here."""

_EXITS = {"passed": Exit.DONE, "failed": Exit.VIOLATED, "undecided": Exit.UNDECIDED}


@click.command(
    "gate", cls=Command,
    epilog="Example: onnxsub gate new.onnx --baseline released.onnx --data test.npz --limit 200 --eps 0.1 --junit gate.xml   "
    "Exit codes: 0 passed, 1 failed, 3 undecided.",
)  # fmt: skip
@click.argument("new", metavar="NEW")
@click.option("--baseline", metavar="OLD|RUN", help="Model to compare with, or the folder of a finished run of it.")
@click.option(
    "--metric", type=click.Choice(["satisfaction", "security", "distance"]),
    help="Share proved, share that withstands an attack, or mean distance.  [default: satisfaction]",
)  # fmt: skip
@click.option("--max-drop", type=float, metavar="D", help="How much less than the baseline is allowed, a share.  [default: 0.02]")
@click.option("--significance", type=float, metavar="P", help="A drop fails only with a p-value of at most P.  [default: any drop]")
@click.option("--min-proved", type=float, metavar="S", help="Smallest share of samples that must be proved.")
@click.option("--min-distance", type=float, metavar="D", help="Of distance: the smallest mean distance.")
@click.option("--fail-on", type=click.Choice(["undecided"]), help="What undecided samples leave open is failed (1), not 3.")
@click.option("--nodes", type=int, metavar="N", help="Nodes of the search per sample.  [default: 2000; none with --timeout]")
@click.option("--cache", default=".onnxsub-gate", show_default=True, metavar="DIR", help="Runs: what lies there is not done again.")
@click.option("--page", metavar="DIR", help="Folder for the page with pictures of the samples lost and won.")
@click.option("--junit", metavar="FILE", help="Write a JUnit report: a test case per sample.")
@click.option("--markdown", metavar="FILE", help="Write the summary as Markdown; in GitHub's jobs it is shown without asking.")
@click.option("--badge", metavar="FILE.svg", help="Write a badge.")
@click.option("--sarif", metavar="FILE", help="Write the findings as SARIF, for code scanning.")
@output_options
def command(
    new: str, baseline: str | None, cache: str, jobs: int, retry_failed: bool, out: Output, **given: Any
) -> int:
    """Whether the model NEW is as robust as a baseline on the same samples, and as robust as is asked.

    Verdicts do not depend on the speed of the machine unless --timeout is given.
    """
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.gate.outputs import check_outputs, write_outputs
    from onnxsub.gate.run import run_gate

    files = {name: given[name] for name in ("page", "junit", "markdown", "badge", "sarif") if given[name] is not None}
    check_outputs(files)
    options = _options(given)
    samples = _samples(given, options)
    for note in samples.notes:
        out.note(note)
    if options.by_machine:
        out.note("with --timeout verdicts depend on the machine's speed; --nodes makes them repeat anywhere")
    run = RunOptions(jobs=jobs, retry_failed=retry_failed)
    try:
        with out.progress() as report:
            result = run_gate(new, baseline, samples, options, cache=Path(cache), run=run, progress=report)
    except KeyboardInterrupt:
        out.note(f"what was done is kept in {cache}; the same command goes on with it")
        raise
    written = write_outputs(result, files, ["onnxsub", *sys.argv[1:]])
    out.result(result, _rows(result, written), _table(result))
    for measured in [result.new] if result.old is None else [result.old, result.new]:
        for reason, count in measured.failures.items():
            out.note(f"{measured.name}: {count} failed, which count as undecided: {reason}")
    return _EXITS[result.verdict]


_RADIUS = click.Option(["--eps"], type=float, metavar="E", help="Radius of the ball round each sample.")
command.params[1:1] = [_RADIUS, *(p for p in robustness.params if p.name in (*DATA, *_SETTINGS, *_RUN))]


def _options(given: dict[str, Any]) -> GateOptions:
    from onnxsub.gate.options import GateOptions

    for option in ("data", "eps"):
        if given[option] is None:
            raise click.UsageError(f"a gate needs --{option}; give it")
    names = ("eps", *_SETTINGS, "metric", "max_drop", "significance", "min_proved", "min_distance", "nodes")
    values = {k: given[k] for k in names if given[k] is not None}
    values["input_shape"] = stated(None, given["input_shape"]).input_shape
    return GateOptions(**values, fail_on_undecided=given["fail_on"] == "undecided")


def _samples(given: dict[str, Any], options: GateOptions) -> Samples:
    from onnxsub.evaluate.samples import Choice
    from onnxsub.gate.run import samples_of

    every = 1 if given["every"] is None else given["every"]
    choice = Choice(given["index"], every, given["limit"])
    return samples_of(given["data"], choice, options, given["array"], given["labels"], classes_stated(given))


def _rows(result: GateResult, written: dict[str, str]) -> list[tuple[str, str]]:
    from onnxsub.gate.words import evidence_words

    new, old, options = result.new, result.old, result.options
    rows = [("gate", result.headline), ("new model", _run_words(new.path, new.computed, len(result.pairs)))]
    if old is not None:
        rows.append(("baseline", _run_words(old.path, old.computed, len(result.pairs))))
    rows += [("samples", f"{len(result.pairs):,} of {result.samples.source}, radius {options.eps:g}")]
    if result.comparison is not None:
        rows.append(("evidence", evidence_words(result.comparison, options)))
    rows += [(check.name, f"{check.outcome}: {check.said}") for check in result.checks[1:]]
    for name, pairs in (("lost", result.lost), ("won", result.won)):
        if pairs:
            rows.append((name, _listed([p.index for p in pairs])))
    rows += written.items()
    return [*rows, ("time", f"{result.seconds:.1f} s")]


def _run_words(path: str, computed: int, samples: int) -> str:
    return f"{path}, {f'{computed:,} of {samples:,} samples computed' if computed else 'from the cache'}"


def _listed(index: list[int]) -> str:
    shown = ", ".join(map(str, index[:20]))
    return shown + (f" and {len(index) - 20:,} more" if len(index) > 20 else "")


def _table(result: GateResult) -> list[tuple[str, ...]]:
    from onnxsub.gate.tables import verdicts_table

    table = verdicts_table(result)
    return [table.heads, *table.cells]
