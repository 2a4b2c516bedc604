"""Where words go: the result to standard output and nothing else; progress, notes and logs to standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxsub.cli import signals

if TYPE_CHECKING:
    from onnxsub.results import Result
    from onnxsub.verifiers.result import DistanceResult, VerifyResult

__all__ = ["Output", "Report", "solver_row"]

_PATIENCE = 1.0
"""Seconds after which a computation shows a bar."""

Report = Callable[[float, str], None]
"""`(fraction in [0, 1], what is being done)`: how a long computation tells how far it is."""


@dataclass(frozen=True)
class Output:
    """How the user wants to be told.

    Attributes:
        json: one JSON document in place of the table.
        quiet: neither progress nor notes.
        verbose: one line per stage, with the time since the start.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def result(self, result: Result, rows: Sequence[tuple[str, str]], *tables: Sequence[Sequence[str]]) -> None:
        """Print a result: its JSON form, or `rows` (name, value) and then `tables` (their first rows name the columns)."""
        if self.json:
            from onnxsub.results import dumps

            print(dumps(result))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 120  # a file or a pipe has no width of its own
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(name), Text(value))
        with console.capture() as printed:
            console.print(grid)
            for table in filter(None, tables):
                body = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
                for i, heading in enumerate(table[0]):
                    body.add_column(Text(heading), justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
                for line in table[1:]:
                    body.add_row(*[Text(cell) for cell in line])
                console.print()
                console.print(body)
        print("\n".join(line.rstrip() for line in printed.get().splitlines()))

    def note(self, text: str) -> None:
        """Say something on standard error that the user should know."""
        if not self.quiet:
            print(f"note: {' '.join(text.split())}", file=sys.stderr)

    def stopped(self, text: str) -> None:
        """Say in one line on standard error that a limit ended the command without a result; `--quiet` does not silence it."""
        print(f"onnxsub: {' '.join(text.split())}", file=sys.stderr)

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A `Report` for the time of the block: a bar at a terminal after a second, lines with `-v`, else nothing."""
        signals.begin()
        start = time.monotonic()
        if self.verbose:
            yield _log(start)
        elif self.quiet or os.environ.get("CI") or not sys.stderr.isatty():
            yield _nothing
        else:
            with _bar() as report:
                yield report


def solver_row(result: DistanceResult | VerifyResult) -> tuple[str, str]:
    """Who found an answer, as a row of a table."""
    if result.solver is None:
        return "verifier", f"{result.verifier}, {result.runs} runs"
    return "solver", f"{result.solver}, {result.nodes:,} nodes in {result.runs} runs"


def _nothing(fraction: float, text: str) -> None:
    """No progress is wanted."""


def _log(start: float) -> Report:
    last = ""

    def report(fraction: float, text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            print(f"[{time.monotonic() - start:7.2f} s] {text}", file=sys.stderr)

    return report


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=1.0)
    lock = threading.Lock()
    over = False

    def show() -> None:
        with lock:
            if not over:
                bar.start()

    # a stage may take long without a word, so the bar does not wait for the next report
    timer = threading.Timer(_PATIENCE, show)
    timer.daemon = True
    timer.start()
    try:
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)
    finally:
        timer.cancel()
        with lock:
            over = True
            bar.stop()
