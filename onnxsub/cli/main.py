"""`onnxsub COMMAND ...`: which command lives where, and how an error becomes one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import MappingProxyType
from typing import NoReturn, TextIO

import click

from onnxsub import __version__
from onnxsub.cli import signals
from onnxsub.cli.exits import Exit
from onnxsub.cli.options import Session
from onnxsub.cli.suggest import SuggestingGroup
from onnxsub.errors import OnnxsubError, OnnxsubWarning, OptionError, OutputError
from onnxsub.process import close_document, leave, open_streams, reserve_standard_output
from onnxsub.visible import visible

__all__ = ["COMMANDS", "cli", "main", "run"]

COMMANDS = MappingProxyType(
    {
        "demo": "The main job on a network and an image that come with the package.",
        "info": "What a model holds, and what of it is not supported.",
        "attack": "An adversarial point near the anchor: an upper bound of the distance.",
        "bounds": "Interval of every unit on a ball around the anchor.",
        "prune": "Write the local substitute: the same function near the anchor, almost all ReLUs gone.",
        "distance": "Distance from the anchor to the decision boundary, exact or as a bracket.",
        "verify": "Decide one radius: proved, violated or unknown.",
        "export-property": "Write the robustness question as a VNN-LIB file for other verifiers.",
        "compare": "How far two networks differ on a ball around the anchor.",
        "evaluate": "The experiment over a data set, in a run folder that survives a kill.",
        "robustness": "Robustness of a model over a data set: one number, its interval, what is guaranteed.",
        "gate": "Whether a new model is as robust as a baseline on the same samples: a check for CI.",
        "adversarial": "Adversarial examples with the smallest margin, per target class; tables and transfer.",
        "importance": "How important every unit is: scores in [0, 1] by one program over a few images.",
        "compress": "Remove the units that matter least: a smaller file, equal to the masked network.",
        "report": "Table, figures and one page of a run folder.",
        "demo2d": "Picture of a two-dimensional classifier and of its substitutes.",
        "study": "Experiments over many networks: regimes, importance, fine-tuning, trade-offs.",
        "zoo": "Networks to verify: list, train, export.",
    }
)
"""Command -> its line in `onnxsub --help`. The module `onnxsub.cli.<command>` is imported only when it is called."""


_NO_ARGUMENTS: tuple[type[click.UsageError], ...] = tuple(
    getattr(click.exceptions, name) for name in ("NoArgsIsHelpError",) if hasattr(click.exceptions, name)
)
"""What newer versions of click raise for a command without arguments: its help."""


class LazyGroup(SuggestingGroup):
    """Imports a command when it is called, so that `--help` and `--version` answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"onnxsub.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    epilog="Exit codes: 0 done or proved, 1 violated, 2 usage, 3 undecided within the limits, 4 bad input or missing solver, "
    "130 interrupted.   First use: onnxsub info model.onnx",
)
@click.version_option(__version__, prog_name="onnxsub")
def cli() -> None:
    """Local substitutes of ONNX classifiers, and the exact distance from an input to the decision boundary.

    Standard output carries the result and nothing else; --json makes it one JSON document.
    """


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code and never raises, except for `SystemExit` of shell completion."""
    args = list(sys.argv[1:] if argv is None else argv)
    if "_ONNXSUB_COMPLETE" in os.environ:
        cli.main(args, prog_name="onnxsub")  # click's own completion, which exits
    session = Session()
    try:
        return _invoked(args, session)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", Exit.INTERRUPTED)
    except OutputError as error:
        _trace(session)
        return _say(str(error), Exit.FAILED)
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # whatever a command raises becomes one line and an exit code
        _trace(session)
        if signals.interrupted():  # a C extension made another error of it
            return _say("interrupted", Exit.INTERRUPTED)
        return _failed(error)


def _invoked(args: list[str], session: Session) -> int:
    """Runs the command. Raises what is no matter of usage."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of other libraries: standard error is for messages to the user
                warnings.simplefilter("always", OnnxsubWarning)
                warnings.showwarning = _warned
            with cli.make_context("onnxsub", args, obj=session) as context:
                code = cli.invoke(context)
        sys.stdout.flush()
        # the interpreter drops an exception inside a destructor: the work went on to its end
        return int(Exit.INTERRUPTED if signals.interrupted() else code or 0)
    except click.exceptions.Exit as stop:
        return _flushed(stop.exit_code)
    except _NO_ARGUMENTS as error:
        print(error.format_message(), file=sys.stderr)
        return int(Exit.USAGE)
    except click.UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "onnxsub --help"
        return _say(f"{error.format_message().rstrip('.')}; see {where}", Exit.USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), Exit.USAGE)


def _failed(error: Exception) -> int:
    """One line for what went wrong."""
    if isinstance(error, OnnxsubError):
        return _say(str(error), Exit.USAGE if isinstance(error, OptionError) else Exit.FAILED)
    if isinstance(error, OSError):
        why = error.strerror or error
        return _say(f"the result cannot be written: {why}; check the disk and where the output goes", Exit.FAILED)
    if isinstance(error, MemoryError):
        return _say("not enough memory; take a smaller network, radius or --gamma 0.99", Exit.FAILED)
    return _say(f"internal error: {type(error).__name__}: {error}; run again with -v and report it", Exit.FAILED)


def main() -> NoReturn:
    """Runs the command line of this process and ends it."""
    # torch's worker threads spin while they wait; beside one busy process that makes short calls fifty times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    reserve_standard_output()
    try:
        code = run()
        close_document()
        signals.finish()
    except KeyboardInterrupt:  # while the last line was printed
        code = int(Exit.INTERRUPTED)
    leave(code)


def _say(message: str, code: Exit) -> int:
    print(f"onnxsub: {visible(' '.join(message.split()))}", file=sys.stderr)
    return int(code)


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    from onnxsub.cli.output import Output

    Output().note(str(message))


def _trace(session: Session) -> None:
    if session.verbose:
        traceback.print_exc()


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    return code


def _reader_gone() -> int:
    # what is still in the buffer goes nowhere, so that the interpreter's own flush at exit is silent too
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(Exit.PIPE)


if __name__ == "__main__":
    main()
