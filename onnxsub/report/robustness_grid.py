"""The page of a grid: a table of all models and curves over the radius, metric by metric; models compared and grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.evaluate.robustness.grid import Grid
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import PREDICTED
from onnxsub.report.evaluation_report import data_words
from onnxsub.report.grid_figures import accuracy_picture, box_picture, curves_picture
from onnxsub.report.grid_group import Group
from onnxsub.report.grid_tables import accuracy_table, compared_table, group_table, models_table
from onnxsub.report.model_fields import fields_of, grouped
from onnxsub.report.options import ReportOptions
from onnxsub.report.picture import Picture
from onnxsub.report.robustness_run import Parts, RobustnessRun
from onnxsub.report.robustness_tables import Figures
from onnxsub.report.table import Table, records_csv

__all__ = ["grid_parts", "labelled"]


def grid_parts(runs: Mapping[str, RobustnessRun], options: ReportOptions) -> Parts:
    """What a page says of all figures of one run or of several.

    Args:
        runs: name -> run.

    Raises:
        OptionError: `group` names a field that no network has, `compare` a network that is not there.
    """
    cells = [cell for own in labelled(runs).values() for cell in own]
    groups = _groups(runs)
    tables: list[Table] = [table for group in groups for table in [models_table(group), accuracy_table(group)] if table is not None]
    pictures: list[Picture] = [curves_picture(group) for group in groups if len(group.radii) > 1]
    pictures += [p for group in groups for p in [accuracy_picture(group)] if p is not None]
    if options.group:
        fields = _fields(runs)
        for field in options.group:
            parts = grouped(field, fields)
            tables += [group_table(group, field, parts) for group in groups]
            pictures += [p for group in groups for p in [box_picture(group, field, parts)] if p is not None]
    if options.compare is not None:
        tables += compared(groups, runs, options.compare)
    lines = tuple(Figures.of(c) for c in cells)
    title = f"Robustness of {len(dict.fromkeys(c.model for c in cells)):,} models"
    facts = [fact for name, run in runs.items() for fact in _facts(run, name if len(runs) > 1 else "")]
    texts = {"table": records_csv(lines)}
    return Parts(title, tuple(_lead(groups, runs)), tuple(facts), tuple(tables), tuple(pictures), texts, lines)


_DECIDE = ("delta", "eta", "lipschitz", "gamma", "norm", "distances", "via", "draws", "domain")
"""Settings that make two figures of one metric and property different ones, besides the radius."""


def _groups(runs: Mapping[str, RobustnessRun]) -> list[Group]:
    """The cells by what is measured. What tells groups of one metric and property apart is said in their names."""
    found: dict[tuple[Any, ...], list[Cell]] = {}
    files: dict[str, str] = {}
    for label, cells in labelled(runs).items():
        sha256 = {m["name"]: m["sha256"] for m in runs[label].plan["model"]}
        for own_cell, cell in zip(runs[label].cells, cells, strict=True):
            s = cell.settings
            files[cell.model] = sha256[own_cell.model]
            found.setdefault((s.metric, s.prop, *_decided(runs[label], s).items()), []).append(cell)
    groups = []
    for key, own in found.items():
        others = [dict(other[2:]) for other in found if other[:2] == key[:2]]
        more = ", ".join(f"{name} {_word(v)}" for name, v in key[2:] if v is not None and any(o[name] != v for o in others))
        groups.append(Group(key[0], key[1], tuple(own), more, dict(key[2:])["classes"] == PREDICTED, files))
    return groups


def _decided(run: RobustnessRun, s: RobustnessSettings) -> dict[str, Any]:
    """What figures that stand in one group share."""
    data, attack = run.plan["data"], s.attack
    if s.metric == "security" and attack is None:  # that of a batch is weaker
        attack = "in batches" if run.grid.batch else "one by one"
    told = PREDICTED if data.get("labels_sha256") is None and data.get("labels") in (None, PREDICTED) else "given"
    return {**{name: getattr(s, name) for name in _DECIDE}, "attack": attack, "classes": told if s.needs_label else None}


def _word(value: Any) -> str:
    return " to ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def labelled(runs: Mapping[str, RobustnessRun]) -> dict[str, tuple[Cell, ...]]:
    """Run -> its cells, whose models are called by their names, and by run and name where a name occurs in several runs."""
    names = [name for run in runs.values() for name in dict.fromkeys(c.model for c in run.cells)]
    return {
        label: tuple(c if names.count(c.model) == 1 else replace(c, model=f"{label}: {c.model}") for c in run.cells)
        for label, run in runs.items()
    }


def _fields(runs: Mapping[str, RobustnessRun]) -> dict[str, dict[str, Any]]:
    """Network -> its fields."""
    found: dict[str, dict[str, Any]] = {}
    for label, cells in labelled(runs).items():
        run = runs[label]
        entries = {m["name"]: m for m in run.plan["model"]}
        for own, cell in zip(run.cells, cells, strict=True):
            if cell.model not in found:
                found[cell.model] = fields_of(entries[own.model], cell.settings.reading)
    return found


def compared(groups: Sequence[Group], runs: Mapping[str, RobustnessRun], pair: tuple[str, ...]) -> list[Table]:
    """Two networks sample by sample, a table per metric and property.

    Raises:
        OptionError: a network that is not there. InputError: their samples are not the same.
    """
    names = list(dict.fromkeys(c.model for group in groups for c in group.cells))
    for name in pair:
        if name not in names:
            raise OptionError(f"--compare: there is no network {name!r}; there are {', '.join(names)}")
    data = {c.model: (run.plan["data"]["sha256"], run.plan["data"].get("array"), run.plan["data"].get("labels_sha256"))
            for label, run in runs.items() for c in labelled(runs)[label]}  # fmt: skip
    if data[pair[0]] != data[pair[1]]:
        raise InputError(f"--compare {','.join(pair)}: their data are not the same, so samples are not paired; name two others")
    found = [compared_table(group, pair) for group in groups]
    return [table for table in found if table is not None]


def _lead(groups: Sequence[Group], runs: Mapping[str, RobustnessRun]) -> list[str]:
    lead = []
    for group in groups:
        m = group.cells[-1].measure
        at = f" (radius {group.radii[-1]:g}; others likewise)" if len(group.radii) > 1 else ""
        lead.append(f"{group.name.capitalize()}{at}: {m.quantity.partition(': ')[2] or m.quantity}. {m.guarantee}")
    confidences = sorted({c.settings.confidence for group in groups for c in group.cells})
    said = " or ".join(f"{100 * c:g}" for c in confidences)
    data = {(run.plan["data"]["sha256"], run.plan["data"]["index"]) for run in runs.values()}
    same = "All models have seen the same samples." if len(data) == 1 else "The runs are of different samples."
    return [*lead, f"Every interval holds with {said} % confidence by itself, not all of them together. {same}"]


def _facts(run: RobustnessRun, name: str) -> list[tuple[str, str]]:
    plan, grid = run.plan, run.grid
    shared = [(key, ", ".join(map(str, v)) if isinstance(v, list | tuple) else str(v)) for key, v in _shared(grid).items()]
    places = [c.settings for c in run.cells]
    batches = grid.batch and any(s.metric == "security" for s in places)
    attacked = [("attack", f"batches of {grid.batch:,} samples")] if batches else []
    facts = [
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in plan["model"])),
        ("data", data_words(plan["data"])),
        ("radii", ", ".join(f"{e:g}" for e in grid.radii)),
        *shared,
        *attacked,
        ("made by", f"onnxsub {plan['version']}"),
    ]
    return [(f"{name}: {key}" if name else key, value) for key, value in facts]


def _shared(grid: Grid) -> Mapping[str, Any]:
    if isinstance(grid, ManySettings):
        return grid.shared
    return {k: v for k, v in grid.to_json().items() if v is not None and v is not False and k not in ("metric", "prop", "eps")}
