"""`onnxsub export-property`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.features import ball_of, radius_option, scale_option
from onnxsub.cli.options import Command, Request, anchor_options
from onnxsub.cli.points import check_writable
from onnxsub.files import write_atomic
from onnxsub.results import VERSION

__all__ = ["command"]


@dataclass(frozen=True)
class _Exported:
    """What `--json` prints."""

    keys: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"schema": "onnxsub.export-property/1", "version": VERSION, **self.keys}


@click.command(
    "export-property", cls=Command, epilog="Example: onnxsub export-property model.onnx --x0 image.npy --eps 0.05 -o ball.vnnlib"
)
@radius_option(required=True)
@scale_option
@click.option("--vnnlib", type=click.Choice(["1.0", "2.0"]), default="1.0", show_default=True, help="Version of the text.")
@click.option("-o", "--out", "output", metavar="FILE", help="The property: .vnnlib or .gz.  [default: standard output]")
@anchor_options
def command(request: Request, eps: float | str, scale: str | None, vnnlib: str, output: str | None) -> int:
    """Write "some other class within the radius E of the anchor" as a VNN-LIB property of MODEL.

    The box is in the units that the model is fed: with --mean and --std, in normalised ones. Its decimals contain every float32
    input of the ball.
    """
    check_writable(output, (".vnnlib", ".gz"))
    from onnxsub.properties import robustness_property, write_property

    radius, weights = ball_of(eps, scale)
    assert radius is not None
    query = request.query(scale=weights)
    if query.model.form is not query.model.source:
        request.out.note("the property is about the form that is analysed, which onnxsub info MODEL -o FILE.onnx writes")
    found = robustness_property(query, radius)
    space = query.space.plain
    low, high = space.hull
    ends = f"{low:g} to {high:g}" if not space.per_feature else f"per feature, within {low:g} to {high:g}"
    lines = [
        f"label {query.label}, radius {radius!r} (L-inf, un-normalised), domain {ends}",
        f"model sha256 {query.model.sha256}",
        f"anchor sha256 {query.anchor_sha256}",
        "satisfiable: some other class is reached or tied",
    ]
    if query.space.units is not None:
        lines.append(f"the radius counts units of a scale per feature, sha256 {query.space.units.sha256}")
    if space.mean is not None and space.std is not None:
        mean, std = (" ".join(f"{v!r}" for v in values) for values in (space.mean, space.std))
        lines.append(f"bounds are those of (x - mean) / std, mean {mean}, std {std}")
    text = write_property(found, vnnlib, comment="\n".join(lines))
    if output is not None:
        _write(output, text)
        request.out.note(f"written to {output}: {found.inputs} inputs, {found.outputs} outputs, {found.clauses} clauses")
    if request.out.json:
        sizes = {"inputs": found.inputs, "outputs": found.outputs, "clauses": found.clauses}
        where = {"output": output, "property": None if output else text}
        request.out.result(_Exported({**query.json_head(), "eps": radius, "vnnlib": vnnlib, **sizes, **where}), [])
    elif output is None:
        request.out.text(text)
    return Exit.DONE


def _write(output: str, text: str) -> None:
    data = text.encode()
    if Path(output).suffix.lower() == ".gz":
        import gzip

        data = gzip.compress(data, mtime=0)  # the same bytes for the same property
    write_atomic(output, data)
