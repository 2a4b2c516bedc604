"""The distance of the anchor to a half-space within a box."""

from __future__ import annotations

import pytest
import torch

from onnxsub.verifiers.bab.line import Line, box_radius


def test_radius_beside_a_coordinate_that_cannot_move_and_weighs_much() -> None:
    c = torch.tensor([[1e16, 0.3, 0.1]], dtype=torch.float64)
    low, high = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    found = box_radius(Line(c, torch.tensor([-0.15], dtype=torch.float64)), low[None], high[None])
    assert found.item() == pytest.approx(0.375)
