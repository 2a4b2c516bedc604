"""`onnxsub study finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxsub.cli.data_options import training_images
from onnxsub.cli.engine_options import engine_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import BudgetType, Names, SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output

__all__ = ["command"]

_WAYS = ("exact", "substitute", "attack", "region", "lbfgs")


@click.command("finetune", cls=Command, epilog="Example: onnxsub study finetune --data mnist --run finetune")
@click.option("--data", required=True, metavar="FILE|NAME", help="Images: an .npz with x_train to y_test, or a data set's name.")
@click.option("--run", "folder", required=True, metavar="DIR", help="Folder of the study; the same command goes on in it.")
@click.option("--architecture", default="lenet", show_default=True, metavar="ARCH", help="Of zoo train.")
@click.option("--recipe", default="fast", show_default=True, metavar="NAME", help="Of zoo train.")
@click.option("--epochs", type=int, metavar="N", help="Of the first training.  [default: the recipe's]")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--sources", type=Names(_WAYS), default="exact,region,lbfgs", show_default=True, metavar="LIST", help="Of examples.")
@click.option("--measures", type=Names(_WAYS), default="region,lbfgs", show_default=True, metavar="LIST", help="Of the figures.")
@click.option("--eps", type=BudgetType(), default="20/255", show_default=True, metavar="E", help="Radius of the figures.")
@click.option("--timeout", type=float, default=10.0, show_default=True, metavar="S", help="Seconds per image.")
@click.option("--anchors", type=int, default=500, show_default=True, metavar="N", help="Training images that examples are of.")
@click.option("--images", type=int, default=500, show_default=True, metavar="N", help="Test images that are measured.")
@click.option("--tuned", type=int, default=5, show_default=True, metavar="N", help="Epochs of the training on examples.")
@click.option("--rate", type=float, default=1e-3, show_default=True, metavar="R", help="Its highest learning rate.")
@click.option("--repeat", type=int, default=1, show_default=True, metavar="N", help="An example counts as so many images.")
@engine_options("Images")
@output_options
def command(data: str, folder: str, out: Output, **given: Any) -> int:
    """Train on adversarial examples beside training images, by who found them; frequency and severity before and after.

    A study that was interrupted goes on where it was when the same command is run again, and finds the same figures.
    """
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.samples import Choice, read_samples
    from onnxsub.study.finetune import FinetuneOptions
    from onnxsub.study.tuning import TuningOptions, study_tuning
    from onnxsub.study.tuning_report import tables, write_report

    tune = FinetuneOptions(given["tuned"], given["rate"], repeat=given["repeat"], seed=given["seed"])
    names = ("architecture", "recipe", "epochs", "seed", "sources", "measures", "eps", "timeout")
    options = TuningOptions(**{name: given[name] for name in names}, tune=tune)
    how = RunOptions(given["jobs"], given["engine"], given["address"])
    with out.progress() as progress:
        images = training_images(data, progress)
        anchors = read_samples(data, Choice(None, 1, given["anchors"]), "x_train", "y_train")
        tests = read_samples(data, Choice(None, 1, given["images"]), "x_test", "y_test")
        found = study_tuning(images, anchors, tests, options, Path(folder), how, progress=progress)
        written = write_report(found, Path(folder))
    rows = [("study", f"{len(found.accuracy)} networks on {found.data}"), ("written", ", ".join(map(str, written)))]
    out.result(found, rows, *([table.heads, *table.cells] for table in tables(found)))
    return Exit.DONE
