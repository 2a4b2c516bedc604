"""The table of operators: what is read, as what, with which meanings, beside what other verifiers read.

    python -m benchmarks.operators > docs/operators.md

Made from the operator table itself: every operator that `onnxsub/ops` reads, with the cases that its tests compare with
onnxruntime. What other tools read is taken from their sources (Marabou 2.0 command line, alpha-beta-CROWN of 2025, nnenum).
"""

from __future__ import annotations

import sys

from onnxsub.ops import READERS
from onnxsub.ops.base import MEANINGS, Operator
from tests.ops.cases import CASES

_OTHERS = {
    "M": "Constant Identity Dropout Cast Reshape Flatten Transpose Squeeze Unsqueeze BatchNormalization MaxPool Conv Gemm Add Sub "
    "Relu LeakyRelu MatMul Sigmoid Tanh Sign",
    "C": "Abs Add AveragePool BatchNormalization Cast Clip Concat Conv ConvTranspose Div Dropout Exp Expand Flatten Gather "
    "GatherElements Gelu Gemm GlobalAveragePool Identity LeakyRelu Log MatMul Max MaxPool Min Mul Neg Pad Pow Reciprocal ReduceMax "
    "ReduceMean ReduceMin ReduceSum Relu Reshape Resize Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze "
    "Upsample Where",
    "N": "Add AveragePool Constant Concat Conv Flatten Gather Gemm MatMul Mul Reshape Relu Shape Sub Unsqueeze Slice Dropout",
}
"""What other verifiers read: Marabou, alpha-beta-CROWN, nnenum."""

_OWN = {"DynamicQuantizeLinear": ("DynamicSteps, before products as `quantize_dynamic` writes them", "MILP rows, slopes")}
"""What is no case of the tests of single nodes: what it is read as, what that lacks."""

_SHORT = {"interval": "interval", "linear": "linear bounds", "milp": "MILP rows", "slopes": "slopes", "onnx": "ONNX"}

_HEAD = """# Operators

What `onnxsub` reads, made from the operator table by `python -m benchmarks.operators`. Opsets 7 to 26 are read; the third column
names those at which tests compare an operator with onnxruntime (it changes its definition at few of them). Every operator has a
value. A meaning that is missing is declared, with the reason, and `onnxsub info` says so of a model.

| meaning | what needs it |
|---|---|
| interval, linear bounds | `bounds`, the ranking of `prune`, `--verifier bab` |
| MILP rows | `--verifier milp` |
| slopes | certified Lipschitz constants |
| ONNX | `--layout compact`, exported properties |

"Of some forms": a product, a quotient or a power has no MILP rows where it is not one tensor times or by constants. Classes are
those of `onnxsub/ops`; `Leaky` for instance is any function of two slopes, so also Abs.

Nodes that are not listed are refused by name, but for these, which are written out first: Attention (opset 23, one output, no
cache), Mean, CastLike, IsNaN and IsInf (false of every number), an If whose branch is known, the operators of ai.onnx.ml in
[cli.md](cli.md#what-is-read), and what onnxruntime fuses (`onnxsub/reading/fused.py`). A node
whose value does not depend on the input is computed once (by which operators: `onnxsub/computed.py`). The last column says who else
reads a node of this kind at all: M Marabou (command line), C alpha-beta-CROWN, N nnenum, after their sources.

| operator | is read as | tested at opset | lacks | also read by |
|---|---|---|---|---|
"""


def _versions(op: str) -> list[int]:
    found = {v for case in CASES if case.op == op for v in case.opsets}
    return sorted(found)


def _read(op: str) -> list[tuple[Operator, ...]]:
    """What each case of an operator is read as."""
    return [case.ops(case.opsets[-1]) for case in CASES if case.op == op]


def _lacks(forms: list[tuple[Operator, ...]]) -> str:
    """The meanings that are missing, in all forms of an operator or in some."""
    found = []
    for meaning in MEANINGS:
        without = [any(meaning in made.unsupported for made in form) for form in forms]
        if any(without):
            found.append(_SHORT[meaning] + ("" if all(without) else " of some forms"))
    return ", ".join(found)


def rows() -> list[str]:
    """The lines of the table, one per operator."""
    lines = []
    for op in sorted(READERS):
        forms = _read(op)
        others = "".join(letter for letter, names in _OTHERS.items() if op in names.split())
        classes = ", ".join(dict.fromkeys(type(made).__name__ for form in forms for made in form))
        versions = ", ".join(map(str, _versions(op))) or "in tests of its own"
        made, lacks = _OWN.get(op, (classes or "integers in real units, and Quantise", _lacks(forms)))
        lines.append(f"| {op} | {made} | {versions} | {lacks} | {others} |")
    return lines


def text() -> str:
    """The whole page."""
    return _HEAD + "\n".join(rows()) + f"\n\n{len(READERS)} operators.\n"


if __name__ == "__main__":
    sys.stdout.write(text())
