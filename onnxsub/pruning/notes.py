"""What is said of a substitute's file that is not what one expects: exact on the ball only, large, more Relus than the model."""

from __future__ import annotations

from onnx import ModelProto

from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.provenance import VALID_RADIUS

__all__ = ["file_notes", "relus_of_chain", "too_many"]

_GROWTH = 10  # times the model's bytes from which on that is said


def relus_of_chain(proto: ModelProto) -> int:
    """Relus of a file in layout `chain`: the widths of all its Gemms but the last."""
    sizes = {w.name: int(w.dims[0]) for w in proto.graph.initializer if w.dims}
    widths = [sizes[node.input[2]] for node in proto.graph.node if node.op_type == "Gemm"]
    return sum(widths[:-1])


def too_many(proto: ModelProto, network: Network) -> str | None:
    """Why a chain is worse than the model that it stands for; None: it has no more Relus than that has units and windows."""
    relus, units = relus_of_chain(proto), network.units_and_windows
    return f"layout chain would have {relus:,} Relus, the model has {units:,} units and windows" if relus > units else None


def file_notes(model: Model, network: Network, proto: ModelProto, layout: str) -> tuple[str, ...]:
    """One line for each."""
    notes = []
    if layout == "chain":
        radius = next((p.value for p in proto.metadata_props if p.key == VALID_RADIUS), None)
        if radius is not None:
            notes.append(f"the file equals the substitute on the ball of radius {float(radius):.6g} only (--exact-on)")
        relus = relus_of_chain(proto)
        if relus > network.units_and_windows:
            notes.append(f"the file has {relus:,} Relus, more than the model's {network.units_and_windows:,} units and windows")
    size, before = proto.ByteSize(), model.source.ByteSize()
    if size > _GROWTH * before:
        why = {
            "chain": "every row that is left is dense",
            "compact": "every row that is left is dense",
            "inplace": "every unit has a slope, an offset and a mask",
        }
        notes.append(f"the file has {size / before:.0f} times the model's bytes: {why[layout]}")
    return tuple(notes)
