"""How a result shows itself: in one line, and in a notebook with pictures of anchor, point that was found, and difference."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Shown", "Sight", "html_table", "image_of", "number"]

Array = np.ndarray[Any, np.dtype[Any]]

_PIXELS = 168
"""Width that an image is shown with at least; small ones are enlarged by whole factors."""

_FEATURES = 12
"""Features that are listed of an input that is no image: those that move farthest."""


@dataclass(frozen=True, eq=False)
class Sight:
    """An anchor and what was found near it, as inputs of the model in un-normalised units.

    Attributes:
        x0: per-sample shape. point: the same; None where nothing was found.
        label: class defended. found: class at the point.
        lower, upper: of the domain: black and white.
    """

    x0: Array = field(repr=False)
    point: Array | None = field(repr=False)
    label: int
    found: int | None
    lower: float
    upper: float


class Shown:
    """A result that says in one line what matters. `sight`, where it has one, is shown below that in a notebook."""

    sight: Sight | None = None

    @property
    def line(self) -> str:
        """What matters, on one line, without the name of the class."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.line})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        text = f"<div><code>{html.escape(repr(self))}</code></div>"
        return text if self.sight is None else text + _seen(self.sight)


def number(value: float | None) -> str:
    """A number in a line: four digits."""
    if value is None or math.isnan(value):
        return "none"
    return f"{value:.4g}"


def html_table(rows: Sequence[Mapping[str, Any]], most: int = 20) -> str:
    """Rows of equal keys as a table of HTML, the first `most` of them."""
    if not rows:
        return "<div>no rows</div>"
    head = "".join(f"<th>{html.escape(k)}</th>" for k in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(v))}</td>" for v in row.values()) + "</tr>" for row in rows[:most]
    )
    rest = f"<div>{len(rows) - most:,} more rows</div>" if len(rows) > most else ""
    return f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{rest}'


def image_of(x: Array) -> Array | None:
    """`(H, W)` or `(H, W, 3)` of a per-sample array in any of the usual layouts, a flat square included; None: no image."""
    flat = np.squeeze(x)
    side = round(float(np.sqrt(flat.size)))
    if flat.ndim == 1 and side * side == flat.size and side > 3:
        return flat.reshape(side, side)
    if flat.ndim == 2 and min(flat.shape) > 3:
        return flat
    if flat.ndim == 3 and flat.shape[0] == 3:
        return flat.transpose(1, 2, 0)
    return flat if flat.ndim == 3 and flat.shape[2] == 3 else None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return number(value) if isinstance(value, float) else str(value)


def _seen(sight: Sight) -> str:
    anchor = image_of(sight.x0)
    if anchor is None or importlib.util.find_spec("PIL") is None:
        return _features(sight)
    figures = [(_png(_grey(anchor, sight)), f"anchor, class {sight.label}")]
    if sight.point is not None:
        point = image_of(sight.point)
        difference = image_of(sight.point.astype(np.float64) - sight.x0)
        assert point is not None
        assert difference is not None
        figures.append((_png(_grey(point, sight)), "point that was found" + _class(sight)))
        reach = float(np.abs(difference).max())
        signed = difference if difference.ndim == 2 else difference.mean(axis=2)
        figures.append((_png(_diverging(signed, reach)), f"difference, -{reach:.3g} (violet) to {reach:.3g} (orange)"))
    shown = "".join(
        f'<figure style="display:inline-block;margin:4px 12px 4px 0;text-align:center;vertical-align:top">'
        f'<img alt="{html.escape(text)}" src="data:image/png;base64,{data}"/>'
        f'<figcaption style="font-size:85%;max-width:{_PIXELS + 40}px">{html.escape(text)}</figcaption></figure>'
        for data, text in figures
    )
    return f"<div>{shown}</div>"


def _class(sight: Sight) -> str:
    return "" if sight.found is None else f", class {sight.found}"


def _features(sight: Sight) -> str:
    """The features that move farthest, where an input is no image."""
    if sight.point is None:
        return ""
    x0, point = (np.asarray(x, dtype=np.float64).reshape(-1) for x in (sight.x0, sight.point))
    moved = np.argsort(-np.abs(point - x0), kind="stable")[:_FEATURES]
    columns = {"anchor": x0, "point": point, "difference": point - x0}
    rows = [{"feature": int(i), **{name: float(values[i]) for name, values in columns.items()}} for i in moved]
    return html_table(rows, _FEATURES)


def _grey(image: Array, sight: Sight) -> Array:
    scaled = np.clip((image - sight.lower) / (sight.upper - sight.lower), 0, 1)
    return np.asarray(np.rint(255 * scaled), dtype=np.uint8)


def _diverging(signed: Array, reach: float) -> Array:
    """Violet for what became less, white for what stayed, orange for what became more: `(H, W, 3)`."""
    share = np.clip(signed / reach if reach > 0 else np.zeros_like(signed), -1, 1)[..., None]
    violet, orange = np.array([84.0, 39.0, 136.0]), np.array([179.0, 88.0, 6.0])
    end = np.where(share < 0, violet, orange)
    return np.asarray(np.rint(255 + np.abs(share) * (end - 255)), dtype=np.uint8)


def _png(image: Array) -> str:
    from PIL import Image

    factor = max(1, -(-_PIXELS // image.shape[1]))
    large = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    data = io.BytesIO()
    Image.fromarray(large).save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode()
