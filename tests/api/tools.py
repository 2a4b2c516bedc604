"""A small torch module, a batch for it, and keywords that make calls quick."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["QUICK", "batch", "module"]

QUICK: dict[str, Any] = {"restarts": 2, "effort": 0.2, "threads": 1, "seed": 0}
"""Little attack, one thread."""


def module(seed: int = 0) -> nn.Sequential:
    """From 4 x 4 images to three classes, seven units."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 3))


def batch(count: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Images in [0, 1]."""
    return np.random.default_rng(1).random((count, 1, 4, 4)).astype(np.float32)
