"""A bar for `progress=True`, at a terminal and in a notebook; a function in its place is told the same."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnxsub.errors import InputError

__all__ = ["AnyProgress", "Teller", "telling"]

AnyProgress: TypeAlias = "bool | Callable[..., Any] | None"
"""True: a bar. A function: called with the share done and a line of text. False, None: silence."""


@dataclass(frozen=True)
class Teller:
    """Tells how far a call is that consists of so many parts."""

    tell: Callable[[float, str], Any]
    parts: int = 1

    def share(self, part: int = 0) -> Callable[[float, str], None]:
        """For a part that tells the share that is done of itself."""

        def told(share: float, text: str) -> None:
            done = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
            self.tell((part + done) / self.parts, text if self.parts == 1 else f"{part + 1} of {self.parts}: {text}")

        return told

    def bracket(self, reach: float, part: int = 0) -> Callable[[float, float, str], None]:
        """For a part that tells its bracket: the share is how far the lower end is."""
        told = self.share(part)

        def ends(lower: float, upper: float, text: str) -> None:
            top = min(upper, reach)
            told(lower / top if top > 0 and math.isfinite(lower) else 0.0, f"[{lower:.4g}, {upper:.4g}] {text}")

        return ends

    def text(self, part: int = 0) -> Callable[[float, float, str], None]:
        """For a part that tells a radius and a line only."""
        told = self.share(part)
        return lambda lower, upper, text: told(0.0, text)


@contextmanager
def telling(progress: AnyProgress, parts: int = 1) -> Iterator[Teller | None]:
    """A teller for the time of the block; None for silence.

    Raises:
        InputError: `progress` is neither a truth value nor a function.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        with _bar() as tell:
            yield Teller(tell, parts)
    elif callable(progress):
        yield Teller(progress, parts)
    else:
        raise InputError(f"progress is {progress!r}; give True for a bar, or a function of a share and a text")


@contextmanager
def _bar() -> Iterator[Callable[[float, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if console.is_jupyter:
        if importlib.util.find_spec("ipywidgets") is None:
            with _line() as tell:
                yield tell
            return
        console = Console()  # a notebook shows what is displayed, not a stream
    text, share = TextColumn("{task.description}", markup=False), TextColumn("{task.percentage:>3.0f}%")
    columns = (text, BarColumn(), share, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, text: bar.update(task, completed=share, description=text)


@contextmanager
def _line() -> Iterator[Callable[[float, str], None]]:
    """One line that is written over, for notebooks in which nothing else can move."""
    last = 0.0

    def tell(share: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            print(f"\r{100 * share:3.0f} % {text[:_WIDTH]:<{_WIDTH}}", end="", flush=True)

    yield tell
    print(f"\r{'':<{_WIDTH + 6}}\r", end="", flush=True)


_PAUSE, _WIDTH = 0.2, 90
