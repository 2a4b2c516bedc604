"""What a run of `onnxsub evaluate` has found, as its report tells it: tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnxsub.evaluate.by_sample import SampleDistances, by_sample
from onnxsub.evaluate.numbers import Digits
from onnxsub.evaluate.row import Row
from onnxsub.evaluate.spread import DistanceSpread, spreads
from onnxsub.evaluate.summary import Line, summarise
from onnxsub.report.distance_tables import digits_of, reference_table, samples_table, spread_table
from onnxsub.report.table import Table, certificates, distances

__all__ = ["Distances", "group_name"]


def group_name(model: str, verifier: str, several: bool) -> str:
    """How a network is called, with the verifier where the run has several."""
    return f"{model}, {verifier.partition(':')[0]}" if several else model


@dataclass(frozen=True, eq=False)
class Distances:
    """Everything that is read off the rows of a run.

    Attributes:
        lines: per network, method, gamma and verifier. samples: per network, verifier and sample. spread: of those.
        names: (network, verifier) -> what its group is called.
    """

    lines: tuple[Line, ...]
    samples: tuple[SampleDistances, ...]
    spread: tuple[DistanceSpread, ...]
    names: Mapping[tuple[str, str], str]

    @staticmethod
    def of(rows: Sequence[Row], references: Mapping[tuple[str, int], float]) -> Distances:
        """From the rows."""
        samples = by_sample(rows, references)
        several = len({s.verifier for s in samples}) > 1
        names = {(s.model, s.verifier): group_name(s.model, s.verifier, several) for s in samples}
        return Distances(tuple(summarise(rows)), tuple(samples), tuple(spreads(samples)), names)

    @cached_property
    def groups(self) -> dict[str, list[SampleDistances]]:
        """The samples of each group."""
        found: dict[str, list[SampleDistances]] = {group: [] for group in self.names.values()}
        for s in self.samples:
            found[self.names[s.model, s.verifier]].append(s)
        return found

    @cached_property
    def digits(self) -> dict[str, Digits]:
        """The decimals of the distances of each group."""
        return {group: digits_of(samples) for group, samples in self.groups.items()}

    def summaries(self, trainings: Mapping[str, str], protocol: str) -> list[Table]:
        """The tables over all samples."""
        tables = [spread_table(self.spread, self.digits, self.names), distances(self.lines, trainings, protocol)]
        more = (certificates(self.lines), reference_table(self.samples, self.names))
        return [*tables, *(table for table in more if table is not None)]

    def single(self) -> list[Table]:
        """The tables of single samples, per group and gamma."""
        return [
            samples_table(group, gamma, samples, self.digits[group])
            for group, samples in self.groups.items()
            for gamma in sorted({x.gamma for s in samples for x in s.substitutes})
        ]

    @property
    def lead(self) -> list[str]:
        """Per network how far its samples are from a boundary, then its nearest substitute and what a plain attack gives."""
        return [sentence for key in self.names for sentence in self._sentences(key)]

    def _sentences(self, key: tuple[str, str]) -> list[str]:
        group = self.names[key]
        found = []
        upper = next((x for x in self.spread if (x.model, x.verifier) == key and x.quantity == "d_bnd_upper" and x.counted), None)
        if upper is not None:
            exact = sum(s.status == "exact" for s in self.groups[group])
            near = self.digits[group].near
            found.append(
                f"{group}: half of {upper.counted:,} samples lie at most {near(upper.median)} from a boundary, the nearest "
                f"{near(upper.min)}, the farthest {near(upper.max)}; {exact:,} of these distances are exact, of the others the "
                "upper end counts."
            )
        compared = [x for x in self.lines if (x.model, x.verifier) == key and x.difference is not None]
        if not compared:
            return [*found, f"{group}: no sample has two exact distances, so no substitute can be compared."]
        top = max(x.gamma for x in compared)
        x = min((x for x in compared if x.gamma == top), key=lambda x: x.difference or 0.0)
        assert x.difference is not None
        sentence = f"{group}: at gamma {x.gamma:g}, {x.method} gives the distance within {_percent(x.difference)} in the mean"
        if x.attack_difference is not None:
            sentence += f" (the attack alone: {_percent(x.attack_difference)})"
        if x.speed_up is not None:
            sentence += f", {x.speed_up:.3g} times as fast as on the network itself, pruning included"
        return [*found, f"{sentence}; {x.counted:,} of {x.samples:,} samples count."]

    @property
    def contradictions(self) -> list[str]:
        """Samples on which two proofs, or a proof and a point, exclude each other: no figure of such a sample can be trusted."""
        found = []
        for s in self.samples:
            ends = [v for v in (s.d_bnd_upper, s.d_adv, *(x.certified_upper for x in s.substitutes)) if v is not None]
            lower = max(s.d_bnd_lower or 0.0, s.certified_lower or 0.0)
            if ends and lower > min(ends) * (1 + 1e-5) + 1e-6:
                ends_said = f"a lower end of {lower:.7g} contradicts an upper end of {min(ends):.7g}"
                found.append(f"{s.model}, sample {s.index}: {ends_said}.")
        return found


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
