"""What must hold for the gate to pass, and whether it does: passed, failed, or left open by the undecided samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxsub.errors import OptionError
from onnxsub.gate.comparison import Comparison, distance_of
from onnxsub.gate.options import MAX_DROP, GateOptions
from onnxsub.gate.pairs import Pair
from onnxsub.gate.words import drop_words, measure_of, share_words

__all__ = ["FAILED", "PASSED", "UNDECIDED", "Check", "check_asked", "checks_of", "outcome_of"]

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"


@dataclass(frozen=True)
class Check:
    """One condition.

    Attributes:
        name: the option that asks for it. limit: its value.
        lower, upper: between which the figure lies that is held against the limit.
        outcome: `passed`, `failed`, or `undecided` where the limit lies between them. said: all of that in a sentence.
    """

    name: str
    limit: float
    lower: float
    upper: float
    outcome: str
    said: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "limit": self.limit, "lower": self.lower, "upper": self.upper, "outcome": self.outcome,
            "said": self.said,
        }  # fmt: skip


def check_asked(options: GateOptions, *, compared: bool) -> None:
    """Raises OptionError where no condition is made, or one that needs a baseline without one."""
    if compared:
        return
    if options.max_drop is not None or options.significance is not None:
        raise OptionError("--max-drop and --significance compare with a baseline; give --baseline OLD.onnx or a run folder")
    if options.min_proved is None and options.min_distance is None:
        raise OptionError("nothing is asked of the model; give --baseline OLD.onnx, --min-proved SHARE or --min-distance D")


def checks_of(pairs: Sequence[Pair], comparison: Comparison | None, options: GateOptions) -> tuple[Check, ...]:
    """The conditions that the options and a baseline make."""
    found = []
    if comparison is not None:
        found.append(_drop(comparison, options))
    if options.min_proved is not None:
        found.append(_proved(pairs, options.min_proved))
    if options.min_distance is not None:
        found.append(_distance(pairs, options, options.min_distance))
    return tuple(found)


def outcome_of(checks: Sequence[Check], *, fail_on_undecided: bool) -> str:
    """`failed` where one check is, else `undecided` where one is (`failed` where that is to fail), else `passed`."""
    outcomes = [check.outcome for check in checks]
    if FAILED in outcomes:
        return FAILED
    if UNDECIDED in outcomes:
        return FAILED if fail_on_undecided else UNDECIDED
    return PASSED


def _drop(c: Comparison, options: GateOptions) -> Check:
    most, alpha = MAX_DROP if options.max_drop is None else options.max_drop, options.significance
    # what fails with the undecided samples read in the new model's favour fails whatever they are
    outcome = FAILED if c.least.beyond(most, alpha) else UNDECIDED if c.most.beyond(most, alpha) else PASSED
    said = drop_words(c, options, most)
    if c.old <= 0 and c.new[0] <= 0:  # nothing was compared
        said += "; the baseline guarantees nothing here, so nothing can be lost: check labels, --mean and --std, --eps, --nodes"
        outcome = UNDECIDED
    if alpha is not None:
        said += f", and only if significant at {alpha:g}: p = {c.most.p_value:.2g}"
    return Check("max-drop", most, c.least.drop, c.most.drop, outcome, said)


def _proved(pairs: Sequence[Pair], least: float) -> Check:
    n, proved = len(pairs), sum(p.new.robust for p in pairs)
    possible = proved + sum(p.new.open for p in pairs)
    # a share is compared as a count: 0.29 of 100 is 29
    needed = least * n - 1e-9
    outcome = PASSED if proved >= needed else FAILED if possible < needed else UNDECIDED
    said = f"{share_words(proved, n)} are proved, at least {100 * least:g} % are wanted"
    return Check("min-proved", least, proved / n, possible / n, outcome, said)


def _distance(pairs: Sequence[Pair], options: GateOptions, least: float) -> Check:
    ends = [distance_of(p.new, options.settings) for p in pairs]
    lower, upper = (sum(e[end] for e in ends) / len(ends) for end in (0, 1))
    outcome = PASSED if lower >= least else FAILED if upper < least else UNDECIDED
    said = f"the {measure_of('distance')} is {lower:.4g}" + ("" if upper - lower < 1e-5 else f" to {upper:.4g}")
    return Check("min-distance", least, lower, upper, outcome, f"{said}, at least {least:g} is wanted")
