"""Rough errors of curved units: no wider than proved ones, and nearly as wide."""

from __future__ import annotations

import numpy as np
import torch
from onnx import parser

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.rough import curved, rough_chord, rough_error
from onnxsub.passes.substitute import lines, substitute


def hard_swish(size: int) -> Network:
    text = f'<ir_version: 8, opset_import: ["" : 14]> g (float[N,{size}] x) => (float[N,{size}] y) {{ y = HardSwish (x) }}'
    return lower(load_model(parser.parse_model(text)))


def test_rough_errors_lie_within_proved_ones_and_are_nearly_as_wide() -> None:
    (op,) = hard_swish(40).activations
    rng = np.random.default_rng(0)
    l = torch.from_numpy(rng.uniform(-6, 4, (1, 40)))
    u = l + torch.from_numpy(rng.uniform(0.1, 3, (1, 40)))
    slope, low, high = rough_chord(op, l, u)
    below, above = op.line_error(l, u, slope, torch.zeros_like(slope))
    assert curved(op)
    assert (low >= below - 1e-9).all()
    assert (high <= above + 1e-9).all()
    assert ((above - below) - (high - low)).max() < 0.1 * (above - below).max()


def test_an_infinite_end_leaves_a_number() -> None:
    (op,) = hard_swish(3).activations
    low = torch.tensor([[-np.inf, -1.0, 0.0]])
    found = rough_error(op, low, torch.tensor([[np.inf, 1.0, 0.0]]), torch.zeros((1, 3)), torch.zeros((1, 3)))
    assert not any(bool(t.isnan().any()) for t in found)


def test_what_is_wholly_lines_is_curved_no_less() -> None:
    network = hard_swish(4)
    chosen = lines(network, "con", np.zeros(4))
    (op,) = substitute(network, chosen, {network.activations[0].output: np.zeros(4, dtype=bool)}).activations
    l, u = torch.full((1, 4), -1.0), torch.full((1, 4), 1.0)
    slope, low, high = rough_chord(op, l, u)
    assert curved(op)
    assert bool((slope == 0).all())
    assert bool((low == high).all())
