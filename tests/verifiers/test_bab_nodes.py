"""What a node claims holds at every point of it: line, distance, box and intervals, with any multipliers, narrowed or packed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.narrow import narrowed
from onnxsub.verifiers.bab.nodes import pack, unpack
from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, PIECEWISE
from tests.random_modern import random_modern
from tests.verifiers.bab_tools import Sample, check_nodes, frame_of, random_multipliers, random_split
from tests.verifiers.nets import anchor, balanced, random_network


def dag(seed: int) -> Network:
    return balanced(lower(load_model(random_dag(seed))))


def attacked(network: Network, seed: int, radius: float, tight: bool, fold: str) -> int:
    """Random nodes of one network, checked at every stage; how many (node, point) pairs were looked at."""
    x0, label = anchor(network, seed)
    frame = frame_of(network, x0, label, radius, tight=tight, fold=fold)
    if frame is None or not frame.splits:
        return 0
    rng = np.random.default_rng(seed)
    x = Sample.of(frame, seed)
    bounder = Bounder(frame)
    nodes = bounder.roots()
    pairs = 0
    for depth in range(5):
        steps = (0, 5, 0, 2, 0)[depth]
        found = bounder.bound(random_multipliers(nodes, rng), steps, radius)
        pairs += check_nodes(frame, found.nodes, x, found)
        tighter = narrowed(bounder, found.nodes, found.line)
        pairs += check_nodes(frame, tighter, x)
        again = bounder.bound(tighter, 0, radius)
        pairs += check_nodes(frame, again.nodes, x, again)
        rested = unpack(pack(again.nodes, again.nodes.radius), bounder.shapes)
        pairs += check_nodes(frame, rested, x, bounder.bound(rested, 0, radius))
        nodes = random_split(bounder, rested, rng)
        # few enough nodes, in an order of their own, so that batches mix targets and depths
        nodes = nodes.take(torch.as_tensor(rng.permutation(len(nodes))[:8]))
    return pairs


KINDS: dict[str, tuple[Callable[[int], Network], float]] = {
    "relu": (random_network, 0.4),
    "piecewise": (lambda seed: random_network(seed, activations=PIECEWISE), 0.3),
    "all": (lambda seed: random_network(seed, activations=ACTIVATIONS), 0.5),
    "smooth": (lambda seed: random_network(seed, activations=("Sigmoid", "Tanh"), kind="dense"), 1.0),
    "dag": (dag, 0.2),
    "modern": (lambda seed: balanced(lower(load_model(random_modern(seed)))), 0.3),
}


@pytest.mark.parametrize("fold", ["auto", "never"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [10, 11])
def test_claims_of_random_nodes(seed: int, kind: str, fold: str) -> None:
    make, radius = KINDS[kind]
    # the cut intervals of a network that stays unfolded have a test of their own below
    assert attacked(make(seed), seed, radius, tight=fold == "auto" or kind == "relu", fold=fold) > 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(30, 40))
def test_claims_of_many_random_nodes(seed: int, kind: str) -> None:
    make, radius = KINDS[kind]
    for part in (0.3, 1.0):
        attacked(make(seed), seed, part * radius, tight=seed % 2 == 0, fold="auto")


def test_cut_intervals_of_an_unfolded_convolution_with_slopes() -> None:
    network = random_network(1, activations=("PRelu",), kind="conv")
    attacked(network, 1, 0.2, tight=True, fold="never")
