"""`onnxsub compress`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import data_options, feeding_options, read_data, training_images
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import BudgetType, SeedType
from onnxsub.cli.options import Command, output_options, typed
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.errors import InputError
from onnxsub.results import VERSION

if TYPE_CHECKING:
    from onnxsub.compress.choose import Choice
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
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of --by random, and of the training.")
@click.option("--retrain", metavar="FILE|NAME", help="Train what is left on these images: an .npz, or a data set's name.")
@click.option("--rounds", type=int, default=1, show_default=True, metavar="N", help="Score, remove and retrain so often.")
@click.option("--adv", type=BudgetType(), default="0", metavar="EPS", help="Retrain on attacked images: 0.1, or 8/255.")
@click.option("--epochs", type=int, default=5, show_default=True, metavar="N", help="Of each retraining.")
@click.option("--rate", type=float, default=1e-3, show_default=True, metavar="R", help="Highest learning rate.")
@click.option("--images", type=int, default=10, show_default=True, metavar="N", help="Of --retrain, for scores that are not there.")
@click.option("--timeout", type=float, metavar="S", help="Of these scores, in each round.  [default: none]")
@click.option("--run", "folder", metavar="DIR", help="Of --retrain: a run that is gone on with.  [default: OUTPUT-rounds]")
@click.option("-o", "--output", metavar="FILE.onnx", help="Write the smaller model.  [default: MODEL-smaller.onnx]")
@output_options
def command(model: str, scores: str | None, output: str | None, folder: str | None, out: Output, **given: Any) -> int:
    """Remove units: smaller weights, a smaller file, the same scores as the model with these units masked.

    With --data the accuracy before and after is measured. Layers whose units cannot be removed (residual sums, groups) are named
    and left as they are. With --retrain what is left is trained, and --rounds does both again.
    """
    output = output or str(Path(model).with_name(f"{Path(model).stem}-smaller.onnx"))
    check_writable(output, (".onnx",))
    by, share = given["by"], given["share"]
    if share is not None and by == "scores":
        raise click.UsageError("--share is of --by magnitude or random; scores have a --threshold")
    if given["data"] is None and any(typed(name) for name in ("array", "labels", "index", "limit", "every")):
        raise click.UsageError("--array, --labels, --index, --limit and --every say which samples of --data; add --data")
    of_training = [name for name in ("rounds", "adv", "epochs", "rate", "images", "timeout", "folder") if typed(name)]
    if given["retrain"] is None and of_training:
        option = "run" if of_training[0] == "folder" else of_training[0]
        raise click.UsageError(f"--{option} is of --retrain; add --retrain with the images")
    from onnxsub.compress.choose import Choice
    from onnxsub.compress.importance import without_scores
    from onnxsub.compress.remove import check_equal, remove_units
    from onnxsub.model import load_model, save_model

    choice = Choice(by, given["threshold"], share, given["seed"])
    loaded = load_model(model)
    if given["retrain"] is not None:
        chosen = folder or str(Path(output).with_name(f"{Path(output).stem}-rounds"))
        return _retrained(loaded, choice, _known(loaded, scores, choice, needed=False), output, chosen, given, out)
    gone = _chosen(loaded, scores, choice)
    smaller, layers = remove_units(loaded, gone)
    smaller = without_scores(smaller)
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
    rows += _accuracy_rows(accuracy)
    rows.append(("written", output))
    table: list[tuple[str, ...]] = [("layer", "units", "removed", "kept because")]
    table += [(x.name, str(x.units), str(x.removed), x.reason) for x in layers]
    keys = {
        **_head(loaded, model, choice),
        "layers": [{**vars(x), "positions": went[x.name].tolist() if x.removed else []} for x in layers],
        "bytes": {"before": sizes[0], "after": sizes[1]},
        "difference": apart,
        "accuracy": accuracy,
        "output": output,
    }
    out.result(_Compressed(keys), rows, table)
    return Exit.DONE


def _head(loaded: Model, path: str, choice: Choice) -> dict[str, Any]:
    settings = {"by": choice.by, "threshold": choice.threshold, "share": choice.share, "seed": choice.seed}
    return {"model": {"path": path, "sha256": loaded.sha256}, "settings": settings}


def _accuracy_rows(accuracy: dict[str, Any] | None) -> list[tuple[str, str]]:
    if accuracy is None:
        return []
    return [("accuracy", f"{accuracy['before']:.2%} before, {accuracy['after']:.2%} after, of {accuracy['samples']:,} samples")]


def _retrained(
    loaded: Model, choice: Choice, known: dict[str, Array] | None, output: str, folder: str, given: dict[str, Any], out: Output,
) -> int:  # fmt: skip
    from onnxsub.compress.options import ImportanceOptions
    from onnxsub.model import load_model, save_model
    from onnxsub.region import InputSpace
    from onnxsub.study.rounds import RoundsOptions, rounds

    options = RoundsOptions(
        choice, given["rounds"], given["images"], ImportanceOptions(seed=choice.seed), given["timeout"], given["adv"],
        given["epochs"], given["rate"], choice.seed,
    )  # fmt: skip
    low, high = given["domain"]
    with out.progress() as report:
        data = training_images(given["retrain"], report)
        space = InputSpace(low, high, given["mean"], given["std"])
        done = rounds(loaded, data, options, Path(folder), scores=known, space=space, progress=report)
    final = load_model(done.file, loaded.reading)
    save_model(final.source, output)
    accuracy = _accuracy(loaded, output, given, out) if given["data"] is not None else None
    sizes = loaded.source.ByteSize(), final.source.ByteSize()
    removed = sum(layer["removed"] for r in done.rounds for layer in r["layers"])
    rows = [
        ("removed", f"{removed:,} units in {len(done.rounds)} rounds, by {choice.by}"),
        ("file", f"{sizes[0]:,} bytes before, {sizes[1]:,} after"),
    ]
    if done.before is not None:
        rows.append(("test images", f"{done.before:.2%} before, {_last(done.rounds, done.before):.2%} after"))
    rows += _accuracy_rows(accuracy)
    rows += [("run", folder), ("written", output)]
    table: list[tuple[str, ...]] = [("round", "units", "removed", "scores", "from masked", "accuracy then", "retrained")]
    for i, r in enumerate(done.rounds):
        units, gone = (str(sum(layer[key] for layer in r["layers"])) for key in ("units", "removed"))
        cells = ("-" if v is None else f"{v:.2%}" for v in r["accuracy"].values())
        table.append((str(i + 1), units, gone, r["scores"] or "given", f"{r['difference']:.1g}", *cells))
    keys = {
        **_head(loaded, str(loaded.path), choice),
        "retraining": {
            "images": given["retrain"], "rounds": given["rounds"], "budget": given["adv"], "epochs": given["epochs"],
            "rate": given["rate"], "scored_images": given["images"],
        },
        "before": done.before, "rounds": list(done.rounds), "bytes": {"before": sizes[0], "after": sizes[1]},
        "accuracy": accuracy, "run": folder, "output": output,
    }  # fmt: skip
    out.result(_Compressed(keys), rows, table)
    return Exit.DONE


def _last(rounds: Sequence[Mapping[str, Any]], before: float) -> float:
    """Accuracy of the last network on the test images of the training."""
    trained = [r["accuracy"]["retrained"] for r in rounds if r["accuracy"]["retrained"] is not None]
    return float(trained[-1]) if trained else before


def _known(model: Model, path: str | None, choice: Choice, *, needed: bool) -> dict[str, Array] | None:
    """The scores that are given, where the choice takes any."""
    from onnxsub.compress.importance import has_scores, same_model, scores_in, scores_of
    from onnxsub.compress.remove import check_scores
    from onnxsub.model import load_model

    if not choice.scored:
        return None
    if path is not None:
        known = scores_in(load_model(path).source) if path.endswith(".onnx") else scores_of(path)
    elif not needed and not has_scores(model.source):
        return None
    else:
        known = scores_in(model.source)
    check_scores(model, known)
    if path is not None and not same_model(path, model):
        raise InputError(
            f"--scores {path!r} holds scores of another file than {model.where}, though its layers have as many units; score this "
            "one with onnxsub importance"
        )
    return known


def _chosen(model: Model, path: str | None, choice: Choice) -> dict[str, Array]:
    from onnxsub.lower import lower

    return choice.of(lower(model), _known(model, path, choice, needed=True))


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
