"""A frontier's lower ends hold at every moment, also when Ctrl-C comes in the middle of a change."""

from __future__ import annotations

import heapq
from typing import Any

import pytest
import torch

import onnxsub.verifiers.bab.frontier as module
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.bab_tools import frame_of
from tests.verifiers.nets import anchor, logits, measured, random_dense

POOR = BabOptions(batch=4, narrow=0, steps=1, root_steps=1, look=1)
"""Bounds so weak that there are open nodes to lose."""


@pytest.fixture(scope="module")
def case() -> tuple[Any, float, float]:
    """A frame that reaches beyond the boundary, its radius, and the distance by the MILP."""
    network = random_dense(5, 8, 40, 40, 3)
    x0, label = anchor(network, 5)
    true = measured(network, x0, label, threads=1, replay=logits(network))
    assert true.status == "exact"
    radius = 3 * true.upper
    return frame_of(network, x0, label, radius, tight=False), radius, true.upper


def ignore(_: torch.Tensor) -> None:
    pass


def grown(case: tuple[Any, float, float], steps: int = 3) -> Frontier:
    frame, radius, _ = case
    tree = Frontier(frame, POOR, radius)
    tree.start()
    for _ in range(steps):
        tree.step(ignore)
    assert tree.open > 3
    return tree


def lower(tree: Frontier) -> float:
    return min(tree.lowers().values())


class Interrupting:
    """`heapq` that raises KeyboardInterrupt once, at the call of that number."""

    def __init__(self, push: int = -1, pop: int = -1, heapify: bool = False) -> None:
        self.push, self.pop, self.heapify_fails = push, pop, heapify

    def heapify(self, heap: list[Any]) -> None:
        if self.heapify_fails:
            raise KeyboardInterrupt
        heapq.heapify(heap)

    def heappush(self, heap: list[Any], item: Any) -> None:
        self.push -= 1
        if self.push == -1:
            raise KeyboardInterrupt
        heapq.heappush(heap, item)

    def heappop(self, heap: list[Any]) -> Any:
        item = heapq.heappop(heap)
        self.pop -= 1
        if self.pop == -1:
            raise KeyboardInterrupt
        return item


def test_lowers_hold_at_every_step(case: tuple[Any, float, float]) -> None:
    frame, radius, distance = case
    tree = Frontier(frame, POOR, radius)
    assert lower(tree) == 0
    tree.start()
    for _ in range(25):
        assert lower(tree) <= distance
        tree.step(ignore)


def test_interrupted_look(case: tuple[Any, float, float]) -> None:
    def interrupt(_: torch.Tensor) -> None:
        raise KeyboardInterrupt

    tree = grown(case)
    with pytest.raises(KeyboardInterrupt):
        tree.step(interrupt)
    assert lower(tree) <= case[2]


@pytest.mark.parametrize("call", [0, 1])
def test_interrupted_bound(case: tuple[Any, float, float], monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    tree = grown(case)
    original, left = Bounder.bound, [call]

    def bound(self: Bounder, *args: Any, **kwargs: Any) -> Bounded:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Bounder, "bound", bound)
    before = tree.lowers()
    with pytest.raises(KeyboardInterrupt):
        tree.step(ignore)
    assert tree.lowers() == before
    monkeypatch.undo()
    for _ in range(25):  # whoever goes on has not lost what the step was at
        tree.step(ignore)
        assert lower(tree) <= case[2]


@pytest.mark.parametrize("call", [0, 1, 2])
def test_interrupted_while_children_are_kept(case: tuple[Any, float, float], monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    tree = grown(case)
    monkeypatch.setattr(module, "heapq", Interrupting(push=call))
    before = lower(tree)
    with pytest.raises(KeyboardInterrupt):
        tree.step(ignore)
    assert lower(tree) <= before


def test_interrupted_while_nodes_are_taken_out(case: tuple[Any, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grown(case)
    before = lower(tree)
    monkeypatch.setattr(module, "heapq", Interrupting(pop=0))
    with pytest.raises(KeyboardInterrupt):
        tree.step(ignore)
    assert lower(tree) <= before


def test_interrupted_while_a_target_is_raised(case: tuple[Any, float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grown(case)
    before = lower(tree)
    monkeypatch.setattr(module, "heapq", Interrupting(heapify=True))
    with pytest.raises(KeyboardInterrupt):
        tree.raise_target(0, 0.0)
    assert lower(tree) <= before
