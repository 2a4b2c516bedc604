"""What decides the results of an evaluation, checked when made."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from onnxsub.checked import checked
from onnxsub.errors import InputError, OptionError
from onnxsub.files import one_line
from onnxsub.reading import Reading
from onnxsub.region import InputSpace
from onnxsub.verifiers.registry import check_verifier

__all__ = ["PROTOCOLS", "Settings", "is_paper", "plain_settings"]

PROTOCOLS = ("fast", "paper")

_RANK = {"fast": "influence", "paper": "width"}
_VERIFIER = {"fast": "bab", "paper": "milp"}
_TOL: dict[str, float | None] = {"fast": 1e-6, "paper": None}
_METHODS = {"fast": ("lin",), "paper": ("con", "lin", "act")}
_INTERVAL = 0.5  # as published, with 60 seconds per solver run and twice as long per radius
_RUN = 60.0


def is_paper(protocol: str) -> bool:
    """Whether it is the reference experiment rather than the fast one. Raises InputError for a name that is neither."""
    if protocol not in PROTOCOLS:
        raise OptionError(f"--protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    return {"fast": False, "paper": True}[protocol]


@dataclass(frozen=True)
class Settings:
    """Samples x methods x gammas x verifiers, and how each distance is found.

    Attributes:
        protocol: `fast` (the fastest engines, wall time per sample) or `paper` (the reference experiment: projected gradient
            descent, `fastlin-ibp`, one MILP per radius and target with `timeout` for each, solver time per run).
        methods, gammas: of the substitutes; methods None: `lin`, all three with the protocol `paper`.
        verifiers: names of `onnxsub.verifiers.registry`; none: `bab`, `milp` with the protocol `paper`.
        solver: as for a single distance.
        rank: which units a substitute keeps; None: `influence`, `width` with the protocol `paper`.
        refine: re-anchor each substitute at the better point that it leads to.
        timeout: seconds per distance, None for none; with the protocol `paper` per solver run, None: 60.
        radius_timeout: of the protocol `paper`: seconds per radius; None: twice `timeout`.
        interval: of the protocol `paper`: radii are bisected on `[0, interval]`; None: 0.5.
        known_points: of the protocol `paper`: a radius within which a point is known already is not asked about.
        nodes: of the search per distance; None for no limit. The protocol `paper` has none.
        tol: `exact` means upper - lower <= tol; None: 1e-6. With the protocol `paper` the precision of the bisection; None: as
            published, 0.01 for images of MNIST's shape and 0.001 for CIFAR-10's.
        seed, threads, device: as for a single distance; one thread per worker by default.
        domain, mean, std: see `onnxsub.region.InputSpace`.
        output, input_shape: of every model, see `onnxsub.reading.Reading`.
    """

    SCHEMA: ClassVar[str] = "onnxsub.run/1"
    COMMAND: ClassVar[str] = "evaluate"

    protocol: str = "fast"
    methods: tuple[str, ...] = None  # type: ignore[assignment]  # filled in when made
    gammas: tuple[float, ...] = (0.9, 0.99)
    verifiers: tuple[str, ...] = ()
    solver: str = "highs"
    rank: str | None = None
    refine: bool = False
    timeout: float | None = None
    radius_timeout: float | None = None
    interval: float | None = None
    known_points: bool = False
    nodes: int | None = None
    tol: float | None = None
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    domain: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: str | None = None
    input_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        paper = is_paper(self.protocol)
        object.__setattr__(self, "rank", self.rank or _RANK[self.protocol])
        object.__setattr__(self, "verifiers", self.verifiers or (_VERIFIER[self.protocol],))
        object.__setattr__(self, "tol", _TOL[self.protocol] if self.tol is None else self.tol)
        object.__setattr__(self, "methods", _METHODS[self.protocol] if self.methods is None else self.methods)
        self._set_paper() if paper else self._refuse_paper()
        for option, values in (("--methods", self.methods), ("--gammas", self.gammas), ("--verifier", self.verifiers)):
            if not values:
                raise OptionError(f"{option} is empty; give at least one")
            if len(set(values)) < len(values):
                raise OptionError(f"{option} {','.join(map(str, values))} names something twice; give each once")
        for name in self.verifiers:
            check_verifier(name)
        if paper and (not set(self.verifiers) <= {"milp", "bab"} or self.refine):
            raise OptionError("--protocol paper is defined for --verifier milp or bab without --refine; leave these out")
        if paper and self.nodes is not None:
            raise OptionError("--protocol paper is defined without --nodes; leave it out")
        for option, value in (
            ("--timeout", self.timeout), ("--radius-timeout", self.radius_timeout), ("--interval", self.interval),
            ("--tol", self.tol),
        ):  # fmt: skip
            if value is not None and not (math.isfinite(value) and value > 0):
                raise OptionError(f"{option} {value:g} is not a positive number; give one")
        if self.threads < 1:
            raise OptionError(f"--threads {self.threads} is not possible; give 1 or more")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed} is negative; give 0 or more")
        _ = self.space
        self._check_passes()

    def _set_paper(self) -> None:
        timeout = _RUN if self.timeout is None else self.timeout
        radius = 2 * timeout if self.radius_timeout is None else self.radius_timeout
        values = {"timeout": timeout, "radius_timeout": radius, "interval": _INTERVAL if self.interval is None else self.interval}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _refuse_paper(self) -> None:
        if self.known_points:
            raise OptionError("--known-points is of --protocol paper; add that, or leave it out")
        for option, value in (("--interval", self.interval), ("--radius-timeout", self.radius_timeout)):
            if value is not None:
                raise OptionError(f"{option} is of --protocol paper; add that, or leave it out")

    def _check_passes(self) -> None:
        """Lets the passes say what they think of the options, before anything is computed."""
        from onnxsub.passes.attack import AttackOptions
        from onnxsub.pruning.result import check_lists
        from onnxsub.verifiers.options import Limits, MilpOptions

        check_lists(self.methods, self.gammas, self.rank or "")
        AttackOptions(device=self.device)
        MilpOptions(solver=self.solver)
        Limits(nodes=self.nodes, tol=self.tol or 1e-6)

    @property
    def tolerance(self) -> float:
        """`tol`, which is never None once made, except with the protocol `paper`."""
        assert self.tol is not None
        return self.tol

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        return InputSpace(self.domain[0], self.domain[1], self.mean, self.std)

    @property
    def reading(self) -> Reading:
        """How the models are read."""
        return Reading(self.output, self.input_shape)

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Settings:
        """What `to_json` gave; lists become tuples and what is missing is None. Raises InputError."""
        return Settings(**plain_settings(Settings, values))


def plain_settings(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a dataclass of settings, from what `asdict` and a TOML file made of them: lists become tuples.

    Raises:
        InputError: the dataclass has no such field, or a value is not of its type.
    """
    unknown = sorted(set(values) - {f.name for f in fields(kind)})
    if unknown:
        raise InputError(f"run.toml has the unknown setting {unknown[0]!r}, so another version made it; choose another --run")
    kinds = typing.get_type_hints(kind)
    return {name: _plain(name, value, kinds[name]) for name, value in values.items()}


def _plain(name: str, value: Any, kind: Any) -> Any:
    several = any(typing.get_origin(k) is tuple for k in (kind, *typing.get_args(kind)))
    try:
        if several and not isinstance(value, list | tuple | None):
            raise InputError(f"{name} is {value!r}; give a list")
        return checked(name, value, kind)
    except InputError as error:
        raise InputError(f"run.toml is damaged: {one_line(error, 160)}; restore it or choose another --run") from error
