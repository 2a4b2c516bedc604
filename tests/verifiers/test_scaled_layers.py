"""A hidden layer times 2^k and the next one times 2^-k is the same question: neither status nor bracket changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.propagate.balance import groups, scaled
from onnxsub.verifiers.result import DistanceResult, VerifyResult
from tests.verifiers.nets import anchor, decided, logits, measured, random_dense, random_network

KS = (-100, -60, -10, 10, 60, 100)
NETWORKS = {
    "dense": lambda: random_dense(3, 6, 10, 8, 3),
    "deep": lambda: random_dense(1, 5, 8, 8, 8, 3),
    "leaky": lambda: random_network(21, kind="dense", activations=("LeakyRelu", "Relu")),
    "clip": lambda: random_network(5, kind="dense", activations=("Clip", "Relu")),
    "residual": lambda: random_network(4, kind="residual", activations=("Relu",), classes=3),
    "pool": lambda: random_network(6, kind="conv", activations=("Relu",), classes=3),
}
BY_PROGRAMS = [*(n for n in NETWORKS if n not in ("residual", "pool", "deep"))]
LONG = [pytest.param(n, "milp", marks=pytest.mark.slow) for n in NETWORKS if n not in BY_PROGRAMS]
CASES = [*((n, "bab") for n in NETWORKS), *((n, "milp") for n in BY_PROGRAMS), *LONG]
LIMIT = 300  # nodes: an answer that stays open has the same bracket too


def scaled_layers(network: Network, k: int, others: int | None = None) -> Network:
    """The values of every second layer times 2^k, the others times 2^others (default: -k)."""
    exponents: dict[str, int] = {}
    for i, group in enumerate(groups(network)):
        exponents |= dict.fromkeys(group, k if i % 2 == 0 else -k if others is None else others)
    assert exponents
    return scaled(network, exponents)


def case(name: str) -> tuple[Network, Array, int]:
    network = NETWORKS[name]()
    return network, *anchor(network, 1)


def known(result: DistanceResult | VerifyResult) -> tuple[Any, ...]:
    """What must not change."""
    w = result.witness
    point = None if w is None or not w.confirmed else (w.x.tolist(), w.label, w.kind)
    if isinstance(result, DistanceResult):
        ends = {t: (r.lower, r.upper, r.status) for t, r in result.targets.items()}
        return result.status, result.lower, result.upper, ends, point
    return result.status, result.clauses, dict(result.targets), point


@pytest.mark.parametrize(("name", "verifier"), CASES)
def test_distances(name: str, verifier: str) -> None:
    network, x0, label = case(name)
    options: dict[str, Any] = {"verifier": verifier, "threads": 1, "nodes": LIMIT}
    plain = measured(network, x0, label, replay=logits(network), **options)
    assert plain.lower > 0
    for k in KS:
        far = scaled_layers(network, k)
        assert known(measured(far, x0, label, replay=logits(far), **options)) == known(plain), k


@pytest.mark.parametrize(("name", "verifier"), CASES)
def test_decisions(name: str, verifier: str) -> None:
    network, x0, label = case(name)
    options: dict[str, Any] = {"verifier": verifier, "threads": 1, "nodes": LIMIT}
    d = measured(network, x0, label, replay=logits(network), threads=1, timeout=5.0)
    top = d.upper if math.isfinite(d.upper) else 1.0
    words = set()
    for eps in (0.5 * d.lower, 0.97 * min(d.lower, 1.0), 1.03 * top):
        plain = decided(network, x0, label, eps, replay=logits(network), **options)
        words.add(plain.status)
        for k in KS:
            far = scaled_layers(network, k)
            assert known(decided(far, x0, label, eps, replay=logits(far), **options)) == known(plain), (k, eps)
    assert "proved" in words


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_scaled_layers_in_float32_too(verifier: str) -> None:
    """The judge runs in float32: numbers of 2^100 and 2^-100 are within its range, so it says the same."""
    network, x0, label = case("dense")
    plain = measured(network, x0, label, verifier=verifier, threads=1)
    assert plain.status == "exact"
    for k in KS:
        # the weights of one layer times 2^k, those of the next one times 2^-k
        found = measured(scaled_layers(network, k, 0), x0, label, verifier=verifier, threads=1)
        assert known(found) == known(plain), k


def test_scaling_is_no_small_change_here() -> None:
    """The layers of these networks really are of very different sizes."""
    for name in NETWORKS:
        network, x0, _ = case(name)
        values = scaled_layers(network, 100).values(torch.as_tensor(x0.astype(np.float64))[None])
        sizes = [float(v.abs().max()) for v in values.values()]
        assert max(sizes) > 2.0**80
