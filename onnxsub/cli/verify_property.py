"""`onnxsub verify MODEL PROPERTY.vnnlib`: the decision about a property, printed as a table, as JSON or as VNN-COMP has it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxsub.cli.exits import Exit
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.files import write_atomic

if TYPE_CHECKING:
    from onnxsub.model import Model
    from onnxsub.verifiers.result import VerifyResult
    from onnxsub.verifiers.verify import VerifyOptions

__all__ = ["WITNESS_FILES", "verify_property"]

WITNESS_FILES = (".npy", ".npz", ".txt")
"""What `-o` takes: the input as an array, or (`.txt`) the witness as VNN-COMP writes it."""

_CODES = {"proved": Exit.DONE, "violated": Exit.VIOLATED, "unknown": Exit.UNDECIDED}


def verify_property(
    model: Model, property_path: str, options: VerifyOptions, out: Output, *, output: str | None = None, vnncomp: bool = False
) -> int:
    """Decides, prints and returns the exit code: 0 proved (unsat), 1 violated (sat), 3 undecided.

    Args:
        options: verifier and limits.
        output: where the witness goes, `.npy`, `.npz` (`x`) or `.txt`; its x is in the units that the model is fed.
        vnncomp: print the results file of VNN-COMP (word and witness) in place of a table.

    Raises:
        InputError: a file cannot be used, with line and column where the property is wrong.
    """
    check_writable(output, WITNESS_FILES)
    from onnxsub.verifiers.property import decide_property

    for note in model.notes:
        out.note(note)
    with out.progress() as report:
        result = decide_property(model, property_path, options, tell=lambda text: report(0.0, text))
    witness = result.witness if result.witness is not None and result.witness.confirmed else None
    if output is not None and witness is None:
        out.note(f"there is no confirmed witness, so {output!r} was not written")
    elif output is not None and witness is not None:
        _write(output, result, model)
        result = replace(result, witness=replace(witness, path=output))
    if vnncomp and not out.json:
        out.text(result.vnncomp_text())
    else:
        out.result(result, _rows(result, property_path, output if witness is not None else None))
    if result.interrupted:
        out.note("interrupted: this is what was found so far")
        return Exit.INTERRUPTED
    return _CODES[result.status]


def _rows(result: VerifyResult, path: str, written: str | None) -> list[tuple[str, str]]:
    question, what = result.question, path
    if question is not None:
        boxes = "1 box" if len(question.cases) == 1 else f"{len(question.cases)} boxes"
        what = f"{path}, VNN-LIB {question.version}, {boxes}, {question.clauses} clauses"
    rows = [
        ("property", what),
        ("answer", f"{result.status} ({result.vnncomp})"),
        ("reason", result.reason),
    ]
    w = result.witness
    if w is not None:
        where = f", written to {written}" if written else ""
        rows.append(("witness", f"clause {(w.clause or 0) + 1}, {w.kind}, smallest row {w.margin:.3g}{where}"))
    if result.solver is None:
        rows.append(("verifier", f"{result.verifier}, {result.runs} runs"))
    else:
        rows.append(("verifier", f"{result.verifier}, {result.nodes:,} nodes, {result.runs} programs by {result.solver}"))
    rows.append(("time", f"{result.time_s['total']:.2f} s"))
    return rows


def _write(path: str, result: VerifyResult, model: Model) -> None:
    import numpy as np

    suffix = Path(path).suffix.lower()
    if suffix == ".txt":
        write_atomic(path, result.vnncomp_text().encode())
        return
    assert result.witness is not None
    x = result.witness.x.reshape(1, *model.input_shape)
    data = io.BytesIO()
    if suffix == ".npy":
        np.save(data, x)
    else:
        np.savez(data, x=x)
    write_atomic(path, data.getvalue())
