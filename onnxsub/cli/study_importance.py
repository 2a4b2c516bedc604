"""`onnxsub study importance`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxsub.cli.data_options import training_images
from onnxsub.cli.engine_options import engine_options
from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import BudgetType, SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output

__all__ = ["command"]


@click.command("importance", cls=Command, epilog="Example: onnxsub study importance --data mnist --run importance")
@click.option("--data", required=True, metavar="FILE|NAME", help="Images: an .npz with x_train to y_test, or a data set's name.")
@click.option("--run", "folder", required=True, metavar="DIR", help="Folder of the study; the same command goes on in it.")
@click.option("--architecture", default="mlp:50x2", show_default=True, metavar="ARCH", help="Of zoo train.")
@click.option("--recipe", default="full", show_default=True, metavar="NAME", help="Of zoo train.")
@click.option("--epochs", type=int, metavar="N", help="Of the first training.  [default: the recipe's]")
@click.option("--adv", type=BudgetType(), default="0", metavar="EPS", help="Every training on attacked images: 0.1, or 8/255.")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--threshold", type=float, default=1e-3, show_default=True, metavar="T", help="Units that score below it go.")
@click.option("--rounds", type=int, default=1, show_default=True, metavar="N", help="Of scoring, removing, retraining.")
@click.option("--scored", type=int, default=10, show_default=True, metavar="N", help="Training images that scores are from.")
@click.option("--scoring", type=float, default=600.0, show_default=True, metavar="S", help="Seconds for the scores of a round.")
@click.option("--retrained", type=int, default=5, show_default=True, metavar="N", help="Epochs of each retraining.")
@click.option("--draws", type=int, default=10, show_default=True, metavar="N", help="Of random removal, for comparison.")
@click.option("--images", type=int, default=100, show_default=True, metavar="N", help="Test images, each towards all classes.")
@click.option("--eps", type=BudgetType(), default="0.05", show_default=True, metavar="E", help="Radius of the pairs.")
@click.option("--verifier", type=click.Choice(["bab", "milp"]), default="bab", show_default=True, help="How a pair is solved.")
@click.option("--timeout", type=float, default=60.0, show_default=True, metavar="S", help="Seconds per pair.")
@engine_options("Pairs")
@output_options
def command(data: str, folder: str, out: Output, **given: Any) -> int:
    """A network and what importance scores leave of it: accuracy, and exact adversarial examples of both.

    A study that was interrupted goes on where it was when the same command is run again, and finds the same figures.
    """
    from onnxsub.compress.choose import Choice
    from onnxsub.compress.options import ImportanceOptions
    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.samples import Choice as Rows
    from onnxsub.evaluate.samples import read_samples
    from onnxsub.study.importance import StudyOptions, study_importance
    from onnxsub.study.importance_report import tables, write_report
    from onnxsub.study.rounds import RoundsOptions

    seed, adv = given["seed"], given["adv"]
    removal = RoundsOptions(
        Choice("scores", given["threshold"], seed=seed), given["rounds"], given["scored"], ImportanceOptions(seed=seed),
        given["scoring"], adv, given["retrained"], seed=seed,
    )  # fmt: skip
    options = StudyOptions(
        given["architecture"], given["recipe"], given["epochs"], adv, seed, removal, given["draws"], given["eps"],
        given["verifier"], timeout=given["timeout"],
    )  # fmt: skip
    how = RunOptions(given["jobs"], given["engine"], given["address"])
    with out.progress() as progress:
        images = training_images(data, progress)
        samples = read_samples(data, Rows(None, 1, given["images"]), "x_test", "y_test")
        found = study_importance(images, samples, options, Path(folder), how, progress=progress)
        written = write_report(found, Path(folder))
    rows = [("study", f"{found.images} images of {found.data}, {given['retrained']} epochs of retraining")]
    rows += [(name, f"{m['accuracy']:.2%}, {m['pairs']['example']} examples of {m['pairs']['planned']} pairs")
             for name, m in found.models.items()]  # fmt: skip
    rows.append(("written", ", ".join(map(str, written))))
    out.result(found, rows, *([table.heads, *table.cells] for table in tables(found)[:2]))
    for reason, count in found.failures.items():
        out.note(f"{count} pairs failed: {reason}")
    if found.interrupted:
        out.note("interrupted: this is what was done so far; the same command goes on with it")
        return Exit.INTERRUPTED
    return Exit.DONE
