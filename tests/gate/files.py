"""The digits network, a copy that was fine-tuned without care for robustness, and test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

__all__ = ["RELEASED", "careless_copy", "images_file", "network", "parts"]

RELEASED = Path(__file__).parents[2] / "models" / "digits.onnx"

_LAYERS = ("conv1", "conv2", "dense1", "dense2")


def parts() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels: the parts of `models/train_digits.py`."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32)[:, None]
    split = train_test_split(x, digits.target.astype(np.int64), test_size=0.25, random_state=0, stratify=digits.target)
    x_train, x_test, y_train, y_test = (torch.from_numpy(a) for a in split)
    return x_train, y_train, x_test, y_test


def network(path: Path) -> nn.Sequential:
    """The network of a file like `digits.onnx`, in torch."""
    weights = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in onnx.load(path).graph.initializer}
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    layers = [m for m in net if isinstance(m, nn.Conv2d | nn.Linear)]
    for name, layer in zip(_LAYERS, layers, strict=True):
        layer.load_state_dict({k: weights[f"{name}.{k}"] for k in ("weight", "bias")})
    return net


def careless_copy(path: Path, epochs: int = 10) -> Path:
    """`digits.onnx` fine-tuned to read faint digits too, which it learns, and forgets its robustness by the way."""
    torch.manual_seed(0)
    net = network(RELEASED)
    x, y, *_ = parts()
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(torch.cat([x[rows], x[rows] / 8])), y[rows].repeat(2)).backward()
            optimiser.step()
    model = onnx.load(RELEASED)
    layers = dict(zip(_LAYERS, (m for m in net if isinstance(m, nn.Conv2d | nn.Linear)), strict=True))
    for tensor in model.graph.initializer:
        layer, _, kind = tensor.name.partition(".")
        tensor.CopyFrom(numpy_helper.from_array(getattr(layers[layer], kind).detach().numpy(), tensor.name))
    onnx.save(model, path)
    return path


def images_file(path: Path) -> Path:
    """The test images and labels as an `.npz`."""
    *_, x, y = parts()
    np.savez(path, x_test=x.numpy(), y_test=y.numpy())
    return path
