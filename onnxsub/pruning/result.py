"""What `prune` is asked for, and what it builds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from onnxsub.errors import OptionError
from onnxsub.layouts import LAYOUTS
from onnxsub.layouts.context import EXACT_ON
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult
from onnxsub.passes.bounds import check_eps
from onnxsub.passes.select import Selection, SelectOptions
from onnxsub.passes.substitute import METHODS, Lines
from onnxsub.provenance import VALID_RADIUS
from onnxsub.pruning.provenance import reached_gamma
from onnxsub.results import VERSION
from onnxsub.shown import Shown, Sight, number

__all__ = ["Adversarial", "PruneOptions", "PruneResult", "Substitute", "check_lists"]


@dataclass(frozen=True)
class PruneOptions:
    """What to build.

    Attributes:
        method: `con`, `lin` or `act`.
        select: which units to prune.
        layout: `inplace`, `compact` or `chain`; default: `chain`, which every verifier reads, or `compact` where smooth units
            (Sigmoid, Tanh) are kept or the model's element type cannot hold a chain.
        eps: radius of the ball whose bounds rank the units; default: `d_adv`.
        attack: how the adversarial point is searched.
        exact_on: where layout `chain` equals the substitute: `domain`, `ball` (of radius eps), or `auto`: the ball where the
            model's element type cannot hold what the domain takes, and for a network with windows (MaxPool) whose file would be ten
            times the model's bytes or have more Relus than it, else the domain.
        flat_input: layout `chain`, which takes flat `(1, n)` rows, for readers that know only Gemm and Relu.
        best_effort: where the time ends during Algorithm 1, write what the whole rounds left, in layout `inplace` unless one is
            asked for; half of the time is kept for writing.
    """

    method: str = "lin"
    select: SelectOptions = field(default_factory=SelectOptions)
    layout: str | None = None
    eps: float | None = None
    attack: AttackOptions = field(default_factory=AttackOptions)
    flat_input: bool = False
    best_effort: bool = False
    exact_on: str = "auto"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"--method {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        if self.layout is not None and self.layout not in LAYOUTS:
            raise OptionError(f"--layout {self.layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
        if self.exact_on not in EXACT_ON:
            raise OptionError(f"--exact-on {self.exact_on!r} is unknown; choose one of {', '.join(EXACT_ON)}")
        if self.exact_on != "auto" and self.layout not in ("chain", None):
            raise OptionError(f"--exact-on is for --layout chain; layout {self.layout} is exact everywhere")
        if self.flat_input and self.layout not in ("chain", None):
            raise OptionError(f"--flat-input is for --layout chain; layout {self.layout} keeps the shape of the model's input")
        if self.flat_input:
            object.__setattr__(self, "layout", "chain")  # no other layout may be chosen for it
        if self.eps is not None:
            check_eps(self.eps)


def check_lists(methods: Iterable[str], gammas: Iterable[float], rank: str) -> None:
    """Refuses what `PruneOptions` would refuse of any pair, in the words of the options that take lists.

    Raises:
        OptionError: says which of `--methods`, `--gammas` and `--rank` is wrong.
    """
    shares = list(gammas)
    for method in methods:
        for gamma in shares:
            try:
                PruneOptions(method=method, select=SelectOptions(gamma=gamma, rank=rank))
            except OptionError as error:
                text = str(error).replace("--method ", "--methods ").replace("--gamma ", "--gammas ")
                raise OptionError(text) from None


@dataclass(frozen=True, eq=False)
class Adversarial:
    """The point that a substitute is built to: its radius is that of the ball, and `lin` interpolates it.

    Attributes:
        x: float32, per-sample shape; None where none is known (then the radius is infinite).
        label: its class.
    """

    x: Array | None
    radius: float
    label: int | None

    @staticmethod
    def of(found: AttackResult) -> Adversarial:
        """What an attack found."""
        return Adversarial(found.x_adv, found.d_adv, found.adversarial_label)


@dataclass(frozen=True, eq=False)
class Substitute:
    """The local substitute g, in memory.

    Attributes:
        network: g from un-normalised inputs to logits, like `Query.network`.
        lines: the line of every unit; only those of pruned units are used.
        selection: which units are kept, and how they were found.
        x_adv: the adversarial point that `lin` also interpolates, float32; None if none was found.
        d_adv: its distance from the anchor; infinite if none was found.
        eps: radius of the ball whose bounds ranked the units.
    """

    network: Network
    lines: Lines
    selection: Selection
    x_adv: Array | None
    d_adv: float
    eps: float
    time_s: Mapping[str, float]

    @property
    def windows(self) -> int:
        """Windows of the model."""
        return sum(line.out_size for line in self.lines.windows.values())

    @property
    def windows_pruned(self) -> int:
        return sum(int((~self.selection.kept[name]).sum()) for name in self.lines.windows)


@dataclass(frozen=True, eq=False, repr=False)
class PruneResult(Shown):
    """A substitute and its file.

    Attributes:
        proto: the file's content; `onnxsub.model.save_model` writes it.
        preserves: largest `|g - f|` over the logits at the anchor and, where there is one, at the adversarial point, both files
            under onnxruntime.
        output: path that it was written to, None before.
        notes: what whoever uses the file should know: that it is exact on the ball only, large, or in another layout, and why.
        stage: what a time limit cut short: `select` (fewer rounds), `layout` (`inplace` in place of the layout that reads best).
        sight: anchor and adversarial point for notebooks, where the public call put them.
    """

    substitute: Substitute
    proto: ModelProto
    options: PruneOptions
    preserves: Mapping[str, float]
    head: Mapping[str, Any]
    units_total: int
    time_s: Mapping[str, float]
    output: str | None = None
    stage: str | None = None
    notes: tuple[str, ...] = ()
    sight: Sight | None = None

    @property
    def line(self) -> str:
        kept = sum(self.substitute.selection.kept_per_layer)
        return (
            f"{self.options.method}: {self.units_total - kept:,} of {self.units_total:,} units pruned, {kept:,} kept, "
            f"d_adv {number(self.substitute.d_adv)}, layout {self.layout}"
        )

    @property
    def exact_on(self) -> str:
        """Where the file equals the substitute: `ball` of radius eps or `domain` (layout `chain`), `everywhere` (the others)."""
        if self.layout != "chain":
            return "everywhere"
        return "ball" if any(p.key == VALID_RADIUS for p in self.proto.metadata_props) else "domain"

    @property
    def complete(self) -> bool:
        """Whether as many units are pruned as was asked for."""
        return self.substitute.selection.complete

    @property
    def layout(self) -> str:
        """The layout that was written."""
        assert self.options.layout is not None  # `prune` chose one
        return self.options.layout

    def to_json(self) -> dict[str, Any]:
        """The contract `onnxsub.prune/1`."""
        s, o = self.substitute, self.options
        kept = s.selection.kept_per_layer
        return {
            "schema": "onnxsub.prune/1",
            "version": VERSION,
            **self.head,
            "settings": {
                "gamma": o.select.gamma,
                "keep": o.select.keep,
                "gamma0": o.select.gamma0,
                "rank": o.select.rank,
                "bounds": o.select.bounds_for(self.units_total),
                "eps": s.eps,
                "best_effort": o.best_effort,
                "attack": o.attack.to_json(),
            },
            "method": o.method,
            "gamma": reached_gamma(o.select, s.selection, self.units_total),
            "units_total": self.units_total,
            "units_pruned": self.units_total - sum(kept),
            "windows_total": s.windows,
            "windows_pruned": s.windows_pruned,
            "kept_per_layer": kept,
            "d_adv": s.d_adv,
            "rounds": s.selection.rounds,
            "complete": self.complete,
            "stage": self.stage,
            "layout": self.layout,
            "exact_on": self.exact_on,
            "notes": list(self.notes),
            "output": self.output,
            "preserves": dict(self.preserves),
            "time_s": dict(self.time_s),
        }
