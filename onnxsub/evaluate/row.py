"""A row of the results: one model, sample, method, gamma and verifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.solver_runs import run_statistics

__all__ = ["Row", "rows_of"]


@dataclass(frozen=True)
class Row:
    """What is known of one substitute and its original. None: not known (yet), infinite, or not applicable.

    Attributes:
        model, index, label, predicted: network, position in the data set, class defended, class predicted.
        method, gamma, verifier: of the substitute.
        d_adv, adversarial_label: of the attack, which all rows of a sample share.
        d_bnd_lower, d_bnd_upper: bracket of the original's distance.
        d_hat_lower, d_hat_upper: bracket of the substitute's.
        original_lower, original_upper, original_exact: what the substitute proves of the original.
        status: of the pair: `exact` (both are), `bracket`, `none` (no boundary or no adversarial point), `misclassified`, `failed`,
            `pending`. status_bnd, status_hat: of each. reason: one line where something failed.
        units_total, units_pruned, kept_per_layer: of the substitute.
        runs_bnd, runs_hat, nodes_bnd, nodes_hat: runs and nodes of the solver.
        run_s_bnd, run_s_hat: protocol `paper`: mean seconds of a solver run over the radii that the original was asked for.
        timed_bnd, timed_hat, run_sd_bnd, run_sd_hat: number and standard deviation (n - 1) of these.
        protocol_bnd, protocol_hat: protocol `paper`: the smallest radius that was not verified. certain_bnd, certain_hat: whether
            that is so for another reason than an undecided run. protocol_adv: the same bisection, answered by the attack.
        radii_bnd, radii_hat, undecided_bnd, undecided_hat: radii asked about, and those that an undecided run ended.
        equal_radius: protocol `paper`, `act`: the substitute is provably the network within it.
        time_attack, time_bnd, time_prune, time_hat, time_original, time_refine: seconds: of the attack (once per sample), of the
            original's distance, of building the substitute, of its distance, of what is proved and found of the original by it, of
            the attacks in between with `refine`.
    """

    model: str
    index: int
    label: int | None
    predicted: int | None
    method: str
    gamma: float
    verifier: str
    d_adv: float | None
    adversarial_label: int | None
    d_bnd_lower: float | None
    d_bnd_upper: float | None
    d_hat_lower: float | None
    d_hat_upper: float | None
    original_lower: float | None
    original_upper: float | None
    original_exact: bool | None
    status: str
    status_bnd: str
    status_hat: str
    reason: str | None
    units_total: int | None
    units_pruned: int | None
    kept_per_layer: tuple[int, ...] | None
    runs_bnd: int | None
    runs_hat: int | None
    nodes_bnd: int | None
    nodes_hat: int | None
    run_s_bnd: float | None
    run_s_hat: float | None
    time_attack: float | None
    time_bnd: float | None
    time_prune: float | None
    time_hat: float | None
    time_original: float | None
    time_refine: float | None
    protocol_bnd: float | None = None
    protocol_hat: float | None = None
    protocol_adv: float | None = None
    certain_bnd: bool | None = None
    certain_hat: bool | None = None
    radii_bnd: int | None = None
    radii_hat: int | None = None
    undecided_bnd: int | None = None
    undecided_hat: int | None = None
    timed_bnd: int | None = None
    timed_hat: int | None = None
    run_sd_bnd: float | None = None
    run_sd_hat: float | None = None
    equal_radius: float | None = None


def rows_of(ledger: Ledger) -> Iterator[Row]:
    """One row per substitute, in the order of the ledger, of as much as is done."""
    sample: tuple[str, int] | None = None
    attack: Unit | None = None
    originals: dict[str | None, Unit] = {}
    for unit in ledger.units():
        if (unit.model, unit.sample) != sample:
            sample, attack, originals = (unit.model, unit.sample), None, {}
        match unit.kind:
            case "attack":
                attack = unit
            case "original":
                originals[unit.verifier] = unit
            case "substitute":
                if attack is not None:
                    yield _row(attack, originals[unit.verifier], unit)
            case other:
                raise ValueError(f"a unit of kind {other!r} is none of an evaluation")


def _row(attack: Unit, original: Unit, substitute: Unit) -> Row:
    a, o, s = (unit.result or {} for unit in (attack, original, substitute))
    proved: Mapping[str, Any] = s.get("original") or {}
    bnd, hat = _status(original), _status(substitute)
    times_bnd, times_hat = o.get("time_s", {}), s.get("time_s", {})
    assert substitute.method is not None
    assert substitute.gamma is not None
    assert substitute.verifier is not None
    reasons = {u.reason: None for u in (attack, original, substitute) if u.state == "failed"}
    kept = s.get("kept_per_layer")
    return Row(
        model=substitute.model,
        index=substitute.sample,
        label=a.get("label"),
        predicted=a.get("predicted"),
        method=substitute.method,
        gamma=substitute.gamma,
        verifier=substitute.verifier,
        d_adv=a.get("d_adv"),
        adversarial_label=a.get("adversarial_label"),
        d_bnd_lower=o.get("lower"),
        d_bnd_upper=o.get("upper"),
        d_hat_lower=s.get("lower"),
        d_hat_upper=s.get("upper"),
        original_lower=proved.get("lower"),
        original_upper=proved.get("upper"),
        original_exact=proved.get("exact"),
        status=_both(bnd, hat),
        status_bnd=bnd,
        status_hat=hat,
        reason="; ".join(r for r in reasons if r) or None,
        units_total=a.get("units_total"),
        units_pruned=s.get("units_pruned"),
        kept_per_layer=None if kept is None else tuple(kept),
        runs_bnd=o.get("runs"),
        runs_hat=s.get("runs"),
        nodes_bnd=o.get("nodes"),
        nodes_hat=s.get("nodes"),
        time_attack=a.get("time_s", {}).get("attack"),
        time_bnd=times_bnd.get("bnd"),
        time_prune=times_hat.get("prune"),
        time_hat=times_hat.get("hat"),
        time_original=times_hat.get("original"),
        time_refine=times_hat.get("refine"),
        protocol_bnd=o.get("protocol"),
        protocol_hat=s.get("protocol"),
        protocol_adv=o.get("attack"),
        certain_bnd=o.get("certain"),
        certain_hat=s.get("certain"),
        radii_bnd=o.get("radii"),
        radii_hat=s.get("radii"),
        undecided_bnd=o.get("radii_undecided"),
        undecided_hat=s.get("radii_undecided"),
        equal_radius=s.get("equal_radius"),
        **run_statistics(o.get("solver_runs"), s.get("solver_runs")),
    )


def _status(unit: Unit) -> str:
    """Of a distance; the ledger's own state where there is none."""
    if unit.state != "done":
        return "failed" if unit.state == "failed" else "pending"
    return str((unit.result or {})["status"])


def _both(bnd: str, hat: str) -> str:
    for worst in ("failed", "pending", "misclassified", "bracket", "none"):
        if worst in (bnd, hat):
            return worst
    return "exact"
