"""The gate as a JUnit report: a test case per check and per sample, for whatever reads pytest's."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from onnxsub.gate.checks import FAILED, UNDECIDED
from onnxsub.gate.pairs import Pair
from onnxsub.gate.result import GateResult, witness_distance

__all__ = ["junit"]

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(result: GateResult) -> bytes:
    """One suite. Violated and misclassified samples are failures; undecided ones are skipped, with the reason.

    Where undecided is to fail, they are errors. A sample that broke off is an error in any case.
    """
    suite = ElementTree.Element("testsuite", name="onnxsub gate")
    strict = result.options.fail_on_undecided
    for check in result.checks:
        case = _case(suite, "onnxsub.gate", check.name, 0.0)
        if check.outcome == FAILED or (check.outcome == UNDECIDED and strict):
            _outcome(case, "failure", check.outcome, check.said)
        elif check.outcome == UNDECIDED:
            _outcome(case, "skipped", check.outcome, check.said)
    for pair in result.pairs:
        _sample(suite, result, pair, strict)
    cases = list(suite)
    counted = {kind: str(sum(case.find(kind) is not None for case in cases)) for kind in ("failure", "error", "skipped")}
    suite.attrib |= {
        "tests": str(len(cases)), "failures": counted["failure"], "errors": counted["error"], "skipped": counted["skipped"],
        "time": f"{sum(float(case.get('time', '0')) for case in cases):.3f}",
    }  # fmt: skip
    root = ElementTree.Element("testsuites", dict(suite.attrib))
    root.append(suite)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _sample(suite: ElementTree.Element, result: GateResult, pair: Pair, strict: bool) -> None:
    seen, eps = pair.new, result.options.eps
    name = f"sample {pair.index}" + ("" if pair.label is None else f", class {pair.label}")
    case = _case(suite, _dotted(result.new.name), name, seen.row.time_total or 0.0)
    before = "" if pair.old is None else f"; the baseline is {pair.old.verdict} there"
    if seen.robust:
        return
    if seen.row.status == "failed":
        _outcome(case, "error", "failed", f"{seen.row.reason}{before}")
    elif seen.open:
        kind = "error" if strict else "skipped"
        why = seen.row.reason or "the limits ended the search"
        _outcome(case, kind, "undecided", f"undecided at radius {eps:g}: {why}{before}")
    else:
        kind = "lost" if pair.change == "lost" else seen.verdict
        _outcome(case, "failure", kind, f"{_broken(pair, eps)}{before}")


def _broken(pair: Pair, eps: float) -> str:
    if pair.new.verdict == "misclassified":
        return f"the sample itself is of class {pair.new.row.predicted} for the model"
    distance = witness_distance(pair.new)
    where = "" if distance is None else f", at distance {distance:.6g}"
    return f"not robust at radius {eps:g}: an input of another class was found and confirmed{where}"


def _case(suite: ElementTree.Element, classname: str, name: str, seconds: float) -> ElementTree.Element:
    attributes = {"classname": _legal(classname), "name": _legal(name), "time": f"{seconds:.3f}"}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _outcome(case: ElementTree.Element, tag: str, kind: str, message: str) -> None:
    text = _legal(message)
    ElementTree.SubElement(case, tag, {"type": kind, "message": text}).text = text


def _dotted(name: str) -> str:
    """A class name: viewers split it at dots."""
    return name.replace(".", "_")


def _legal(text: str) -> str:
    """Without the characters that XML cannot hold, whatever a file's name or a tool's words contain."""
    return _ILLEGAL.sub("?", text)
