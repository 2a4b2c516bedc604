"""What a user sees while a command works, on standard error.

At a terminal one line, rewritten four times a second: the time, the stage, what is being done. In a pipe, and in continuous
integration, a line every 30 s. With `-v` also a line for each stage as it begins. One such display belongs to the process, since
notes and results must not be written into its line.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from onnxsub.cli import signals

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Report", "Waiting", "shown", "the_display"]


class Report(Protocol):
    """How a long computation tells how far it is, see `Waiting.report`."""

    def __call__(self, share: float, text: str, known: str = "") -> None:
        """The share that is done, what is being done, what is known of the answer."""
        ...


_FIRST = "loading"  # what a command does before it says anything: its imports
_WORK = "working"  # and before its work does
_PATIENCE = 0.5
"""Seconds after which a terminal shows the line."""

_PIPE = 30.0
"""Seconds between two lines elsewhere."""

_TICK = 0.25
_LOG = 1.0  # least seconds between two lines of a log, stages that are new aside
_LOG_SHARE = 1 / 60  # of the time that the command has taken: a log of hours is not of thousands of lines
_NUMBERS = re.compile(r"[,\d]")  # a text is the same as another one up to the first of these
_CLEAR = b"\r\x1b[2K\x1b[?25h"  # an empty line, and the cursor back


class Waiting:
    """The display of a command that is at work.

    Args:
        quiet: nothing at all. verbose: a line for each stage.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._began = time.monotonic()
        self._error = sys.stderr
        self._quiet, self._verbose = quiet, verbose
        self._live = not os.environ.get("CI") and os.environ.get("TERM") != "dumb" and self._error.isatty()
        self._share, self._stage, self._detail, self._known = 0.0, _FIRST, "", ""
        self._stages: set[str] = set()
        self._logged: set[str] = set()
        self._last_log, self._unlogged = -_LOG, ""
        self._lock = threading.RLock()
        self._progress: Progress | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="onnxsub-waiting", daemon=True)

    def start(self) -> None:
        """From now on the user is told."""
        if not self._quiet:
            self._thread.start()

    def report(self, share: float, text: str, known: str = "") -> None:
        """What is being done, and which share in [0, 1] is done; 0: that is not known. One word names a stage, more is about it.

        Args:
            known: what is known of the answer; empty: as before.
        """
        if self._quiet:
            return
        self._share = share
        self._known = known or self._known
        if text.isalpha():
            self._stage = text
            self._stages.add(text)
            about = self._detail.partition(":")[0]
            if about in self._stages and about != text:
                self._detail = ""  # it was about another stage
        else:
            self._detail = text
        if self._verbose:
            self._log(text)

    def begin(self) -> None:
        """Files are read, the work begins."""
        self._stage = _WORK

    def say(self, text: str) -> None:
        """A line on standard error that stays."""
        with self._lock:
            if self._progress is not None:
                self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=sys.stderr)

    def stop(self) -> None:
        """Nothing more is shown; the terminal is as it was. The last word is logged, whenever it came."""
        if self._unlogged:
            self._log(self._unlogged, last=True)
        self._over.set()
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
                signals.screen(b"")

    @property
    def line(self) -> str:
        """What is being done, in one line."""
        inside = self._detail.removeprefix(f"{self._stage}: ")
        return "  ".join(part for part in (self._stage, self._known, inside) if part)

    def _watch(self) -> None:
        if not self._live:
            while not self._over.wait(_PIPE):
                self.say(f"onnxsub: {time.monotonic() - self._began:.0f} s, {self.line}")
            return
        if self._over.wait(_PATIENCE):
            return
        self._show()
        while not self._over.wait(_TICK):
            with self._lock:
                if self._progress is not None:
                    total = 1.0 if self._share > 0 else None
                    self._progress.update(self._progress.task_ids[0], total=total, completed=self._share, description=self.line)
                    self._progress.refresh()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, Task, TextColumn
        from rich.table import Column
        from rich.text import Text

        began = self._began

        class _Percent(TextColumn):
            def render(self, task: Task) -> Text:  # no share is known: no percentage
                return super().render(task) if task.total else Text("")

        class _Time(TextColumn):
            def render(self, task: Task) -> Text:
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                return Text(f"{minutes}:{seconds:02}")

        progress = Progress(
            _Time(""), BarColumn(bar_width=20), _Percent("{task.percentage:>3.0f}%"),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=Console(file=self._error), transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        progress.add_task(self.line, total=None)
        with self._lock:
            if not self._over.is_set():
                signals.screen(_CLEAR)
                progress.start()
                self._progress = progress

    def _log(self, text: str, *, last: bool = False) -> None:
        self._unlogged = text
        spent = time.monotonic() - self._began
        least = max(_LOG, spent * _LOG_SHARE)
        what = _NUMBERS.split(text, 1)[0]
        if last or what not in self._logged or spent - self._last_log >= least:
            self._unlogged = ""
            self._logged.add(what)
            self._last_log = spent
            self.say(f"[{spent:7.2f} s] {text if text.isalpha() or self._stage in (_FIRST, _WORK) else self.line}")


_current: list[Waiting] = []


@contextmanager
def shown(*, quiet: bool, verbose: bool) -> Iterator[Waiting]:
    """The display of the process, for the time of the block; the one that is there already where a block lies in another."""
    if _current:
        yield _current[0]
        return
    waiting = Waiting(quiet=quiet, verbose=verbose)
    _current.append(waiting)
    waiting.start()
    try:
        yield waiting
    finally:
        _current.clear()
        waiting.stop()


def the_display() -> Waiting | None:
    """The display of the process; None: there is none."""
    return _current[0] if _current else None
