"""VNN-COMP's words and witness texts, written and read.

Version 1.0 (one list, flat numbering):         Version 2.0 (section 5.3 of the standard; a header per tensor, one value a line):

    ((X_0 0.25)                                     X real [1, 2]
    (X_1 0.5)                                       0.25
    (Y_0 -1.5))                                     0.5
                                                    Y real [1, 1]
                                                    -1.5
"""

from __future__ import annotations

import re

import numpy as np

from onnxsub.errors import InputError
from onnxsub.ops.base import Array, Shape
from onnxsub.properties.property import Property
from onnxsub.properties.write import number

__all__ = ["read_witness", "vnncomp_word", "witness_text"]

_PAIR = re.compile(r"\(\s*([XY])_(\d+)\s+([^\s()]+)\s*\)")
_HEADER = re.compile(r"(\S+)\s+\S+\s+\[([0-9,\s]*)\]")


def vnncomp_word(status: str, *, timed_out: bool = False) -> str:
    """The word of the results file for a status: `sat` for violated, `unsat` for proved, else `timeout` or `unknown`.

    An error has no status; whoever catches one writes `error`.

    Raises:
        ValueError: a status that is none of `proved`, `violated` and `unknown`.
    """
    match status:
        case "violated":
            return "sat"
        case "proved":
            return "unsat"
        case "unknown":
            return "timeout" if timed_out else "unknown"
        case _:
            raise ValueError(f"status {status!r} has no word; choose proved, violated or unknown")


def witness_text(found: Property, x: Array, y: Array) -> str:
    """The counterexample (x, y) in the text form that belongs to the property's version. Every value reads back exactly."""
    xs, ys = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (x, y))
    if len(xs) != found.inputs or len(ys) != found.outputs:
        raise InputError(
            f"{found.where}: a witness has {found.inputs} inputs and {found.outputs} outputs, not {len(xs)} and {len(ys)}"
        )
    if found.version == "1.0":
        pairs = [f"(X_{i} {number(v)})" for i, v in enumerate(xs.tolist())]
        pairs += [f"(Y_{j} {number(v)})" for j, v in enumerate(ys.tolist())]
        return "(" + "\n".join(pairs) + ")\n"
    if found.version != "2.0":
        raise ValueError(f"VNN-LIB version {found.version!r} has no text of a witness; choose 1.0 or 2.0")
    lines = []
    for name, shape, values in ((found.input_name, found.input_shape, xs), (found.output_name, found.output_shape, ys)):
        lines.append(f"{name} real [{', '.join(str(n) for n in shape)}]")
        lines += [number(v) for v in values.tolist()]
    return "\n".join(lines) + "\n"


def read_witness(text: str, found: Property) -> tuple[Array, Array | None]:
    """The input `(inputs,)` and, where the text has one, the output `(outputs,)` of a results file or witness text; float64.

    A first line with the word `sat` is skipped. What another tool says of its output proves nothing: replay the input.

    Raises:
        InputError: not a witness of this property.
    """
    body = text.strip().removeprefix("sat").strip()
    flat = _PAIR.findall(body)
    values: dict[str, list[float]] = {"X": [], "Y": []}
    try:
        if flat:
            for kind, index, value in flat:
                if int(index) != len(values[kind]):
                    raise InputError(f"witness of {found.where}: {kind}_{index} stands where {kind}_{len(values[kind])} belongs")
                values[kind].append(float(value))
        else:
            values["X"], values["Y"] = _blocks(body, found)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"witness of {found.where}: {error}; not a VNN-COMP witness") from error
    if len(values["X"]) != found.inputs or len(values["Y"]) not in (0, found.outputs):
        raise InputError(
            f"witness of {found.where}: {len(values['X'])} inputs and {len(values['Y'])} outputs were found, "
            f"the property has {found.inputs} and {found.outputs}"
        )
    x = np.array(values["X"])
    if not np.isfinite(x).all():
        raise InputError(f"witness of {found.where}: it holds numbers that are not finite")
    return x, np.array(values["Y"]) if values["Y"] else None


def _blocks(body: str, found: Property) -> tuple[list[float], list[float]]:
    """Version 2.0: a header, then the values of that tensor."""
    blocks: dict[str, tuple[Shape, list[float]]] = {}
    current: list[float] | None = None
    for line in (raw.strip() for raw in body.splitlines()):
        header = _HEADER.fullmatch(line)
        if header is not None:
            current = []
            blocks[header.group(1)] = tuple(int(n) for n in header.group(2).split(",") if n.strip()), current
        elif line:
            if current is None:
                raise InputError(f"witness of {found.where}: {line[:40]!r} is not expected; not a VNN-COMP witness")
            current.append(float(line))
    x, y = (blocks.get(name, ((), []))[1] for name in (found.input_name, found.output_name))
    return x, y
