"""The page and the package name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import onnxsub

PAGE = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text()


def test_the_page_lists_every_name_and_no_other() -> None:
    calls = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE))
    classes = set(re.findall(r"^\| `([A-Z]\w+|__version__)` \|", PAGE, re.MULTILINE))
    assert calls | classes == set(onnxsub.__all__)
    assert len(calls) > 15


def test_what_the_page_says_needs_no_deeper_name() -> None:
    deeper = re.findall(r"(?:from|import) (onnxsub\.\w[\w.]*)", PAGE)
    assert set(deeper) <= {"onnxsub.evaluate.run"}  # said to work, not needed
    for name in re.findall(r"onnxsub\.([A-Za-z_]\w*)", PAGE):
        assert hasattr(onnxsub, name) or name == "evaluate"
    for name in set(re.findall(r"\b([A-Z]\w+(?:Options|Result|Error|Settings|Limits))\b", PAGE)):
        assert name in onnxsub.__all__ or hasattr(__builtins__, name) or name in dir(__import__("builtins")), name
