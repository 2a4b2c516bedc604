"""Figures: one look for all, colours that colour-blind people tell apart, SVG and PNG that repeat byte for byte."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxsub.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLACK", "COLOURS", "GREY", "MARKERS", "METHOD_NAMES", "Picture", "check_matplotlib", "draw"]

# Okabe and Ito 2008: eight colours that people with any common colour blindness tell apart; each has a marker of its own besides
COLOURS: Mapping[str, str] = MappingProxyType({"lin": "#0072B2", "act": "#009E73", "con": "#D55E00"})
MARKERS: Mapping[str, str] = MappingProxyType({"lin": "o", "act": "^", "con": "s"})
METHOD_NAMES: Mapping[str, str] = MappingProxyType(
    {"lin": "line to the adversarial point", "act": "piece at the anchor", "con": "constant"}
)
GREY = "#4d4d4d"
BLACK = "#000000"

_STYLE: Any = MappingProxyType(
    {
        "font.size": 11.0,
        "axes.titlesize": 11.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "legend.fontsize": 9.5,
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

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size)
        paint(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "onnxsub", "Title": title})
        figure.savefig(png, format="png", dpi=160, metadata={"Software": "onnxsub", "Title": title})
    return Picture(name, title, alt, caption, group, svg.getvalue(), png.getvalue())
