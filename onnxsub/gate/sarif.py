"""The findings of a gate as SARIF 2.1.0: one result per sample that is lost, on the file of the new model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from onnxsub.gate.pairs import Pair
from onnxsub.gate.result import GateResult, witness_distance
from onnxsub.results import VERSION

__all__ = ["sarif"]

_RULES = {
    "robustness-gate": "A condition of the robustness gate does not hold.",
    "sample-lost": "A sample that the baseline is robust on has a counterexample in the new model.",
    "sample-undecided": "A sample that the baseline is robust on is undecided for the new model.",
}


def sarif(result: GateResult) -> bytes:
    """Checks that do not pass, and lost samples: errors where a counterexample is confirmed, warnings where nothing is decided."""
    found = [_finding("robustness-gate", "error" if c.outcome == "failed" else "warning", c.said, c.name, result)
             for c in result.checks if c.outcome != "passed"]  # fmt: skip
    for pair in result.lost:
        rule, level = ("sample-undecided", "warning") if pair.new.open else ("sample-lost", "error")
        found.append(_finding(rule, level, _said(pair, result), f"sample-{pair.index}", result))
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in _RULES.items()]
    driver = {"name": "onnxsub gate", "version": VERSION, "rules": rules}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": found}],
    }  # fmt: skip
    return (json.dumps(log, indent=2) + "\n").encode()


def _finding(rule: str, level: str, text: str, what: str, result: GateResult) -> dict[str, Any]:
    where = {"physicalLocation": {"artifactLocation": {"uri": _uri(result.new.path)}, "region": {"startLine": 1}}}
    return {
        "ruleId": rule, "ruleIndex": list(_RULES).index(rule), "level": level, "message": {"text": text}, "locations": [where],
        "partialFingerprints": {"onnxsubGate/v1": f"{rule}:{what}"},
    }  # fmt: skip


def _uri(path: str) -> str:
    """Relative to the folder that the gate runs in, as code scanning wants it; of a file elsewhere its own address."""
    absolute, here = Path(path).resolve(), Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else absolute.as_uri()


def _said(pair: Pair, result: GateResult) -> str:
    label = "" if pair.label is None else f" of class {pair.label}"
    distance = witness_distance(pair.new)
    if pair.new.open:
        how = f"undecided ({pair.new.row.reason or 'the limits ended the search'})"
    elif pair.new.verdict == "misclassified":
        how = f"of class {pair.new.row.predicted} for the new model"
    else:
        how = "not robust" + ("" if distance is None else f": a counterexample is confirmed at distance {distance:.6g}")
    return f"Sample {pair.index}{label} was robust at radius {result.options.eps:g} and is now {how}."
