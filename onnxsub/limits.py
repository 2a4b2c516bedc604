"""Budgets of reading: what a file of a stranger may cost, in one place. `docs/limits.md` says what each is about.

They are looked at before memory is taken. What is as large as its own file is no bomb, so most budgets are of what a small file
asks for. `ONNXSUB_LIMITS` raises them (`values=2e8,tokens=1e7`), for workers and helpers too.
"""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, fields
from pathlib import Path

from onnxsub.errors import InputError, OptionError

__all__ = ["VARIABLE", "Limits", "check_regular", "limits", "parse_limits"]

VARIABLE = "ONNXSUB_LIMITS"


@dataclass(frozen=True)
class Limits:
    """What one file may ask for.

    Attributes:
        constants: bytes of the constants that a model computes, or eight times those that it stores.
        weights: bytes of the constants that operators read, each as often as it is read, or eight times those that it stores.
        values: numbers in all tensors of a model, for one sample.
        operations: multiplications of one inference.
        inference: seconds of one inference of a model.
        unpacked: bytes of an array, a table or a text in a compressed file, or eight times the size of the file.
        pixels: of an image.
        columns: of a table.
        text: bytes of a property. tokens: of a property. digits: characters of one of its tokens.
    """

    constants: float = 2.0**28
    weights: float = 2.0**30
    values: float = 2.0**27
    operations: float = 2.0**38
    inference: float = 30.0
    unpacked: float = 2.0**29
    pixels: float = 2.0**26
    columns: float = 2.0**20
    text: float = 2.0**26
    tokens: float = 4e6
    digits: float = 400.0

    def check(self, name: str, found: float, what: str, *, at_least: float = 0.0, error: type[InputError] = InputError) -> None:
        """Raises `error` where `found` is above the limit of that name, or above `at_least` where that is more.

        Args:
            what: the beginning of the message: who takes what.
        """
        most = max(float(getattr(self, name)), at_least)
        if not found <= most:
            trust = f"if the file is to be trusted, raise it: --limits {name}={_more(found)}"
            raise error(f"{what}: {found:.4g}, which is too large for the limit of {most:.4g}; {trust}")


def limits() -> Limits:
    """The limits of this process. Raises OptionError where the variable says something else."""
    text = os.environ.get(VARIABLE, "")
    return parse_limits(text) if text else _DEFAULT


def parse_limits(text: str) -> Limits:
    """`values=2e8,tokens=1e7` as limits, the others as they are. Raises OptionError."""
    known = {field.name for field in fields(Limits)}
    found: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, number = part.partition("=")
        if name.strip() not in known:
            raise OptionError(f"--limits has no {name.strip()[:40]!r}; choose from {', '.join(sorted(known))}")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not value > 0:
            raise OptionError(f"--limits {part[:60]!r} is no positive number; give for example {name.strip()}=1e9")
        found[name.strip()] = value
    return Limits(**found)


def check_regular(path: Path, what: str) -> None:
    """Raises InputError where a path leads to a pipe or a device, which may have no end; nothing where it leads nowhere."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{what} is a pipe or a device; give a regular file")


def _more(found: float) -> str:
    return f"{found * 1.1:.2g}" if math.isfinite(found) else "inf"


_DEFAULT = Limits()
