"""What a report shows, and what it consists of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxsub.errors import InputError, OptionError
from onnxsub.report.page import Facts, page
from onnxsub.report.picture import Picture
from onnxsub.report.table import Table, to_latex, to_markdown
from onnxsub.results import Result

__all__ = ["Contents", "ReportOptions", "files_of"]

_SHOWN = 4  # samples as images, unless it is said how many


@dataclass(frozen=True)
class ReportOptions:
    """What is shown.

    Attributes:
        output: folder of the report; None: `report` in the run folder, `comparison` for several runs.
        images: how many samples are shown as images, per network; None: four. samples: which ones; None: spread over their
            distances.
        title: of the page; None: made of the networks' names.
        reference: CSV file of values to stand beside the distances; None: what the run folder keeps.
        group: of a grid: fields of the networks and of their cards by which they are grouped.
        tolerances: of a robustness run: at which estimates are drawn again, in units of the value; None: 0.2, 0.1, 0.05 and 0.02
            of its range, as far as there are samples.
        compare: of a grid: two networks that are compared sample by sample.
    """

    output: str | None = None
    images: int | None = None
    samples: tuple[int, ...] | None = None
    title: str | None = None
    reference: str | None = None
    group: tuple[str, ...] = ()
    compare: tuple[str, ...] | None = None
    tolerances: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 0:
            raise OptionError(f"--images {self.images} is negative; give 0 or more")
        if self.compare is not None and (len(self.compare) != 2 or self.compare[0] == self.compare[1]):
            raise OptionError(f"--compare {','.join(self.compare)} is not two networks; give two names, as the report has them")

        for error in self.tolerances or ():
            if not (math.isfinite(error) and error > 0):
                raise OptionError(f"--tolerances {error:g} is not possible; give positive numbers")

    @property
    def shown(self) -> int:
        """How many samples are shown as images."""
        return _SHOWN if self.images is None else self.images

    def refuse_of_images(self) -> None:
        """Raises InputError for what is of reports of other runs, which show samples."""
        for option, given in (
            ("--images shows samples of a run of onnxsub evaluate or adversarial", self.images is not None),
            ("--samples names images of a run of onnxsub evaluate or adversarial", self.samples is not None),
            ("--reference stands beside the distances of a run of onnxsub evaluate", self.reference is not None),
        ):
            if given:
                raise InputError(f"{option}; leave it out for this one")

    def refuse_of_grids(self) -> None:
        """Raises OptionError for what is of several models, metrics, properties or radii only."""
        for option, given in (("--group", bool(self.group)), ("--compare", self.compare is not None)):
            if given:
                raise OptionError(f"{option} is of a robustness run of several models, or of several such runs; leave it out")

    def check_joined(self) -> None:
        """Raises OptionError for what is of one run only."""
        for option, given in (
            ("--images", self.images is not None), ("--samples", self.samples is not None),
            ("--reference", self.reference is not None), ("--tolerances", self.tolerances is not None),
        ):  # fmt: skip
            if given:
                raise OptionError(f"{option} is of one run; leave it out, or give a single RUN")


@dataclass(frozen=True, eq=False)
class Contents:
    """A report before it is written.

    Attributes:
        files: name -> content. lines: of the table. counts: units of the run by state. spread: of distances over the samples.
    """

    files: Mapping[str, bytes]
    lines: tuple[Result, ...]
    counts: Mapping[str, int]
    spread: tuple[Result, ...] = ()


def files_of(facts: Facts, tables: Sequence[Table], pictures: Sequence[Picture], **texts: str) -> dict[str, bytes]:
    """The files that every report has: tables, figures, the page; tables of single samples stand on the page only.

    Args:
        texts: name without its ending -> content of further `.csv` files.
    """
    short = [t for t in tables if not t.orders]
    return {
        "table.md": to_markdown(short).encode(),
        "table.tex": to_latex(short).encode(),
        **{f"{name}.csv": text.encode() for name, text in texts.items()},
        **{f"figures/{p.name}.{kind}": getattr(p, kind) for p in pictures for kind in ("svg", "png")},
        "index.html": page(facts, tables, pictures).encode(),
    }
