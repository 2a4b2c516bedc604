"""Where words go: the result to standard output and nothing else; progress, notes and logs to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxsub.cli import signals
from onnxsub.cli.waiting import Report, shown, the_display
from onnxsub.process import document
from onnxsub.visible import visible

if TYPE_CHECKING:
    from onnxsub.results import Result
    from onnxsub.verifiers.result import DistanceResult, VerifyResult

__all__ = ["Output", "Report", "solver_row"]


@dataclass(frozen=True)
class Output:
    """How the user wants to be told.

    Attributes:
        json: one JSON document in place of the table.
        quiet: neither progress nor notes.
        verbose: one line per stage as it begins, with the time since the start.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False

    def result(self, result: Result, rows: Sequence[tuple[str, str]], *tables: Sequence[Sequence[str]]) -> None:
        """Print a result: its JSON form, or `rows` (name, value) and then `tables` (their first rows name the columns)."""
        _over()
        if self.json:
            from onnxsub.results import dumps

            self.text(dumps(result) + "\n")
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(highlight=False, file=document())
        if not console.is_terminal:
            console.width = 120  # a file or a pipe has no width of its own
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(Text(visible(name)), Text(visible(value)))
        with console.capture() as printed:
            console.print(grid)
            for table in filter(None, tables):
                body = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
                for i, heading in enumerate(table[0]):
                    body.add_column(Text(visible(heading)), justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
                for line in table[1:]:
                    body.add_row(*[Text(visible(cell)) for cell in line])
                console.print()
                console.print(body)
        self.text("\n".join(line.rstrip() for line in printed.get().splitlines()) + "\n")

    def text(self, text: str) -> None:
        """Print `text` as it is, as the result."""
        _over()
        print(text, end="", file=document())

    def note(self, text: str) -> None:
        """Say something on standard error that the user should know."""
        if not self.quiet:
            _say(f"note: {' '.join(text.split())}")

    def stopped(self, text: str) -> None:
        """Say in one line on standard error that a limit ended the command without a result; `--quiet` does not silence it."""
        _say(f"onnxsub: {' '.join(text.split())}")

    def step(self, text: str) -> None:
        """What the command does now, before it knows more: one word."""
        display = the_display()
        if display is not None:
            display.report(0.0, text)

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """A `Report` for the time of the block, in which Ctrl-C finds something to hand out."""
        signals.begin()
        with shown(quiet=self.quiet, verbose=self.verbose) as display:
            display.begin()
            yield display.report


def _say(line: str) -> None:
    line = visible(line)
    display = the_display()
    if display is None:
        print(line, file=sys.stderr)
    else:
        display.say(line)


def _over() -> None:
    """The result comes: nothing may be written into its lines."""
    display = the_display()
    if display is not None:
        display.stop()


def solver_row(result: DistanceResult | VerifyResult) -> tuple[str, str]:
    """Who found an answer, as a row of a table."""
    if result.solver is None:
        return "verifier", f"{result.verifier}, {result.runs} runs"
    return "solver", f"{result.solver}, {result.nodes:,} nodes in {result.runs} runs"
