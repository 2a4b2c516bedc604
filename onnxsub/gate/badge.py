"""The gate as a badge: one small SVG without scripts and fonts of its own."""

from __future__ import annotations

from html import escape

from onnxsub.gate.checks import FAILED, PASSED
from onnxsub.gate.result import GateResult
from onnxsub.gate.words import percent

__all__ = ["badge", "badge_words"]

# white on each of them has a contrast of at least 4.5
_COLOURS = {PASSED: "#1a7f37", FAILED: "#cf222e"}
_OPEN = "#7a5b00"
_LABEL = "#444c56"

_HEIGHT = 20
_PAD = 6
_NARROW, _WIDE = "iljtfI.,:;'|()[] ", "mwMW%@"


def badge_words(result: GateResult) -> tuple[str, str]:
    """Left and right text: the radius, and what the new model guarantees there."""
    n, eps = len(result.pairs), result.options.eps
    left = f"robust at {eps:g}"
    if result.options.metric == "distance":
        assert result.mean_distance is not None
        return "distance", f"{result.mean_distance:.3g} {result.verdict}"
    robust = sum(p.new.robust for p in result.pairs)
    word = "withstood" if result.options.metric == "security" else "proved"
    return left, f"{percent(robust / n)} {word}, {result.verdict}"


def badge(result: GateResult) -> bytes:
    """The SVG. Its letters are as wide as the reader's font makes them, within the width that is set for each text."""
    left, right = badge_words(result)
    colour = _COLOURS.get(result.verdict, _OPEN)
    widths = [_width(text) for text in (left, right)]
    boxes = [w + 2 * _PAD for w in widths]
    total = sum(boxes)
    title = escape(f"{left}: {right}")
    middles = (boxes[0] / 2, boxes[0] + boxes[1] / 2)
    texts = "\n".join(
        f'    <text x="{x:.1f}" y="14" textLength="{w:.1f}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
        for x, w, text in zip(middles, widths, (left, right), strict=True)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="{_HEIGHT}" role="img" aria-label="{title}">
  <title>{title}</title>
  <clipPath id="r"><rect width="{total:.0f}" height="{_HEIGHT}" rx="3"/></clipPath>
  <g clip-path="url(#r)">
    <rect width="{boxes[0]:.1f}" height="{_HEIGHT}" fill="{_LABEL}"/>
    <rect x="{boxes[0]:.1f}" width="{boxes[1] + 1:.1f}" height="{_HEIGHT}" fill="{colour}"/>
  </g>
  <g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,Geneva,sans-serif" font-size="11">
{texts}
  </g>
</svg>
""".encode()


def _width(text: str) -> float:
    """About what the text takes in a sans-serif of 11 pixels."""
    return sum(3.9 if c in _NARROW else 10.5 if c in _WIDE else 7.0 for c in text)
