"""Figures: one look for all, colours that colour-blind people tell apart, SVG and PNG that repeat byte for byte."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxsub.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

__all__ = [
    "BLACK", "COLOURS", "GREY", "LINES", "LOOKS", "MARKERS", "MARK_ALL", "METHOD_NAMES", "REFERENCE", "Picture",
    "check_matplotlib", "draw", "legend_below", "mark_size", "slug",
]  # fmt: skip

# Okabe and Ito 2008: eight colours that people with any common colour blindness tell apart; each has a marker of its own besides
COLOURS: Mapping[str, str] = MappingProxyType({"lin": "#0072B2", "act": "#009E73", "con": "#D55E00"})
MARKERS: Mapping[str, str] = MappingProxyType({"lin": "o", "act": "^", "con": "s"})
METHOD_NAMES: Mapping[str, str] = MappingProxyType(
    {"lin": "line to the adversarial point", "act": "piece at the anchor", "con": "constant"}
)
REFERENCE = "#CC79A7"
GREY = "#4d4d4d"
BLACK = "#000000"

# one line each, told apart by colour and by dash: several runs in one figure
LINES: Sequence[tuple[str, str]] = (
    ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#000000", "-"), ("#E69F00", "--"),
    ("#56B4E9", "-."), ("#999999", ":"),
)  # fmt: skip

# verdicts: a colour and a pattern; what is proved and what is refuted look the same whatever they are called
LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "proved": (COLOURS["act"], ""), "none": (COLOURS["act"], ""),
        "undecided": ("#F0E442", ".."),
        "violated": (COLOURS["con"], "//"), "example": (COLOURS["con"], "//"),
        "misclassified": ("#999999", "xx"), "tie": ("#999999", "xx"),
    }
)  # fmt: skip

MARK_ALL = 400
"""More marks than this are drawn as pixels, which keeps a page of 1,000 samples small."""

_STYLE: Any = MappingProxyType(
    {
        "font.size": 11.0,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "axes.titlesize": 11.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "legend.fontsize": 10.5,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "savefig.facecolor": "white",
        "svg.hashsalt": "onnxsub",  # names inside the file, and so its bytes, repeat
        "svg.fonttype": "path",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.constrained_layout.h_pad": 0.08,
    }
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure and what it says in words.

    Attributes:
        name: of its files, without ending.
        title: what is seen. alt: the same for those who do not see it, with its main figures. caption: how to read it.
        group: the network that it is of; empty for all of the run.
    """

    name: str
    title: str
    alt: str
    caption: str
    group: str
    svg: bytes = field(repr=False)
    png: bytes = field(repr=False)


def slug(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")


def check_matplotlib() -> None:
    """Raises MissingDependencyError where it is not installed."""
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError('figures need matplotlib; run pip install "onnxsub[report]"') from error


def draw(
    name: str, title: str, alt: str, caption: str, paint: Callable[[Figure], None], *, size: tuple[float, float], group: str = ""
) -> Picture:
    """A picture of `size` inches; `paint` fills the figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc in the working folder could ask for LaTeX, which is a program
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, dpi=200)  # of what is drawn as pixels within an SVG
        paint(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "onnxsub", "Title": title})
        figure.savefig(png, format="png", dpi=160, metadata={"Software": "onnxsub", "Title": title})
    return Picture(name, title, alt, caption, group, svg.getvalue(), png.getvalue())


def legend_below(figure: Figure, handles: Sequence[Artist] | None = None) -> None:
    """The legend under the axes, in as many columns as fit beside each other: of the handles, or of everything with a label."""
    from matplotlib.collections import PathCollection

    shown = [h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]] if handles is None else list(handles)
    if shown:
        # inches: a letter of the legend's size, and the mark before it
        one = 0.079 * max(len(str(h.get_label())) for h in shown) + 0.52
        columns = max(1, min(4, len(shown), int(figure.get_figwidth() / one)))
        legend = figure.legend(handles=shown, loc="outside lower center", ncols=columns)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([30.0])  # a mark is as large here as where there are few of them


def mark_size(count: int) -> float:
    """The area of a mark, so that many of them can still be told apart."""
    return float(min(34.0, max(5.0, 2000.0 / max(count, 1))))
