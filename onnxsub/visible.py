"""Text out of files as it may be shown: nothing in a name moves a cursor, turns a line round or becomes a formula.

A terminal executes control characters, a reader is misled by marks that reverse the order of letters, and a spreadsheet computes a
cell that begins with an equals sign.
"""

from __future__ import annotations

import re

__all__ = ["safe_cell", "visible"]

_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters but the line break
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction, line ends, what has no width
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, tags
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    """`text` with its control characters and marks of direction as escapes, as `\\x1b`; line breaks stay."""
    return _HIDDEN.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def safe_cell(text: str) -> str:
    """A text as a cell of a CSV file: what a spreadsheet would compute begins with an apostrophe; numbers stay."""
    text = visible(text)
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
