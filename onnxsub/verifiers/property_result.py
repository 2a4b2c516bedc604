"""The answer about a property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.properties.property import Property
from onnxsub.properties.witness import vnncomp_word, witness_text
from onnxsub.results import VERSION, jsonable
from onnxsub.verifiers.property_attack import PropertyWitness

__all__ = ["PropertyResult"]


@dataclass(frozen=True, eq=False)
class PropertyResult:
    """One decision: is there a counterexample?

    Attributes:
        status: `proved` (every clause of every case is refuted), `violated` (a point that onnxruntime confirmed) or `unknown`.
        reason: one line.
        question: the property.
        witness: for `violated`; a rejected one may come with `unknown`.
        case: the case that the witness belongs to.
        clauses: per case and clause `proved`, `violated` or `unknown`.
        verifier: who decided: `bab`, `milp`, or the name of another tool.
        solver: of the programs; None for another tool.
        nodes, runs: of the exact verifier, and how many programs or tools were run.
        timed_out: the time limit ended the search.
        interrupted: Ctrl-C did.
        time_s: `total` and the stages.
        settings: the options.
        head: the keys `model` and `property` of the contract.
    """

    status: str
    reason: str
    question: Property = field(repr=False)
    witness: PropertyWitness | None
    case: int | None
    clauses: tuple[tuple[str, ...], ...]
    verifier: str
    solver: str | None
    nodes: int
    runs: int
    timed_out: bool
    interrupted: bool
    time_s: Mapping[str, float]
    settings: Mapping[str, Any]
    head: Mapping[str, Any]

    @property
    def vnncomp(self) -> str:
        """`sat`, `unsat`, `timeout` or `unknown`."""
        return vnncomp_word(self.status, timed_out=self.timed_out)

    def vnncomp_text(self) -> str:
        """The whole results file of VNN-COMP: the word, and for `sat` the witness."""
        if self.status != "violated" or self.witness is None:
            return f"{self.vnncomp}\n"
        return f"sat\n{witness_text(self.question, self.witness.x, self.witness.y)}"

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.verify/1`, with `property` in place of `anchor`, and `clauses` in place of `targets`."""
        w = self.witness
        witness = None if w is None else {"path": w.path, "kind": w.kind, "margin": w.margin, "case": self.case, "clause": w.clause}
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.verify/1",
                "version": VERSION,
                **self.head,
                "status": self.status,
                "reason": self.reason,
                "vnncomp": self.vnncomp,
                "witness": witness,
                "verifier": self.verifier,
                "solver": self.solver,
                "clauses": [list(case) for case in self.clauses],
                "nodes": self.nodes,
                "runs": self.runs,
                "timed_out": self.timed_out,
                "interrupted": self.interrupted,
                "settings": dict(self.settings),
                "time_s": dict(self.time_s),
            }
        )
        return document
