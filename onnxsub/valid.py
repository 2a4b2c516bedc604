"""Whether a file is valid ONNX: the word of onnx's checker, but for what onnxruntime runs and the checker refuses.

GroupNormalization of opset 18 to 20 has its scale and bias per group. It was withdrawn for the one of opset 21, so the checker
and shape inference refuse it; files that state it exist, and onnxruntime computes them as opset 18 says. LayerNormalization is in
ONNX from opset 17 on; onnxruntime writes it at any opset when it saves an optimised model. Up to IR version 3 every constant had
to be an input too; tools that change such files (quantisers, simplifiers) add constants that are none.
"""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto

from onnxsub.contrib import early_norm

__all__ = ["check_valid", "per_group"]

_DEFAULT = ("", "ai.onnx")
_CONSTANTS_APART = 4
"""IR version from which on a constant need not be an input."""


def per_group(node: NodeProto, opset: int) -> bool:
    """Whether a node is the GroupNormalization that was withdrawn, in a file of that opset."""
    return node.op_type == "GroupNormalization" and node.domain in _DEFAULT and 18 <= opset <= 20


def _of_runtime(node: NodeProto, opset: int) -> bool:
    return per_group(node, opset) or early_norm(node, opset)


def check_valid(proto: ModelProto, data: bytes | None = None) -> None:
    """Checks `proto`, or its bytes where there are some already: the checker makes them of a message.

    Raises:
        onnx.checker.ValidationError: it is not valid.
    """
    opset = max((o.version for o in proto.opset_import if o.domain in _DEFAULT), default=0)
    inputs = {v.name for v in proto.graph.input}
    old = proto.ir_version < _CONSTANTS_APART and any(t.name not in inputs for t in proto.graph.initializer)
    if old or any(_of_runtime(node, opset) for node in proto.graph.node):
        data = None
        proto = _without(proto, opset)
        proto.ir_version = max(proto.ir_version, _CONSTANTS_APART)
    onnx.checker.check_model(proto if data is None else data)


def _without(proto: ModelProto, opset: int) -> ModelProto:
    """A copy in which each such node is an Identity of what it normalises."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for node in copy.graph.node:
        if _of_runtime(node, opset):
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    return copy
