"""`onnxsub zoo finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.data_options import feeding_options, training_images
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import BudgetType, SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.errors import OptionError

if TYPE_CHECKING:
    from onnxsub.study.finetune import Finetuned

__all__ = ["finetune"]


@dataclass(frozen=True)
class _Written:
    """What `zoo finetune` prints as JSON."""

    found: Finetuned
    more: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.found.to_json(), **self.more}


@click.command(
    "finetune", cls=Command, short_help="Train a network on the adversarial examples of runs.",
    epilog="Example: onnxsub zoo finetune model.onnx --examples run --data mnist -o tuned.onnx",
)  # fmt: skip
@click.argument("model", metavar="MODEL")
@click.option("--examples", "runs", multiple=True, required=True, metavar="RUN", help="Run folder with points; may be repeated.")
@click.option("--data", required=True, metavar="FILE|NAME", help="Images: an .npz with x_train to y_test, or a data set's name.")
@click.option("--epochs", type=int, default=5, show_default=True, metavar="N", help="Of the training.")
@click.option("--rate", type=float, default=1e-3, show_default=True, metavar="R", help="Highest learning rate.")
@click.option("--adv", type=BudgetType(), default="0", metavar="EPS", help="Attack every batch besides: 0.1, or 8/255.")
@click.option("--repeat", type=int, default=1, show_default=True, metavar="N", help="An example counts as so many images.")
@click.option("--domain", nargs=2, type=float, default=(0.0, 1.0), metavar="LO HI", show_default=True, help="Valid input range.")
@feeding_options
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where torch computes.")
@click.option("--threads", type=int, metavar="N", help="[default: all cores]")
@click.option("--checkpoint", metavar="FILE", help="State of the training.  [default: beside the output, .pt]")
@click.option("--restart", is_flag=True, help="Forget the checkpoint.")
@click.option("-o", "--output", metavar="FILE", help="The new network.  [default: MODEL-tuned.onnx]")
@output_options
def finetune(model: str, runs: tuple[str, ...], data: str, output: str | None, out: Output, **given: Any) -> int:
    """Train MODEL from its weights on images and on the adversarial examples of runs, each with the class of its anchor.

    A run: that of adversarial --run, of evaluate, or of robustness --metric pointwise --distances exact (region, lbfgs). A training
    that was interrupted goes on where it was when the same command is run again.
    """
    if given["threads"] is not None and given["threads"] < 1:
        raise OptionError(f"--threads {given['threads']} is not possible; give 1 or more, or leave it out for all cores")
    output = output or str(Path(model).with_name(f"{Path(model).stem}-tuned.onnx"))
    checkpoint = given["checkpoint"] or str(Path(output).with_suffix(".pt"))
    for path, endings in ((output, (".onnx",)), (checkpoint, (".pt",))):
        check_writable(path, endings)
    from onnxsub.cli.options import limit_threads
    from onnxsub.model import load_model, save_model
    from onnxsub.region import InputSpace
    from onnxsub.study.finetune import FinetuneOptions
    from onnxsub.study.finetune import finetune as run

    if given["restart"]:
        Path(checkpoint).unlink(missing_ok=True)
    limit_threads(given["threads"])
    names = ("epochs", "rate", "repeat", "seed", "device")
    options = FinetuneOptions(budget=given["adv"], **{name: given[name] for name in names})
    low, high = given["domain"]
    space = InputSpace(low, high, given["mean"], given["std"])
    loaded = load_model(model)
    with out.progress() as report:
        images = training_images(data, report)
        found = run(loaded, list(map(Path, runs)), images, options, checkpoint, space=space, progress=report)
    save_model(found.proto, output)
    rows = [
        ("examples", f"{found.examples:,} of {found.points:,} points of {len(runs)} runs, with {len(images.train):,} images"),
        ("still wrong", f"{found.fooled:,} of these {found.examples:,}"),
    ]
    if found.accuracy is not None:
        before, after = found.accuracy
        rows.append(("test images", f"{before:.2%} before, {after:.2%} after"))
    rows += [("written", output), ("checkpoint", checkpoint)]
    more = {"model": {"path": model, "sha256": loaded.sha256}, "runs": list(runs), "output": output, "checkpoint": checkpoint}
    out.result(_Written(found, more), rows)
    return Exit.DONE
