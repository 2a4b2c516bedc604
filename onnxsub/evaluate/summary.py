"""The table of a run: per network, method, gamma and verifier, how near and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from onnxsub.evaluate.paper_summary import paper_figures
from onnxsub.evaluate.row import Row

__all__ = ["Line", "difference_of", "summarise"]


@dataclass(frozen=True)
class Line:
    """One line of the table. None where no sample counts.

    Attributes:
        samples: rows of the ledger. misclassified, failed: among them.
        unbounded: among them, substitutes that have no decision boundary in the domain (proved).
        counted: samples whose two distances are both exact; the differences are over these. Protocol `paper`: samples that have
            both distances by the protocol, which the differences are of; undecided counts as not verified.
        difference, sd, worst: mean, standard deviation (n - 1) and largest of `|d_hat - d_bnd| / d_bnd`.
        bias: mean of `(d_hat - d_bnd) / d_bnd`.
        attack_difference: mean of `d_adv / d_bnd - 1` over the same samples: what a plain attack would have given; protocol
            `paper`: of the absolute value, with the bisection that the attack answers in place of `d_adv`.
        original_lower, original_upper: means of the certified bracket of the original by the substitute, divided by `d_bnd`.
        exact_bnd, exact_hat: how many distances were found exactly, of `timed` samples that both ends were searched for.
        prune_s, hat_s, bnd_s: mean seconds of building the substitute, of its distance, of the original's; time-outs count as they
            took.
        speed_up: `bnd_s / (prune_s + hat_s)`. speed_up_median: median of the same quotient per sample.
        run_hat_s, run_bnd_s, run_hat_sd, run_bnd_sd: protocol `paper`: mean and standard deviation of the seconds of `runs_hat` and
            `runs_bnd` solver runs of `paired` samples, which have runs on both sides. run_prune_s: seconds of pruning by the number
            of these runs. run_speed_up: `run_bnd_s / (run_hat_s + run_prune_s)`.
        certain, certain_difference: protocol `paper`: samples both of whose distances no undecided run has ended, and the mean
            difference over these.
        equal_radius, equal_radius_mean: protocol `paper`, `act`: the largest radius on which a substitute is provably the network,
            and their mean over the samples.
    """

    model: str
    method: str
    gamma: float
    verifier: str
    samples: int
    misclassified: int
    failed: int
    unbounded: int
    counted: int
    difference: float | None
    sd: float | None
    worst: float | None
    bias: float | None
    attack_difference: float | None
    original_lower: float | None
    original_upper: float | None
    timed: int
    exact_bnd: int
    exact_hat: int
    prune_s: float | None
    hat_s: float | None
    bnd_s: float | None
    speed_up: float | None
    speed_up_median: float | None
    run_hat_s: float | None
    run_bnd_s: float | None
    run_speed_up: float | None
    paired: int
    runs_bnd: int
    runs_hat: int
    run_bnd_sd: float | None
    run_hat_sd: float | None
    run_prune_s: float | None
    certain: int
    certain_difference: float | None
    equal_radius: float | None
    equal_radius_mean: float | None

    def to_json(self) -> dict[str, Any]:
        """Under the names of the fields."""
        return asdict(self)


def difference_of(row: Row) -> float | None:
    """`(d_hat - d_bnd) / d_bnd`, where both are exact and `d_bnd` is not 0; by the protocol where it is one."""
    if row.protocol_bnd and row.protocol_hat is not None:
        return (row.protocol_hat - row.protocol_bnd) / row.protocol_bnd
    if row.status != "exact" or not row.d_bnd_upper or row.d_hat_upper is None:
        return None
    return (row.d_hat_upper - row.d_bnd_upper) / row.d_bnd_upper


def summarise(rows: Iterable[Row]) -> list[Line]:
    """The lines, in the order in which networks, methods and gammas first occur."""
    groups: dict[tuple[str, str, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.method, row.gamma, row.verifier), []).append(row)
    return [_line(*key, group) for key, group in groups.items()]


def _line(model: str, method: str, gamma: float, verifier: str, rows: list[Row]) -> Line:
    counted = [r for r in rows if difference_of(r) is not None]
    signed = _values(counted, difference_of)
    absolute = [abs(d) for d in signed]
    timed = [r for r in rows if r.time_bnd is not None and r.time_hat is not None and r.time_prune is not None]
    prune, hat, bnd = (mean(_values(timed, attrgetter(k))) for k in ("time_prune", "time_hat", "time_bnd"))
    return Line(
        model=model,
        method=method,
        gamma=gamma,
        verifier=verifier,
        samples=len(rows),
        misclassified=sum(r.status == "misclassified" for r in rows),
        failed=sum(r.status == "failed" for r in rows),
        unbounded=sum(r.status_hat == "none" and r.time_hat is not None for r in rows),
        counted=len(counted),
        difference=mean(absolute),
        sd=_sd(absolute),
        worst=max(absolute, default=None),
        bias=mean(signed),
        attack_difference=mean(_values(counted, _attack_difference)),
        original_lower=mean(_values(counted, lambda r: _share(r.original_lower, r))),
        original_upper=mean(_values(counted, lambda r: _share(r.original_upper, r))),
        timed=len(timed),
        exact_bnd=sum(r.status_bnd == "exact" for r in timed),
        exact_hat=sum(r.status_hat == "exact" for r in timed),
        prune_s=prune,
        hat_s=hat,
        bnd_s=bnd,
        speed_up=None if bnd is None or prune is None or hat is None else _quotient(bnd, prune + hat),
        speed_up_median=_median(_values(timed, speed_up_of)),
        **paper_figures(rows),
    )


def speed_up_of(row: Row) -> float | None:
    """Seconds of the original's distance by those of pruning and the substitute's."""
    if row.time_bnd is None or row.time_prune is None or row.time_hat is None:
        return None
    return _quotient(row.time_bnd, row.time_prune + row.time_hat)


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return math.fsum(values) / len(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    centre = mean(values)
    if centre is None or len(values) < 2:
        return None
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    n = len(ordered)
    return None if not n else (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def _values(rows: Iterable[Row], value: Callable[[Row], float | None]) -> list[float]:
    return [v for v in map(value, rows) if v is not None]


def _attack_difference(row: Row) -> float | None:
    if row.protocol_bnd and row.protocol_adv is not None:
        return abs(row.protocol_adv - row.protocol_bnd) / row.protocol_bnd
    return _share(row.d_adv, row, 1.0)


def _share(distance: float | None, row: Row, less: float = 0.0) -> float | None:
    return None if distance is None or not row.d_bnd_upper else distance / row.d_bnd_upper - less


def _quotient(a: float, b: float) -> float | None:
    return a / b if b > 0 else None
