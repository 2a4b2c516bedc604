"""`onnxsub robustness` of several models, metrics, properties or radii."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.command import typed
from onnxsub.cli.data_options import classes_stated
from onnxsub.cli.exits import Exit
from onnxsub.cli.output import Output
from onnxsub.cli.reading import stated

if TYPE_CHECKING:
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.many.cell import Cell
    from onnxsub.evaluate.many.run import ManyResult
    from onnxsub.evaluate.many.settings import ManySettings
    from onnxsub.evaluate.plan import Plan

__all__ = ["is_grid", "refuse_typed", "run_grid"]

_OPTIONS = {"property_": "property", "value_range": "range", "input_shape": "input-shape"}


def is_grid(models: Sequence[str], given: Mapping[str, Any], folder: Path) -> bool:
    """Whether the command is about more than one figure, or goes on with a run that is."""
    from onnxsub.evaluate.many.run import holds_many

    if not models:
        return holds_many(folder)
    several = [name for name in ("metric", "property_", "eps") if len(given[name] or ()) > 1]
    if given["batch"] is not None and not several and len(models) == 1:
        raise click.UsageError("--batch is about several models, metrics, properties or radii; leave it out for one")
    if given["batch"] is not None and "security" not in (given["metric"] or ()):
        raise click.UsageError("--batch belongs to --metric security; leave it out")
    return len(models) > 1 or bool(several)


def refuse_typed(given: Mapping[str, Any], folder: str) -> None:
    """Raises a usage error where something is said about a run that is only gone on with."""
    found = sorted(filter(typed, given))
    if found:
        option = _OPTIONS.get(found[0], found[0])
        raise click.UsageError(f"--{option} is about a new run; name its model too, or go on with {folder!r} by --run alone")


def run_grid(models: Sequence[str], folder: Path, options: RunOptions, given: dict[str, Any], out: Output) -> int:
    """Begins the run, or goes on with it; prints its table."""
    from onnxsub.evaluate.many.run import open_many, robustness_many

    if models:
        plan = _plan(models, given)
        for note in plan.samples.notes:
            out.note(note)
    else:
        refuse_typed(given, str(folder))
        plan = open_many(folder, allow_commands=options.allow_commands)
    with out.progress() as report:
        result = robustness_many(plan, folder, options, progress=report)
    out.result(result, _rows(plan, result), _table(result.cells))
    for reason, count in result.failures.items():
        out.note(f"{count} failed, which count as undecided: {reason}")
    if result.interrupted:
        out.note("interrupted; the same command goes on with the run")
        return Exit.INTERRUPTED
    return Exit.UNDECIDED if result.nothing_decided else Exit.DONE


def _plan(models: Sequence[str], given: dict[str, Any]) -> Plan[ManySettings]:
    from onnxsub.evaluate.many.run import choose_many
    from onnxsub.evaluate.many.settings import GRID, ManySettings
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.robustness.settings import RobustnessSettings
    from onnxsub.evaluate.samples import Choice

    for option in ("data", "eps"):
        if given[option] is None:
            raise click.UsageError(f"a new run needs --{option}; give it, or only --run to go on with one")
    names = {f.name for f in fields(RobustnessSettings)} - set(GRID)
    shared = {k: v for k, v in given.items() if k in names and v not in (None, False)}
    shape = stated(None, given["input_shape"]).input_shape
    shared |= {} if shape is None else {"input_shape": shape}
    batch = {} if given["batch"] is None else {"batch": given["batch"]}
    settings = ManySettings(
        given["metric"] or ("satisfaction",), given["property_"] or ("cr",), given["eps"], shared=shared, **batch
    )
    choice = Choice(given["index"], 1 if given["every"] is None else given["every"], given["limit"])
    samples = choose_many(settings, given["data"], choice, given["array"], given["labels"], classes_stated(given))
    return Plan.of(tuple(models), samples, settings)


def _rows(plan: Plan[ManySettings], result: ManyResult) -> list[tuple[str, str]]:
    settled = ", ".join(f"{n:,} {state}" for state, n in result.units.items() if n)
    return [
        ("run", str(result.folder)),
        ("models", f"{len(plan.models):,}"),
        ("samples", f"{len(plan.samples.index):,} of {plan.samples.source}"),
        ("units", settled),
        ("confidence", f"{100 * plan.settings.any.confidence:g} % for each interval by itself"),
        ("results", str(result.folder / "samples.csv")),
        ("time", f"{result.wall_s:.1f} s"),
    ]


def _table(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("model", "metric", "property", "radius", "proved", "violated", "undecided", "misclass.", "estimate", "interval")
    ]
    for cell in cells:
        c, m, s = cell.counts, cell.measure, cell.settings
        i = m.interval
        table.append((
            cell.model, s.metric, s.prop, f"{s.eps:g}",
            *(str(len(v)) for v in (c.proved, c.violated, c.undecided, c.misclassified)),
            _between(m.lower, m.upper), "-" if i is None else _between(i.lower, i.upper),
        ))  # fmt: skip
    return table


def _between(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return "-"
    return f"{lower:.4f}" if lower == upper else f"{lower:.4f} to {upper:.4f}"
