"""The options that commands share, and the `Request` that they become."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxsub.budget import Budget
from onnxsub.cli.command import Command, Session, typed
from onnxsub.cli.data_options import feeding_options
from onnxsub.cli.features import domain_of
from onnxsub.cli.option_types import DomainType, SeedType, VerifierName
from onnxsub.cli.output import Output
from onnxsub.cli.reading import READING, read_model, rounded, space_of
from onnxsub.errors import InputError, OptionError

if TYPE_CHECKING:
    from onnxsub.features import Weights
    from onnxsub.query import Query
    from onnxsub.region import InputSpace

__all__ = [
    "Command", "Request", "Session", "anchor_options", "check_tighten", "limit_threads", "output_options", "positive",
    "typed", "verifier_options",
]  # fmt: skip

Function = Callable[..., Any]


def positive(value: float, option: str) -> float:
    """`value` when it is a positive finite number. Raises OptionError."""
    if not (math.isfinite(value) and value > 0):
        raise OptionError(f"{option} {value:g} is not a positive number; give one")
    return value


def limit_threads(threads: int | None) -> None:
    """Tells torch how many threads it may use; None: all."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Request:
    """The anchor, the limits and the way out that every command with an anchor takes.

    Attributes:
        model, x0: paths. scores, input_shape: how the file is read (`onnxsub.cli.reading`).
        index, array, label, domain, mean, std: how the anchor is read (see `onnxsub.anchors`, `InputSpace`).
        timeout: seconds or None. threads: None for all cores. seed, device: of everything random, of torch.
    """

    model: str
    scores: str | None
    input_shape: str | None
    x0: str
    index: int | None
    array: str | None
    label: int | None
    domain: tuple[float, float] | str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    timeout: float | None
    threads: int | None
    seed: int
    device: str
    out: Output

    def __post_init__(self) -> None:
        if self.timeout is not None:
            positive(self.timeout, "--timeout")
        if self.threads is not None and self.threads < 1:
            raise OptionError(f"--threads {self.threads} is not possible; give 1 or more, or leave it out for all cores")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed} is negative; give 0 or more")

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        from onnxsub.region import InputSpace

        return InputSpace(*domain_of(self.domain), self.mean, self.std)

    def budget(self) -> Budget:
        """The clock of the command, started now: behind the imports, which do not count, and before the files are read."""
        return Budget(self.timeout)

    def query(self, target: int | None = None, scale: Weights | None = None) -> Query:
        """Reads model and anchor and checks them against each other.

        Args:
            target: the one other class to ask about; None: all of them.
            scale: weights of the features; None: radii are in un-normalised input units.
        """
        self.out.step("reading")
        from onnxsub.anchors import read_anchor
        from onnxsub.provenance import warn_if_other_anchor
        from onnxsub.query import make_query

        model = read_model(self)
        space = space_of(model, self.space.fitted(model.input_shape))
        x0 = read_anchor(self.x0, model.input_shape, index=self.index, array=self.array, domain=space.grey)
        limit_threads(self.threads)
        query = make_query(model, x0, self.label, space=space, threads=self.threads, target=target, scale=scale)
        warning = warn_if_other_anchor(model, query.anchor_sha256)
        for note in (*model.notes, *rounded(space, x0), *([warning] if warning else [])):
            self.out.note(note)
        return query

    def refuse_device(self, command: str) -> None:
        """Raises InputError for `--device cuda`: `command` computes on the processor."""
        if self.device != "cpu":
            raise InputError(f"{command} runs on the processor only; leave out --device {self.device}")

    def anchor_line(self, query: Query) -> str:
        """The anchor in one line of a table."""
        row = "" if self.index is None else f" row {self.index}"
        wrong = f", but the model says {query.predicted}" if query.predicted != query.label else ""
        against = "" if query.target is None else f", against class {query.target} alone"
        scaled = "" if query.space.units is None else "; radii in units of each feature's scale"
        return f"{self.x0}{row}, class {query.label}{wrong}{against}{scaled}"


def _verbose(context: click.Context, _: click.Parameter, value: bool) -> bool:
    session = context.find_object(Session)
    if value and session is not None:
        session.verbose = True
    return value


def check_tighten(tighten: str, verifier: str) -> None:
    """Refuses a choice that the verifier would not heed."""
    if tighten != "cut" and verifier != "milp":
        raise click.UsageError(f"--tighten {tighten} is of --verifier milp; leave it out for {verifier}")


_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
    click.option("--quiet", is_flag=True, help="No progress and no notes on standard error."),
    click.option(
        "-v", "--verbose", is_flag=True, is_eager=True, callback=_verbose, help="Log every stage; show where an error arose."
    ),
)

_X0 = ("--x0",)
_X0_HELP = "Anchor: .npy, .npz, .png, .jpg, .csv or .parquet."

_ANCHOR = (
    click.argument("model", metavar="MODEL"),
    *READING,
    click.option(*_X0, required=True, metavar="FILE", help=_X0_HELP),
    click.option("--index", type=int, metavar="N", help="Row of FILE, when it holds many."),
    click.option("--array", metavar="NAME", help="Array of an .npz FILE, or columns of a table, by commas."),
    click.option("--label", type=int, metavar="K", help="Class to defend.  [default: the predicted one]"),
    click.option(
        "--domain", type=DomainType(), default=(0.0, 1.0), metavar="LO HI|FILE",
        help="Valid input range, or a .npy file (2, ...) with one per feature.  [default: 0 1]",
    ),
    feeding_options,
    click.option(
        "--timeout", type=float, metavar="S", help="Seconds after which the best answer so far is given.  [default: none]"
    ),
    click.option("--threads", type=int, metavar="N", help="[default: all cores]"),
    click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random."),
    click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where torch computes."),
)

_VERIFIER = (
    click.option(
        "--verifier", type=VerifierName(), default="bab", show_default=True, metavar="NAME",
        help='bab (branch and bound), milp, or a tool: marabou[:PYTHON], command:"run_instance.sh", nnenum:"run_instance.sh".',
    ),
    click.option(
        "--solver", type=click.Choice(["highs", "gurobi", "scip"]), default="highs", show_default=True,
        help="Of --verifier milp, and of what bab leaves to a program.",
    ),
    click.option(
        "--nodes", type=int, metavar="N",
        help="Nodes of the search after which the best answer so far is given.  [default: no limit]",
    ),
    click.option(
        "--memory", type=float, default=4.0, show_default=True, metavar="GIB",
        help="What bab's open nodes may take; then it goes depth-first.",
    ),
    click.option(
        "--tighten", type=click.Choice(["cut", "lp", "none"]), default="cut", show_default=True,
        help="Of --verifier milp: how units are bounded before a program.",
    ),
)


def output_options(function: Function) -> Function:
    """`--json`, `--quiet`, `-v`; the function gets them as `out: Output`."""

    @functools.wraps(function)
    def wrapper(*, as_json: bool, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        return function(out=Output(json=as_json, quiet=quiet, verbose=verbose), **kwargs)

    return _apply(_OUTPUT, wrapper)


def verifier_options(function: Function) -> Function:
    """`--verifier`, `--solver`, `--nodes`, `--memory` and `--tighten`."""
    return _apply(_VERIFIER, function)


def anchor_options(function: Function, *, required: bool = True) -> Function:
    """`MODEL` and the options that every command with an anchor takes; the function gets them as `request: Request`.

    Args:
        required: whether the command cannot do without an anchor; else `request.x0` may be empty.
    """

    @functools.wraps(function)
    def wrapper(**kwargs: Any) -> Any:
        shared = {field.name: kwargs.pop(field.name) for field in dataclasses.fields(Request)}
        return function(request=Request(**shared), **kwargs)

    free = click.option(*_X0, default="", metavar="FILE", help=_X0_HELP)
    options = _ANCHOR if required else (_ANCHOR[0], *READING, free, *_ANCHOR[4:])
    return _apply(options, output_options(wrapper))


def _apply(options: tuple[Callable[[Function], Function], ...], function: Function) -> Function:
    for option in reversed(options):
        function = option(function)
    return function
