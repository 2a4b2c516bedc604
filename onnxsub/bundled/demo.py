"""The main job on the bundled network: attack, prune, exact distance of the substitute, and what it proves of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.budget import check_whole
from onnxsub.bundled import DIGITS, SEVEN
from onnxsub.files import make_folder
from onnxsub.model import save_model
from onnxsub.ops.base import Array
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, PruneResult, prune
from onnxsub.query import Query, make_query
from onnxsub.results import VERSION, jsonable
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.result import DistanceResult

__all__ = ["GAMMA", "Demo", "demo"]

GAMMA = 0.99
_OF_PRUNE = ("method", "gamma", "units_total", "units_pruned", "kept_per_layer", "d_adv", "preserves")
_SHADES = " .:-=+*#%@"

Report = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Demo:
    """What was done.

    Attributes:
        query: network and image. pruned: the substitute. written: its file. found: its distance, and what that proves.
    """

    query: Query
    pruned: PruneResult
    written: Path
    found: DistanceResult

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.demo/1`."""
        keys, original = self.pruned.to_json(), self.found.original
        assert original is not None  # a substitute was measured
        return {
            "schema": "onnxsub.demo/1",
            "version": VERSION,
            "model": {"path": str(DIGITS), "sha256": self.query.model.sha256},
            "anchor": keys["anchor"],
            **{name: keys[name] for name in _OF_PRUNE},
            "status": self.found.status,
            "lower": self.found.lower,
            "upper": self.found.upper,
            "original": jsonable(original.to_json()),
            "output": str(self.written),
            "time_s": self.found.time_s,
        }

    def story(self) -> str:
        """The same in words, with the image in characters."""
        keys, original = self.pruned.to_json(), self.found.original
        assert original is not None
        kept = keys["units_total"] - keys["units_pruned"]
        lines = [
            f"Network {DIGITS.name}: {self.query.network.units} ReLUs, {self.query.classes} classes.",
            f"Image {SEVEN.name}, a {self.query.label}:",
            _picture(self.query.x0[0]),
            f"1. Attack: an adversarial point at radius {keys['d_adv']:.5f}.",
            f"2. Prune: {keys['units_pruned']} of {keys['units_total']} ReLUs became affine, {kept} are left.",
            f"   Same logits at the image and at the adversarial point, within {max(keys['preserves'].values()):.1e}.",
            f"3. Distance of the substitute to its decision boundary: {_bracket(self.found)}, {self.found.status}.",
            "4. What that says about the network itself: its distance is",
        ]
        if original.exact:
            lines.append(f"   {_bracket(original)}, exactly: no pruned unit can leave its piece on that ball.")
        else:
            lines.append(f"   at most  {original.upper:.5f}  (a point that onnxruntime confirms on the original file)")
            lines.append(f"   at least {original.lower:.5f}  (certified by bounds of the original network)")
        seconds = self.found.time_s["total"]
        lines += ["", f"The substitute is an ordinary ONNX file: {self.written}   ({seconds:.1f} s for the distance)"]
        return "\n".join(lines) + "\n"


def demo(folder: str, *, threads: int | None = None, progress: Report | None = None) -> Demo:
    """Does the job and writes the substitute to `folder`.

    Raises:
        OutputError: the folder cannot be written. MissingDependencyError: no onnxruntime.
    """
    out = Path(folder)
    make_folder(out, "choose another -o")
    query = make_query(DIGITS, np.load(SEVEN, allow_pickle=False), threads=threads)
    options = PruneOptions(method="lin", select=SelectOptions(gamma=GAMMA), layout="inplace")
    tell = progress or _nothing
    pruned = prune(query, options, progress=lambda fraction, text: tell(fraction / 2, text))
    written = out / f"{DIGITS.stem}.lin-{GAMMA}.onnx"
    save_model(pruned.proto, str(written))
    wanted = DistanceOptions(Limits(threads=threads), via=pruned.options)
    found = distance(query, wanted, progress=lambda lower, upper, text: tell(0.5, text))
    check_whole(found.interrupted)
    return Demo(query, pruned, written, found)


def _nothing(fraction: float, text: str) -> None:
    """No progress is wanted."""


def _bracket(found: Any) -> str:
    lower, upper = found.lower, found.upper
    return f"{upper:.5f}" if upper - lower < 1e-5 else f"between {lower:.5f} and {upper:.5f}"


def _picture(image: Array) -> str:
    """Grey values in [0, 1] as characters."""
    return "\n".join("   " + "".join(2 * _SHADES[round(float(v) * (len(_SHADES) - 1))] for v in row) for row in image)
