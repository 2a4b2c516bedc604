"""The options that say which samples of which data set, and how a model is fed: for every command that takes many samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.option_types import PerFeature, Positions

if TYPE_CHECKING:
    from onnxsub.evaluate.labels import Classes
    from onnxsub.evaluate.samples import Choice, Samples
    from onnxsub.zoo.images import ImageSet

__all__ = ["DATA", "classes_stated", "data_options", "feeding_options", "read_data", "training_images"]

Function = Callable[..., Any]

DATA = ("data", "array", "labels", "classes", "index", "limit", "every")
"""Names of the data options in a function."""


def data_options(*, required: bool = False) -> Callable[[Function], Function]:
    """`--data`, `--array`, `--labels`, `--classes`, `--index`, `--limit`, `--every`; `required`: `--data` must be given."""
    return _together(
        click.option(
            "--data", required=required, metavar="FILE|FOLDER|NAME",
            help="Samples and labels: .npz, .npy, .csv, .parquet, a folder with folders of images per class, a data set's name.",
        ),
        click.option(
            "--array", metavar="NAME", help="Array of the images, or columns of a table.  [default: x_test, the only one, or all]"
        ),
        click.option(
            "--labels", "--label-column", "labels", metavar="NAME",
            help="Array or column of the labels, an .npy file, or 'predicted'.  [default: y_test for x_test, a column label, ...]",
        ),
        click.option(
            "--classes", metavar="LIST|FILE",
            help="Which class a name is: cat,dog; cat=0,dog=1; a .txt or .json file; sorted; numeric.  [default: sorted]",
        ),
        click.option("--index", type=Positions(), metavar="LIST", help="Which samples, for example 0,5,10-20."),
        click.option("--limit", type=int, metavar="N", help="At most so many samples."),
        click.option("--every", type=int, metavar="K", help="Every K-th sample.  [default: 1]"),
    )  # fmt: skip


feeding_options: Callable[[Function], Function]
"""`--mean` and `--std`."""


def classes_stated(given: Mapping[str, Any]) -> Classes | None:
    """What `--classes` says. Raises InputError."""
    from onnxsub.evaluate.labels import read_classes

    return None if given["classes"] is None else read_classes(given["classes"])


def read_data(given: Mapping[str, Any], choice: Choice) -> Samples:
    """The chosen samples of `--data`."""
    from onnxsub.evaluate.samples import read_samples

    return read_samples(given["data"], choice, given["array"], given["labels"], classes_stated(given))


def training_images(source: str, report: Callable[[float, str], None] | None) -> ImageSet:
    """The images of an `.npz` (`x_train`, `y_train`, `x_test`, `y_test`), or of a data set by its name. Raises InputError."""
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import read_npz

    return read_npz([source], Path(source).stem) if source.endswith(".npz") else load_dataset(source, progress=report)


def _together(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def apply(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


feeding_options = _together(
    click.option(
        "--mean", type=PerFeature(), metavar="M..|FILE",
        help="A model wants (x - mean) / std: mean, one, per channel or per feature, or a .npy or .csv file.",
    ),
    click.option("--std", type=PerFeature(), metavar="S..|FILE", help="The same: std."),
)  # fmt: skip
