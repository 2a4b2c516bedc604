"""`onnxsub zoo prune`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable

__all__ = ["command"]


@click.command(
    "prune",
    short_help="Take the smallest weights away in rounds, train between.",
    cls=Command,
    epilog="Example: onnxsub zoo prune mnist-c-clean.pt --dataset mnist --share 0.9 --rounds 5 -o pruned.onnx",
)
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--dataset", metavar="NAME", help="The images that it was trained on: mnist, fashion-mnist or cifar10.")
@click.option("--data", "files", multiple=True, metavar="FILE", help="Images from an .npz in place of a download; may be repeated.")
@click.option("--share", type=float, required=True, metavar="S", help="Of the weights, to be 0 at the end: 0.9.")
@click.option("--rounds", type=int, metavar="R", help="[default: 1]")
@click.option("--epochs", type=int, metavar="N", help="Of training after each round.  [default: 2]")
@click.option("--rate", type=float, metavar="R", help="Highest learning rate of these.  [default: 0.001]")
@click.option("--attacked", type=int, metavar="N", help="Test images that are attacked, the first ones.  [default: all]")
@click.option("-o", "--output", required=True, metavar="FILE", help="The network; its card and its rounds (.pt) lie beside it.")
@output_options
def command(
    checkpoint: str, dataset: str | None, files: tuple[str, ...], attacked: int | None, output: str, out: Output, **given: Any
) -> int:
    """Iterative magnitude pruning of a finished training (zoo train): weights become 0, smallest first, and stay so.

    A pruning that was interrupted goes on where it was when the same command is run again.
    """
    if dataset is None and not files:
        raise click.UsageError("no images: say which images: --dataset mnist, or --data FILE.npz")
    from onnxsub.zoo.checkpoint import read_checkpoint
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import read_npz
    from onnxsub.zoo.iterative import Pruning, pruned
    from onnxsub.zoo.pipeline import write_model

    how = replace(Pruning(given.pop("share")), **{key: value for key, value in given.items() if value is not None})
    for path, endings in ((output, (".onnx",)), (str(Path(output).with_suffix(".json")), (".json",))):
        check_writable(path, endings)
    state = read_checkpoint(checkpoint)
    source = f"--dataset {dataset}" if dataset else " ".join(f"--data {Path(file).name}" for file in files)
    again = f"onnxsub zoo prune {Path(checkpoint).name} {source} --share {how.share:g} --rounds {how.rounds} --epochs {how.epochs}"
    with out.progress() as report:
        data = read_npz(files, dataset or Path(files[0]).stem) if files else load_dataset(dataset or "", progress=report)
        proto, card = pruned(state, data, how, Path(output).with_suffix(""), attacked=attacked, command=again, progress=report)
    card_file = write_model(proto, card, output)
    keys = card.to_json()
    figures = keys["figures"]
    rows = [
        ("network", f"{keys['name']}: {keys['architecture']['layers']}"),
        ("pruned", f"{keys['pruning']['sparsity']:.1%} of the weights are 0 after {how.rounds} rounds of {how.epochs} epochs"),
        ("accuracy", "not measured: there are no test images" if figures is None
         else f"{figures['accuracy']:.2%} of {figures['test_images']:,} test images"),
        ("written", output),
        ("card", str(card_file)),
    ]  # fmt: skip
    out.result(replace(card, keys={**keys, "written": {"model": output, "card": str(card_file)}}), rows)
    return Exit.DONE
