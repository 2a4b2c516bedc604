"""Kinds 11 to 14 of the stored examples: files that ask for much, that act on a terminal, that are not what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.case_judges import Judge, Question
from benchmarks.common import Done

__all__ = ["hostile"]

_SECONDS, _GB = 2.0, 1.0


def refused(*words: str) -> Judge:
    """One line with exit code 4 that holds one of these words, within 2 s of the processor (imports included) and 1 GB."""

    def judge(done: Done, folder: Path) -> str:
        if done.killed:
            return "killed"
        if done.code != 4:
            return f"exit code {done.code}"
        if not any(word in done.error for word in words):
            return f"another message: {done.error[:80]}"
        if done.cpu > _SECONDS or done.peak > _GB:
            return f"{done.cpu:.1f} s, {done.peak:.2f} GB"
        return ""

    return judge


def unsupported(done: Done, folder: Path) -> str:
    """`info` names an operator that is not supported, as fast."""
    slow = done.killed or done.cpu > _SECONDS or done.peak > _GB
    return "slow" if slow else "" if done.code == 0 and done.document.get("unsupported") else f"exit code {done.code}"


def harmless(done: Done, folder: Path) -> str:
    """Read or refused, without a character that acts on a terminal."""
    if done.killed or done.code not in (0, 4):
        return f"exit code {done.code}"
    text = done.error + "".join(map(str, done.document))
    return "a control character" if any(ord(c) < 32 or c in "\x7f\u202e" for c in text) else ""


def hostile(folder: Path) -> Iterator[Question]:
    """The questions about the files of a folder of examples."""
    x0 = np.full((1, 4), 0.5, dtype=np.float32)

    def asks(kind: str, path: Path, arguments: tuple[str, ...], expected: str, judge: Judge, more: object = None) -> Question:
        files = {path.name: path, **({} if more is None else {"more.npy": more})}
        return Question(kind, f"stored {path.name} {arguments[0]}", arguments, expected, judge, files, 30.0)  # type: ignore[arg-type]

    digits = Path(__file__).resolve().parents[1] / "models" / "digits.onnx"
    for path in sorted(folder.glob("1[1-3]-*/*")):
        kind = path.parent.name.replace("-", " ", 1)
        if path.suffix == ".onnx":
            named = kind[:2] == "13"
            judge, said = (harmless, "no control character") if named else (refused("limit", "operator", "not"), "one line")
            first = unsupported if kind[:2] == "11" else judge
            yield asks(kind, path, ("info", path.name), said, first)
            if not named:
                yield asks(kind, path, ("verify", path.name, "--x0", "more.npy", "--eps", "0.1", "--timeout", "2"), said, judge, x0)
        else:
            ask = ("verify", str(digits), path.name, "--timeout", "2")
            yield asks(kind, path, ask, "one line", refused("limit", "token", "digits", "deep", "characters"))
    path = folder / "14-eps-as-png" / "image.png"
    ask = ("attack", str(digits), "--x0", path.name)
    yield asks("14 eps-as-png", path, ask, "not a PNG or JPEG", refused("PNG", "not a readable image"))
