"""What decides the results of `onnxsub robustness`, checked when made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from onnxsub.errors import OptionError
from onnxsub.evaluate.robustness.one_place import OnePlace
from onnxsub.evaluate.settings import plain_settings
from onnxsub.metrics.intervals import check_confidence, hoeffding_samples
from onnxsub.reading import Reading
from onnxsub.region import InputSpace

if TYPE_CHECKING:
    from onnxsub.metrics.local import LocalOptions, LocalProperty
    from onnxsub.verifiers.distance import DistanceOptions

__all__ = ["DISTANCES", "METRICS", "RobustnessSettings", "heeding", "option_name"]

METRICS = ("satisfaction", "security", "accuracy", "pointwise", "global")
DISTANCES = ("exact", "substitute", "attack", "region", "lbfgs")

_BELONGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "error": ("global",),
        "sequential": ("global",),
        "quantitative": ("global",),
        "value_range": ("global",),
        "approximate": ("global",),
        "attack": ("security",),
        "distances": ("pointwise", "global"),
        "via": ("pointwise", "global"),
        "draws": ("accuracy",),
        "verifier": ("satisfaction", "pointwise", "global"),
        "solver": ("satisfaction", "pointwise", "global"),
        "nodes": ("satisfaction", "pointwise", "global"),
    }
)
"""Option -> the metrics that heed it; an option that nothing heeds is a mistake of the user."""

_FILL: Mapping[str, Any] = MappingProxyType({"verifier": "bab", "solver": "highs", "draws": 1000})
_PROVING = ("verifier", "solver", "nodes")
_UNPROVED = ("attack", "region", "lbfgs")
_OPTION = MappingProxyType({"value_range": "--range"})


def option_name(field: str) -> str:
    """The option of a field of `RobustnessSettings`."""
    return _OPTION.get(field, f"--{field}")


def heeding(field: str) -> tuple[str, ...] | None:
    """The metrics that heed a field of `RobustnessSettings`; None: all do."""
    return _BELONGS.get(field)


@dataclass(frozen=True)
class RobustnessSettings(OnePlace):
    """One metric of one property. None for what the metric does not heed, and for defaults; both are filled in when made.

    Attributes:
        metric: see `METRICS`. prop: a name of `onnxsub.metrics.local.PROPERTIES`. eps: radius, in un-normalised input units.
        delta, eta, lipschitz, gamma, norm: of the property, see `onnxsub.metrics.local.make_property`.
        error: half-width of the interval that is wanted; None: what the samples give. confidence: of every interval.
        sequential: stop as soon as the error is reached. quantitative: the mean of a value in place of the share that is robust.
        value_range: `(A, B)` of that value, where the property does not imply one.
        approximate: `fgsm` or `pgd`: bounds that value on one side by an attack, in place of the engines' bracket.
        attack: of `security`: `fgsm` or `pgd`; None: the attack of `onnxsub attack` and of the engines.
        distances: how `rho` is found: `exact`, `substitute`, `attack` or `region`. via: the substitute, `METHOD:GAMMA`.
        draws: uniform points per ball.
        verifier, solver: as for a single decision. timeout: seconds per sample; None for none.
        nodes: of the search per sample; None for no limit.
        seed, threads: of everything random, of one worker. domain, mean, std: see `onnxsub.region.InputSpace`.
        output, input_shape: see `onnxsub.reading.Reading`.
    """

    SCHEMA: ClassVar[str] = "onnxsub.run-robustness/1"
    COMMAND: ClassVar[str] = "robustness"

    metric: str
    eps: float
    prop: str = "cr"
    delta: float | None = None
    eta: float | None = None
    lipschitz: float | None = None
    gamma: float | None = None
    norm: str | None = None
    error: float | None = None
    confidence: float = 0.95
    sequential: bool = False
    quantitative: bool = False
    value_range: tuple[float, float] | None = None
    approximate: str | None = None
    attack: str | None = None
    distances: str | None = None
    via: str | None = None
    draws: int | None = None
    verifier: str | None = None
    solver: str | None = None
    timeout: float | None = None
    nodes: int | None = None
    seed: int = 0
    threads: int = 1
    domain: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: str | None = None
    input_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise OptionError(f"--metric {self.metric!r} is unknown; choose one of {', '.join(METRICS)}")
        for field, metrics in _BELONGS.items():
            if getattr(self, field) not in (None, False) and self.metric not in metrics:
                raise OptionError(f"{option_name(field)} belongs to --metric {' or '.join(metrics)}; leave it out")
        _check_numbers(self)
        _check_distances(self)
        _check_global(self)
        _check_attacks(self)
        for field, value in _FILL.items():
            heeded = self.metric in _BELONGS[field] and not (field in _PROVING and not self.proves)
            if heeded and getattr(self, field) is None:
                object.__setattr__(self, field, value)
        _check_error(self)
        _ = self.space
        _ = self.local
        _ = self.distance_options(self.threads) if self.needs_distances else self.local_options(self.threads)

    @property
    def proves(self) -> bool:
        """Whether an engine that proves is at work, as far as the metric has any."""
        return self.distances not in _UNPROVED and self.approximate is None

    @property
    def needs_distances(self) -> bool:
        """Whether a unit finds a distance `rho` rather than a verdict."""
        return self.distances is not None

    @property
    def local(self) -> LocalProperty:
        """The property at one anchor. Raises InputError for parameters that are missing, superfluous or impossible."""
        from onnxsub.metrics.local import make_property

        own = {"delta": self.delta, "eta": self.eta, "lipschitz": self.lipschitz, "gamma": self.gamma}
        return make_property(self.prop, self.eps, **own, norm=self.norm or "inf")

    @property
    def needs_label(self) -> bool:
        """Whether the metric speaks of the class of a sample."""
        return self.needs_distances or self.local.needs_label

    @property
    def values(self) -> tuple[float, float]:
        """`[A, B]`, in which what is averaged lies: given, or implied by the property (a share, a score, a normalised distance)."""
        return self.value_range or (0.0, 1.0)

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        return InputSpace(self.domain[0], self.domain[1], self.mean, self.std)

    @property
    def reading(self) -> Reading:
        """How the models are read."""
        return Reading(self.output, self.input_shape)

    def local_options(self, threads: int) -> LocalOptions:
        """How a verdict is found."""
        from onnxsub.metrics.local import LocalOptions

        verifier, solver = self.verifier or "bab", self.solver or "highs"
        return LocalOptions(verifier, solver, self.timeout, self.nodes, self.seed, threads)

    def distance_options(self, threads: int) -> DistanceOptions:
        """How a distance is found."""
        from onnxsub.passes.attack import AttackOptions
        from onnxsub.verifiers.distance import DistanceOptions
        from onnxsub.verifiers.options import Limits, MilpOptions

        limit = self.timeout if self.distances == "attack" else None  # else the distance shares out its own
        attack = AttackOptions(seed=self.seed, threads=threads, timeout=limit)
        limits = Limits(timeout=self.timeout, nodes=self.nodes, threads=threads, seed=self.seed)
        milp = MilpOptions(solver=self.solver or "highs")
        return DistanceOptions(limits, milp, via=_substitute(self, attack), attack=attack, verifier=self.verifier or "bab")

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RobustnessSettings:
        """What `to_json` gave; lists become tuples and what is missing is None. Raises InputError."""
        return RobustnessSettings(**plain_settings(RobustnessSettings, values))


def _check_numbers(s: RobustnessSettings) -> None:
    if not (math.isfinite(s.eps) and s.eps >= 0):
        raise OptionError(f"--eps {s.eps:g} is not a radius; give a finite number that is not negative")
    check_confidence(s.confidence)
    if s.timeout is not None and not (math.isfinite(s.timeout) and s.timeout > 0):
        raise OptionError(f"--timeout {s.timeout:g} is not a positive number; give one")
    if s.draws is not None and s.draws < 1:
        raise OptionError(f"--draws {s.draws} is not possible; give 1 or more")
    if s.threads < 1:
        raise OptionError(f"--threads {s.threads} is not possible; give 1 or more")
    if s.seed < 0:
        raise OptionError(f"--seed {s.seed} is negative; give 0 or more")


def _check_distances(s: RobustnessSettings) -> None:
    """Fills in how distances are found where the metric is made of them, and refuses that elsewhere."""
    wanted = s.metric == "pointwise" or (s.quantitative and s.prop == "cr")
    if wanted and s.distances is None:
        object.__setattr__(s, "distances", "exact")
    if s.metric == "pointwise" and s.prop != "cr":
        raise OptionError(f"--metric pointwise is about distances to another class; leave out --property {s.prop}")
    if s.distances is None:
        if s.via is not None:
            raise OptionError("--via names a substitute; add --distances substitute")
        return
    if not wanted:
        raise OptionError("--distances belongs to --metric pointwise, or to --metric global --quantitative of --property cr")
    if s.distances not in DISTANCES:
        raise OptionError(f"--distances {s.distances!r} is unknown; choose one of {', '.join(DISTANCES)}")
    for field in _PROVING:
        if s.distances in _UNPROVED and getattr(s, field) is not None:
            raise OptionError(f"{option_name(field)} proves, which --distances {s.distances} does not; leave it out")
    if s.distances == "substitute" and s.via is None:
        object.__setattr__(s, "via", "lin:0.99")
    if s.via is not None and s.distances != "substitute":
        raise OptionError(f"--via names a substitute; leave it out for --distances {s.distances}")


def _check_global(s: RobustnessSettings) -> None:
    if s.sequential and s.error is None:
        raise OptionError("--sequential stops as soon as an error is reached; say which one with --error E")
    if not s.quantitative:
        if s.value_range is not None:
            raise OptionError("--range is of the value of --quantitative; add that, or leave --range out")
        return
    if s.prop == "cr":
        if not s.eps > 0:
            raise OptionError("--quantitative of property cr is the mean of min(rho, eps) / eps; give an --eps above 0")
        if s.value_range is not None:
            raise OptionError("--quantitative of property cr lies between 0 and 1 by itself; leave out --range")
    elif s.value_range is None:
        if s.prop not in ("scr", "confidence"):
            raise OptionError(f"the value of property {s.prop} has no range of its own; give --range A B that it lies in")
    elif not (all(map(math.isfinite, s.value_range)) and s.value_range[0] < s.value_range[1]):
        raise OptionError(f"--range {s.value_range[0]:g} {s.value_range[1]:g} is not an interval; give the lower number first")


def _check_attacks(s: RobustnessSettings) -> None:
    from onnxsub.metrics.local import check_gradient_attack

    if s.attack is not None:
        check_gradient_attack("--attack", s.attack)
    if s.approximate is None:
        return
    check_gradient_attack("--approximate", s.approximate)
    if not s.quantitative:
        raise OptionError("--approximate bounds the value of --quantitative; add that, or leave --approximate out")
    if s.prop == "cr":
        raise OptionError("--approximate has no part in property cr, whose value is a distance; give --distances attack")
    for field in (*_PROVING, "error", "sequential"):
        if getattr(s, field) not in (None, False):
            what = "proves" if field in _PROVING else "needs both ends of the interval"
            raise OptionError(f"{option_name(field)} {what}, which --approximate does not; leave it out")


def _check_error(s: RobustnessSettings) -> None:
    """Refuses an error that is not between 0 and the range of the values."""
    if s.error is not None:
        hoeffding_samples(s.error, s.confidence, s.values[1] - s.values[0])


def _substitute(s: RobustnessSettings, attack: Any) -> Any:
    """The substitute that `via` names."""
    if s.via is None:
        return None
    from onnxsub.passes.select import SelectOptions
    from onnxsub.pruning.prune import PruneOptions

    method, _, share = s.via.partition(":")
    try:
        gamma = float(share)
    except ValueError:
        raise OptionError(f"--via {s.via!r} is not METHOD:GAMMA; give for example lin:0.99") from None
    return PruneOptions(method=method, select=SelectOptions(gamma=gamma, rank="influence"), attack=attack)
