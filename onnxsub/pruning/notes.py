"""What is said of a substitute's file that is not what one expects: exact on the ball only, large, more Relus than the model, and
how far half precision takes it from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.provenance import VALID_RADIUS

if TYPE_CHECKING:
    import torch

    from onnxsub.query import Query
else:
    from onnxsub.lazy import torch

__all__ = ["file_notes", "half_notes", "relus_of_chain", "too_many"]

_FAR = 1e-4  # of 1 + the largest logit: what float32 rounds is less
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


def half_notes(query: Query, g: Network, points: Array, preserves: Mapping[str, float]) -> tuple[str, ...]:
    """One line where the files differ and the networks do not: what half precision rounds the model's own logits by.

    Args:
        points: where `preserves` was measured, `(N, *input_shape)`.
    """
    if not query.model.half:
        return ()
    own = query.logits(points).astype(np.float64)
    bar, worst = _FAR * (1 + np.abs(own).max()), max(preserves.values())
    if worst <= bar:
        return ()
    with torch.no_grad():
        x = torch.as_tensor(points.astype(np.float64))
        f, h = (network.forward(x).flatten(1).numpy() for network in (query.network, g))
    apart = np.abs(f - h).max()
    if apart > bar:
        return ()
    line = f"half precision rounds the model's own logits by up to {np.abs(f - own).max():.2g}"
    if query.runtime.logits(query.space.normalise(points[:1])).dtype == np.float16:
        line += f" and writes them in steps of {float(np.spacing(np.float16(np.abs(own).max()))):.2g}"
    return (f"{line}: over the real numbers the substitute is within {apart:.2g} of it, the files differ by {worst:.2g}",)
