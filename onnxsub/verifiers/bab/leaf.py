"""Programs of nodes: a clause's programs with the node's box, intervals and splits; linear where every unit is decided."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.nodes import Waiting
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.box.halfspaces import no_sliver

__all__ = ["ends_of_units", "node_model", "region_model", "restricted"]


def _node_ends(frame: Frame, node: Waiting) -> dict[str, tuple[Array, Array]]:
    """Intervals of the node, float64."""
    found, at = {}, 0
    for op in frame.splits:
        size = int(np.prod(op.in_shapes[0]))
        lower, upper = (node.ends[k, at : at + size].astype(np.float64) for k in (0, 1))
        # the stored ends are rounded outward; the frame's are not
        whole = (ends[op.output][node.target].reshape(-1).cpu().numpy() for ends in (frame.lower, frame.upper))
        lower, upper = np.maximum(lower, next(whole)), np.minimum(upper, next(whole))
        found[op.output] = lower, np.maximum(lower, upper)
        at += size
    return found


def node_model(frame: Frame, model: ClauseModel, node: Waiting) -> ClauseModel:
    """The programs of a node: those of its target, `model`, with the node's box, intervals and splits."""
    shape = frame.network.input_shape
    x0 = frame.x0.cpu().numpy()
    low, high = (node.box[k].astype(np.float64) + x0 for k in (0, 1))
    low, high = np.maximum(low, model.lower.reshape(-1)), np.minimum(high, model.upper.reshape(-1))
    return restricted(
        replace(model, lower=low.reshape(shape), upper=np.maximum(low, high).reshape(shape)), _node_ends(frame, node)
    )


def region_model(frame: Frame, model: ClauseModel, point: Array) -> ClauseModel | None:
    """The programs of the linear region that a point lies in, linear themselves; None: it lies outside of the frame's intervals."""
    row = frame.keys.index(model.key)
    x = torch.as_tensor(np.asarray(point, dtype=np.float64)).reshape(1, *frame.network.input_shape)
    with torch.no_grad():
        values = frame.network.preactivations(x)
    ends = {}
    for op, z in zip(frame.network.activations, values, strict=True):
        lower, upper = (e[op.output][row : row + 1].clone().cpu() for e in (frame.lower, frame.upper))
        for kink in op.kinks(z):
            lower = torch.where(z >= kink, torch.maximum(lower, kink), lower)
            upper = torch.where(z < kink, torch.minimum(upper, kink), upper)
        if bool((lower > upper).any()):
            return None
        ends[op.output] = lower.reshape(-1).numpy(), upper.reshape(-1).numpy()
    return restricted(model, ends)


def ends_of_units(model: ClauseModel, lower: torch.Tensor, upper: torch.Tensor) -> dict[str, tuple[Array, Array]]:
    """Intervals `(m,)` of all units, one after the other, and those of the model in one, as `restricted` takes them."""
    ends, at = {}, 0
    for op in model.local.network.activations:
        low, high = (np.asarray(e, dtype=np.float64).reshape(-1) for e in model.intervals[op.output])
        low = np.maximum(low, lower[at : at + op.out_size].numpy())
        ends[op.output] = low, np.maximum(low, np.minimum(high, upper[at : at + op.out_size].numpy()))
        at += op.out_size
    return ends


def _no_sliver(ends: tuple[Array, Array], before: tuple[Array, Array]) -> tuple[Array, Array]:
    lower, upper = no_sliver(*((torch.as_tensor(np.array(a)), torch.as_tensor(np.array(b))) for a, b in (ends, before)))
    return lower.numpy(), upper.numpy()


def restricted(model: ClauseModel, ends: dict[str, tuple[Array, Array]]) -> ClauseModel:
    """A model with narrower intervals, as rows where they decide a unit that the ball leaves open."""
    enforced = {}
    ends = {name: _no_sliver(new, model.intervals[name]) for name, new in ends.items()}
    for op in model.local.network.activations:
        lower, upper = (torch.as_tensor(e).reshape(op.in_shapes[0]) for e in ends[op.output])
        on_ball = op.affine_on(*(e[0] for e in model.local.bounds.pre[op.output]))
        enforced[op.output] = torch.nonzero((op.affine_on(lower, upper) & ~on_ball).flatten())[:, 0].numpy()
    return replace(model, intervals=dict(model.intervals) | ends, enforced=enforced)
