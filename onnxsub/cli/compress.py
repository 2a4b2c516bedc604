"""`onnxsub compress`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import data_options, feeding_options, read_data
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options, typed
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.errors import InputError, OptionError
from onnxsub.results import VERSION

if TYPE_CHECKING:
    from onnxsub.model import Model
    from onnxsub.ops.base import Array

__all__ = ["command"]


@dataclass(frozen=True)
class _Compressed:
    """What `compress` prints as JSON."""

    keys: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"schema": "onnxsub.compress/1", "version": VERSION, **self.keys}


@click.command("compress", cls=Command, epilog="Example: onnxsub compress scored.onnx --threshold 0.001 -o smaller.onnx")
@click.argument("model", metavar="MODEL")
@click.option("--scores", metavar="FILE", help="Scored .onnx, or the JSON of onnxsub importance.  [default: those in MODEL]")
@click.option("--threshold", type=float, default=1e-3, show_default=True, metavar="T", help="Units that score below it go.")
@click.option(
    "--by", type=click.Choice(["scores", "magnitude", "random"]), default="scores", show_default=True,
    help="For comparison: as many of the smallest weights, or as many at random.",
)
@click.option("--share", type=float, metavar="S", help="Of magnitude, random: share of each layer.  [default: as by scores]")
@data_options()
@click.option("--domain", nargs=2, type=float, default=(0.0, 1.0), metavar="LO HI", show_default=True, help="Valid input range.")
@feeding_options
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of --by random.")
@click.option("-o", "--output", metavar="FILE.onnx", help="Write the smaller model.  [default: MODEL-smaller.onnx]")
@output_options
def command(
    model: str, scores: str | None, threshold: float, by: str, share: float | None, seed: int, output: str | None, out: Output,
    **given: Any,
) -> int:
    """Remove units: smaller weights, a smaller file, the same scores as the model with these units masked.

    With --data the accuracy before and after is measured. Layers whose units cannot be removed (residual sums, groups) are named
    and left as they are.
    """
    output = output or str(Path(model).with_name(f"{Path(model).stem}-smaller.onnx"))
    check_writable(output, (".onnx",))
    if share is not None and by == "scores":
        raise click.UsageError("--share is of --by magnitude or random; scores have a --threshold")
    if share is not None and not 0 < share < 1:
        raise OptionError(f"--share {share:g} is not possible; give a share between 0 and 1")
    if given["data"] is None and any(typed(name) for name in ("array", "labels", "index", "limit", "every")):
        raise click.UsageError("--array, --labels, --index, --limit and --every say which samples of --data; add --data")
    if seed < 0:
        raise OptionError(f"--seed {seed} is negative; give 0 or more")
    from onnxsub.compress.remove import check_equal, remove_units
    from onnxsub.model import load_model, save_model

    loaded = load_model(model)
    gone = _chosen(loaded, scores, threshold, by, share, seed)
    smaller, layers = remove_units(loaded, gone)
    went = {x.name: gone[x.name] for x in layers if x.removed}
    apart = check_equal(loaded, smaller, went) if went else 0.0
    save_model(smaller, output)
    sizes = loaded.source.ByteSize(), smaller.ByteSize()  # weights beside the file are in the one that is written
    units, removed = sum(x.units for x in layers), sum(x.removed for x in layers)
    accuracy = _accuracy(loaded, output, given, out) if given["data"] is not None else None
    rows = [
        ("removed", f"{removed:,} of {units:,} units, by {by}"),
        ("file", f"{sizes[0]:,} bytes before, {sizes[1]:,} after"),
        ("masked", f"the largest difference from the masked network is {apart:.2g}"),
    ]
    if accuracy is not None:
        before, after, count = accuracy["before"], accuracy["after"], accuracy["samples"]
        rows.append(("accuracy", f"{before:.2%} before, {after:.2%} after, of {count:,} samples"))
    rows.append(("written", output))
    table: list[tuple[str, ...]] = [("layer", "units", "removed", "kept because")]
    table += [(x.name, str(x.units), str(x.removed), x.reason) for x in layers]
    keys = {
        "model": {"path": model, "sha256": loaded.sha256},
        "settings": {"by": by, "threshold": threshold, "share": share, "seed": seed},
        "layers": [{**vars(x), "positions": went[x.name].tolist() if x.removed else []} for x in layers],
        "bytes": {"before": sizes[0], "after": sizes[1]},
        "difference": apart,
        "accuracy": accuracy,
        "output": output,
    }
    out.result(_Compressed(keys), rows, table)
    return Exit.DONE


def _chosen(model: Model, path: str | None, threshold: float, by: str, share: float | None, seed: int) -> dict[str, Array]:
    from onnxsub.compress.choose import below, magnitudes, randomly, smallest
    from onnxsub.compress.program import layers_of
    from onnxsub.compress.remove import check_scores
    from onnxsub.lower import lower

    if by != "scores" and share is not None:
        sizes = layers_of(lower(model))
        counts = {name: round(share * n) for name, n in sizes.items()}
    else:
        known = _scores(model, path)
        check_scores(model, known)
        found = below(known, threshold)
        if by == "scores":
            return found
        sizes, counts = {name: len(s) for name, s in known.items()}, {name: len(p) for name, p in found.items()}
    if by == "random":
        return randomly(sizes, counts, seed)
    return smallest(magnitudes(lower(model)), counts)


def _scores(model: Model, path: str | None) -> dict[str, Array]:
    from onnxsub.compress.importance import scores_in, scores_of
    from onnxsub.model import load_model

    if path is None:
        return scores_in(model.source)
    return scores_in(load_model(path).source) if path.endswith(".onnx") else scores_of(path)


def _accuracy(model: Model, output: str, given: dict[str, Any], out: Output) -> dict[str, Any]:
    import numpy as np

    from onnxsub.evaluate.samples import Choice, anchor_of
    from onnxsub.model import load_model
    from onnxsub.query import two_classes
    from onnxsub.region import InputSpace
    from onnxsub.runtime import Runtime

    every = 1 if given["every"] is None else given["every"]
    samples = read_data(given, Choice(given["index"], every, given["limit"]))
    for note in samples.notes:
        out.note(note)
    if samples.y is None:
        raise InputError("accuracy needs labels; name them with --labels")
    low, high = given["domain"]
    space = InputSpace(low, high, given["mean"], given["std"])
    shape = model.input_shape
    x = np.stack([anchor_of(row, shape, space.interval, f"sample {i}") for i, row in zip(samples.index, samples.x, strict=True)])
    x = space.normalise(x)
    shares = [float((two_classes(Runtime(m).logits(x)).argmax(axis=1) == samples.y).mean()) for m in (model, load_model(output))]
    return {"samples": len(x), "before": shares[0], "after": shares[1]}
