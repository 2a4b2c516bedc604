"""A network and an image that come with the package, and the main job on them: `onnxsub demo`.

`digits.onnx` tells UCI handwritten digits apart, `digits_seven.npy` is a seven; both are files of `models/` in the repository
too, whose README.md is their card.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["DIGITS", "SEVEN"]

DIGITS = Path(__file__).parent / "digits.onnx"
"""A classifier of 832 ReLUs: input `image` float32 `[N, 1, 8, 8]` in [0, 1], ten classes."""

SEVEN = Path(__file__).parent / "digits_seven.npy"
"""A seven, float32 `[1, 8, 8]`."""
