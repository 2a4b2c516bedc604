"""Questions to the command line with a right answer, and the judges that say whether what came is right.

A judge gets what the process left and the folder that it ran in. It answers with an empty string, or with one line that says what
is wrong; a line that begins with `undecided` means that nothing false was said, but less than could be known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks.common import Done
from benchmarks.sampling import Anchor, logits_by_onnxruntime, worst

__all__ = [
    "Judge", "Question", "anchored", "attacked", "bracket", "cancelled", "in_time", "original", "proved", "says",
    "supported", "violated",
]  # fmt: skip

Judge = Callable[[Done, Path], str]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Question:
    """One command line.

    Attributes:
        kind: number and name of the kind of fault.
        files: what lies in the folder it runs in: models, arrays, text, or files to copy.
        limit: seconds after which the process is killed: no answer at all.
    """

    kind: str
    variant: str
    arguments: tuple[str, ...]
    expected: str
    judge: Judge
    files: Mapping[str, ModelProto | Array | str | Path] = field(repr=False)
    limit: float = 120.0

    def lay(self, folder: Path) -> None:
        """Writes the files."""
        for name, value in self.files.items():
            path = folder / name
            if isinstance(value, ModelProto):
                onnx.save(value, path)
            elif isinstance(value, Path):
                path.write_bytes(value.read_bytes())
            elif isinstance(value, str):
                path.write_text(value)
            else:
                np.save(path, value)


def anchored(at: Anchor) -> tuple[str, ...]:
    """The options that say the domain and the normalisation of an anchor in `x0.npy`."""
    words = ["--x0", "x0.npy", "--label", str(at.label)]
    if (at.lower, at.upper) != (0.0, 1.0):
        words += ["--domain", repr(at.lower), repr(at.upper)]
    if (at.mean, at.std) != (0.0, 1.0):
        words += ["--mean", repr(at.mean), "--std", repr(at.std)]
    return tuple(words)


def _broken(done: Done) -> str:
    if done.killed:
        return f"no answer: killed after {done.seconds:.0f} s"
    if done.code not in (0, 1, 3) or not done.document:
        return f"no answer: exit code {done.code}, {done.error[:160]}"
    return ""


def violated(at: Anchor, eps: float, *, fed: bool = False, model: str = "model.onnx") -> Judge:
    """`violated`, exit code 1, and `w.npy` replays within the ball; `fed`: the witness of a property is what the model is fed."""

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        if done.status != "violated" or done.code != 1:
            return f"{'undecided: ' if done.status == 'unknown' else ''}{done.status}: {done.document.get('reason', '')}"
        if not (folder / "w.npy").is_file():
            return "violated, and no witness was written"
        x = np.load(folder / "w.npy").astype(np.float64).reshape(-1)
        low, high = np.clip(at.x0 - eps, at.lower, at.upper), np.clip(at.x0 + eps, at.lower, at.upper)
        if fed:
            low, high = at.fed(low).astype(np.float32), at.fed(high).astype(np.float32)
            slack = np.spacing(np.maximum(np.abs(low), np.abs(high)))
            low, high = low.astype(np.float64) - slack, high.astype(np.float64) + slack
        if not ((low <= x) & (x <= high)).all():
            return "the witness lies outside the ball"
        out = logits_by_onnxruntime(onnx.load(folder / model))((x if fed else at.fed(x))[None])
        margin = float(worst(out, at.label)[0])
        return "" if margin >= 0 else f"the witness does not replay, margin {margin:g}"

    return judge


def proved(done: Done, folder: Path) -> str:
    """`proved`, exit code 0."""
    if why := _broken(done):
        return why
    if done.status == "proved" and done.code == 0:
        return ""
    return f"{'undecided: ' if done.status == 'unknown' else ''}{done.status}: {done.document.get('reason', '')}"


def says(*words: str, reason: bool = False) -> Judge:
    """One of these statuses; with `reason`, `unknown` and `bracket` come with one."""

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        if done.status not in words:
            return done.status
        short = reason and done.status in ("unknown", "bracket") and not done.document.get("reason")
        return "undecided: no reason is given" if short else ""

    return judge


def bracket(
    d: float,
    *,
    tol: float = 1e-6,
    grid: float = 0.0,
    finite: bool = False,
    least: float = 0.0,
    reason: bool = False,
    known: bool = True,
) -> Judge:
    """`lower <= d <= upper`; `exact` only within `tol`; `none` only where d is infinite.

    Args:
        grid: spacing of float32 where the anchor lies: a witness is off by as much.
        finite: a witness is expected, so `upper` is finite.
        least: what `lower` reaches at least.
        reason: a bracket comes with a reason.
        known: d is the distance; else a real counterexample is known at d and nothing nearer is excluded.
    """

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        document = done.document
        lower, upper = float(document["lower"] or 0.0), document["upper"]
        upper = math.inf if upper is None else float(upper)
        if done.status == "none":
            return "" if math.isinf(d) else f"none, the distance is {d:.9g}"
        text = f"{done.status} [{lower:.9g}, {upper:.9g}], the distance is {d:.9g}"
        if lower > d * (1 + 1e-6) + 1e-9 or (known and upper < d * (1 - 1e-5) - grid - 1e-7):
            return text
        if done.status == "exact" and not upper - lower <= tol * (1 + 1e-6):
            return f"exact [{lower:.9g}, {upper:.9g}], wider than {tol:g}"
        if finite and math.isinf(upper):
            return f"undecided: no witness, the distance is {d:.9g}"
        if lower < least * (1 - 1e-6):
            return f"undecided: {text}; bounds prove {least:g}"
        return "undecided: no reason is given" if reason and done.status == "bracket" and not document.get("reason") else ""

    return judge


def original(d: float) -> Judge:
    """With `--via`: `original.lower <= d`, and `exact` only where its bracket is one."""

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        found = done.document["original"]
        lower, upper = float(found["lower"] or 0.0), math.inf if found["upper"] is None else float(found["upper"])
        word = "exact" if found["exact"] else "bracket"
        if lower > d * (1 + 1e-6) + 1e-9 or upper < d * (1 - 1e-5) - 1e-7:
            return f"original {word} [{lower:.9g}, {upper:.9g}], the distance is {d:.9g}"
        return ""

    return judge


def cancelled(at: Anchor, eps: float, *, fed: bool = False) -> Judge:
    """Real proof, float32 counterexamples: `violated` with a witness, or `proved` and a word that float32 is not covered."""

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        if done.status == "proved":
            return "" if "float32" in json_text(done) else "proved, and no word about float32"
        return violated(at, eps, fed=fed)(done, folder)

    return judge


def attacked(at: Anchor) -> Judge:
    """Strict in the file's own output, or the message says that the margin is that of the logits."""

    def judge(done: Done, folder: Path) -> str:
        if why := _broken(done):
            return why
        if not done.document.get("found", True) or not (folder / "w.npy").is_file():
            return "undecided: nothing found"
        x = np.load(folder / "w.npy").astype(np.float64).reshape(-1)
        out = logits_by_onnxruntime(onnx.load(folder / "model.onnx"))(at.fed(x)[None])
        if out.shape[1] == 1:
            out = np.concatenate([np.full_like(out, 0.5), out], axis=1)  # behind a Sigmoid
        margin = float(worst(out, at.label)[0])
        if margin > 0 or "logits" in json_text(done):
            return ""
        return f"called strict (margin {done.document.get('margin')}), the file's own margin is {margin:g}"

    return judge


def json_text(done: Done) -> str:
    """All that was said in words, in one string."""
    return " ".join(str(v) for k, v in done.document.items() if k not in ("model", "settings", "schema")) + done.error


def in_time(judge: Judge, *, cpu: float, peak: float = math.inf) -> Judge:
    """`judge`, and within so many seconds of the processor and GB of memory, imports included."""

    def both(done: Done, folder: Path) -> str:
        if done.cpu > cpu or done.peak > peak:
            return f"{done.status}, undecided within {cpu:g} CPU s and {peak:g} GB: it took {done.cpu:.1f} s and {done.peak:.1f} GB"
        return judge(done, folder)

    return both


def supported(done: Done, folder: Path) -> str:
    """`info` lists nothing that is not supported."""
    missing = done.document.get("unsupported") if done.code == 0 else None
    return "" if missing == [] else _broken(done) or f"not supported: {missing}"
