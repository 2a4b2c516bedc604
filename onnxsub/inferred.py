"""Shape inference of ONNX, once for all nodes of the same form: deep networks repeat a few forms thousands of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import NodeProto, OperatorSetIdProto, TensorProto, TypeProto
from onnx.defs import OpSchema
from onnx.shape_inference import infer_node_outputs

__all__ = ["Inferred"]


class Inferred:
    """What is inferred in one graph, whose constants keep their names and values."""

    def __init__(self, imports: Sequence[OperatorSetIdProto], ir_version: int) -> None:
        self._imports, self._ir_version = list(imports), ir_version
        self._found: dict[object, list[bytes | None]] = {}

    def outputs(
        self, schema: OpSchema, node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto]
    ) -> dict[str, TypeProto]:
        """The types of a node's outputs, as far as they are known.

        Args:
            types: of its inputs; where it has subgraphs, of every tensor around them.
            values: of the small constants among its inputs.

        Raises:
            onnx.shape_inference.InferenceError, onnx.checker.ValidationError: the node does not fit its inputs.
        """
        key = None
        if not any(a.HasField("g") or a.graphs for a in node.attribute):
            inputs = tuple((types[n].SerializeToString(), n if n in values else "") if n else None for n in node.input)
            key = (
                schema.domain, schema.name, schema.since_version, tuple(a.SerializeToString() for a in node.attribute), inputs,
                tuple(map(bool, node.output)),
            )  # fmt: skip
            known = self._found.get(key)
            if known is not None:
                return {name: TypeProto.FromString(data) for name, data in zip(node.output, known, strict=True) if data is not None}
        found = infer_node_outputs(
            schema, node, dict(types), dict(values), opset_imports=self._imports, ir_version=self._ir_version
        )
        if key is not None:
            self._found[key] = [found[name].SerializeToString() if name in found else None for name in node.output]
        return found
