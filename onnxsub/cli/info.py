"""`onnxsub info`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.cli.reading import reading_options

if TYPE_CHECKING:
    from onnxsub.model import Model
    from onnxsub.provenance import Provenance
    from onnxsub.reading import Reading

__all__ = ["command"]


@click.command("info", cls=Command, epilog="Example: onnxsub info model.onnx")
@click.argument("model", metavar="MODEL")
@click.option("-o", "--out", "output", metavar="FILE.onnx", help="Write the form that is analysed: one input, the scores.")
@reading_options
@output_options
def command(model: str, output: str | None, reading: Reading, out: Output) -> int:
    """What MODEL holds: inputs, outputs, opset, operators, units per activation, and what of it is not supported."""
    check_writable(output, (".onnx",))
    gc.disable()  # a large graph is many small objects, none of which goes before the end of the command
    try:
        return _told(model, output, reading, out)
    finally:
        gc.enable()


def _told(model: str, output: str | None, reading: Reading, out: Output) -> int:
    from onnxsub.model import load_model, save_model
    from onnxsub.model_info import info

    result = info(load_model(model, reading))
    m = result.model
    if output is not None:
        save_model(m.form, output)
    rows = [
        ("model", str(m.path)),
        ("sha256", m.sha256),
        ("format", f"opset {m.opset}, IR {m.source.ir_version}"),
        ("input", f"{m.input}  {list(m.input_shape)} {m.feed.dtype}, {_batch(m)}"),
        ("output", f"{m.own_output}  {result.classes} classes"),
        ("operators", ", ".join(f"{name} {count}" for name, count in result.operators.items())),
        ("parameters", f"{result.parameters:,}"),
        ("units", f"{result.units:,}"),
        *([("windows", f"{result.windows:,}")] if result.windowed else ()),
        *(() if result.provenance is None else _origin(result.provenance)),
        *[("note", note) for note in m.notes],
        *[("limit", f"{x.operator} (node {x.node!r}) has no {x.meaning}: {x.reason}") for x in result.limits],
        *[("unsupported", line) for line in result.unsupported],
        *([] if output is None else [("written", output)]),
    ]
    if not result.unsupported:
        rows.append(("supported", "yes: every operator is in the operator table"))
    table = [("activation", "operator", "shape", "units")]
    table += [(a.name, a.operator, "x".join(map(str, a.shape)), f"{a.units:,}") for a in result.activations]
    table += [(w.name, w.operator, "x".join(map(str, w.shape)), f"{w.windows:,} windows") for w in result.windowed]
    out.result(result, rows, table if len(table) > 1 else ())
    return Exit.DONE


def _batch(model: Model) -> str:
    """How many samples the file takes at once."""
    if model.feed.bare:
        return "no batch axis"
    if model.feed.copies > 1:
        return f"batch {model.feed.copies}"
    return "batch 1" if model.batch_fixed else "any batch"


def _origin(p: Provenance) -> list[tuple[str, str]]:
    """Where a substitute comes from."""
    low, high = p.domain
    domain = f"the domain {'per feature, within ' if p.domain_sha256 else ''}[{low:g}, {high:g}]"
    units = " in units of each feature's scale" if p.scale_sha256 else ""
    valid = f"the ball of radius {p.valid_radius:g}{units}" if p.valid_radius is not None else domain
    return [
        (
            "substitute",
            f"{p.method}, gamma {p.gamma:.6g}, {p.keep} units kept, ranked by {p.rank} on {p.bounds}, layout {p.layout}",
        ),
        ("of model", p.model_sha256),
        ("of anchor", f"{p.anchor_sha256}, class {p.label}"),
        ("for radius", f"{p.radius:.6g} (d_adv {p.d_adv:.6g}); written for {valid}"),
    ]
