"""The engine of branch and bound on a GPU: on one that is there, else on one that is not (`tests/pretend_device.py`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.device import ieee_float32
from onnxsub.errors import InputError
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.certify import certified_radius
from onnxsub.propagate import compute_bounds, margin_bounds
from onnxsub.properties import Case, Clause, Property
from onnxsub.runtime import Runtime
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bab import bound
from onnxsub.verifiers.bab.cuts import making
from onnxsub.verifiers.bab.cuts.planes import Cuts
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.order import ByValue
from onnxsub.verifiers.bab.relu import ascent
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from tests.pretend_device import PretendDevice, pretend_device
from tests.random_models import random_model
from tests.verifiers.bab_tools import target_models
from tests.verifiers.nets import UNIT, anchor, decided, logits, measured, random_dense, random_network

HERE = torch.cuda.is_available()
WHERE = [
    pytest.param("pretend", marks=pytest.mark.skipif(HERE, reason="a CUDA device is here, so none is pretended")),
    pytest.param("cuda", marks=pytest.mark.skipif(not HERE, reason="no CUDA device is here")),
]
KINDS = ("dense", "conv", "residual", "pool")
LIMITS = Limits(threads=1)
TENSORS: dict[str, Any] = {"leaf": 0, "dive": 0}  # no program but for nodes with nothing left to split


@pytest.fixture(params=WHERE)
def device(request: pytest.FixtureRequest) -> AbstractContextManager[PretendDevice | None]:
    return pretend_device() if request.param == "pretend" else nullcontext()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_of(kind: str, seed: int = 0) -> Network:
    if kind == "dense":
        return random_dense(seed, 6, 12, 10, 3)
    return random_network(seed, kind=kind, classes=3, activations=("Relu", "LeakyRelu", "Clip"))


def used(mode: PretendDevice | None) -> bool:
    return mode is None or mode.calls > 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ibp", "fastlin-ibp", "crown", "alpha-crown"])
def test_bounds_are_the_same(kind: str, method: str, device: AbstractContextManager[PretendDevice | None]) -> None:
    network = network_of(kind)
    x0, label = anchor(network, 0)
    low, high = (torch.as_tensor(e) for e in UNIT.ball(x0.astype(np.float64), 0.03))
    rows = np.eye(network.classes) - np.eye(network.classes)[label]
    here = compute_bounds(network, low, high, method, steps=3)
    margins = margin_bounds(network, here, rows)
    with device:
        found = compute_bounds(network, low.to("cuda"), high.to("cuda"), method, steps=3)
        assert all(t.is_cuda for box in found.pre.values() for t in box)
        there = [m.cpu() for m in margin_bounds(network, found, rows)]
        back = found.on_cpu(network)
    close = {"rtol": 1e-2, "atol": 1e-4} if method == "alpha-crown" else {"rtol": 1e-9, "atol": 1e-9}
    for name, box in here.pre.items():
        for one, other in zip(box, back.pre[name], strict=True):
            torch.testing.assert_close(one, other, **close)
    for one, other in zip(margins, there, strict=True):
        torch.testing.assert_close(one, other, **close)
    again = margin_bounds(network, back, rows)
    for one, other in zip(again, there, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("narrow", [0, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_trees_grow_alike(kind: str, narrow: int, device: AbstractContextManager[PretendDevice | None]) -> None:
    network = network_of(kind)
    x0, label = anchor(network, 0)
    radius = next((r for r in (0.02, 0.05, 0.1, 0.2, 0.4) if target_models(network, x0, label, r, tight=False)), None)
    assert radius is not None
    models = target_models(network, x0, label, radius, tight=False)
    options = BabOptions(batch=4, steps=3, root_steps=3, narrow=narrow, look=4)

    def grown(where: str) -> tuple[dict[int, float], int, list[Tensor]]:
        tree = Frontier(Frame.of(models, device=where), options, radius)
        tree._at_once = options.batch
        points = [tree.start()]
        for _ in range(2):
            tree.step(points.append)
        return tree.lowers(), tree.visited, points

    lowers, visited, points = grown("cpu")
    assert visited > 0
    with device as mode:
        found, count, there = grown("cuda")
        assert all(p.is_cuda for p in there)
    assert used(mode)
    assert abs(count - visited) <= 8
    for t, lower in lowers.items():
        assert found[t] == pytest.approx(lower, rel=5e-2, abs=1e-3)
    torch.testing.assert_close(there[0].cpu(), points[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
def test_trees_with_cuts_grow_alike(
    kind: str, device: AbstractContextManager[PretendDevice | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "_AS_LONG", math.inf)  # small trees take milliseconds, their cuts longer
    network = random_dense(5, 8, 40, 40, 3) if kind == "dense" else random_network(1, kind=kind, classes=3, activations=("Relu",))
    x0, label = anchor(network, 5 if kind == "dense" else 1)
    radius = 0.2
    models = target_models(network, x0, label, radius, tight=False, fold="never")
    options = BabOptions(batch=4, steps=3, root_steps=3, narrow=0, look=4, hard=1)

    def grown(where: str) -> tuple[dict[int, float], list[int], list[int], list[Tensor]]:
        grows = Frontier(Frame.of(models, device=where), options, radius)
        grows._at_once = options.batch
        points, counts = [grows.start()], []
        for _ in range(3):
            grows.step(points.append)
            counts.append(sum(grows.bounder.cut_counts))
            grows._at_once = options.batch
        return grows.lowers(), counts, [grows.visited], points

    lowers, counts, visited, points = grown("cpu")
    assert counts[-1] > 0
    with device as mode:
        found, cuts, many, there = grown("cuda")
        assert all(p.is_cuda for p in there)
    assert used(mode)
    assert cuts[-1] == pytest.approx(counts[-1], rel=0.1)
    assert abs(many[0] - visited[0]) <= 8
    for t, lower in lowers.items():
        assert found[t] == pytest.approx(lower, rel=5e-2, abs=1e-3)
    torch.testing.assert_close(there[0].cpu(), points[0], rtol=1e-2, atol=1e-2)


def test_trees_of_values_grow_alike(device: AbstractContextManager[PretendDevice | None]) -> None:
    network = random_dense(3, 6, 12, 10, 2)
    x0, label = anchor(network, 3)
    (model,) = target_models(network, x0, label, 0.3, tight=False)
    options = BabOptions(batch=4, steps=3, root_steps=3)

    def top(where: str) -> float:
        tree = Frontier(Frame.of([model], whole=True, device=where), options, 0.0, ByValue())
        tree._at_once = options.batch
        tree.start()
        for _ in range(3):
            tree.step(lambda points: None)
        return -min(tree.lowers().values())

    here = top("cpu")
    with device as mode:
        assert top("cuda") == pytest.approx(here, rel=1e-2)
    assert used(mode)


@pytest.mark.parametrize("settings", [TENSORS, {**TENSORS, "narrow": 0}, {"dive": 0}, {}], ids=["tensors", "whole", "leaf", "dive"])
def test_distances_are_the_same(settings: dict[str, Any], device: AbstractContextManager[PretendDevice | None]) -> None:
    network = random_dense(1, 6, 8, 6, 3)
    x0, label = anchor(network, 1)
    asked = {"verifier": "bab", "threads": 1, "replay": logits(network)}
    here = measured(network, x0, label, bab=BabOptions(**settings), **asked)
    with device as mode:
        there = measured(network, x0, label, bab=BabOptions(device="cuda", **settings), **asked)
    assert used(mode)
    assert here.status == there.status == "exact"
    assert there.upper == pytest.approx(here.upper, abs=2e-6)
    assert there.settings["bab"]["device"] == "cuda"


@pytest.mark.parametrize(("kind", "eps"), [*((k, None) for k in KINDS), ("dense", 0.3)])
def test_decisions_are_the_same(kind: str, eps: float | None, device: AbstractContextManager[PretendDevice | None]) -> None:
    network = network_of(kind, 1)
    x0, label = anchor(network, 1)
    if eps is None:  # a little beyond what bounds alone prove
        eps = 1.05 * certified_radius(network, lambda r: UNIT.ball(x0.astype(np.float64), r), label, 1.0)
    asked = {"verifier": "bab", "threads": 1, "attack": False, "replay": logits(network)}
    here = decided(network, x0, label, eps, bab=BabOptions(**TENSORS), **asked)
    with device as mode:
        there = decided(network, x0, label, eps, bab=BabOptions(device="cuda", **TENSORS), **asked)
    assert mode is None or mode.calls > 50
    assert here.status == there.status != "unknown", (here.reason, there.reason)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_properties_are_the_same(kind: str, device: AbstractContextManager[PretendDevice | None]) -> None:
    model = load_model(random_model(1, kind=kind, activations=("Relu", "LeakyRelu"), classes=3))
    size, rng = int(np.prod(model.input_shape)), np.random.default_rng(1)
    centre = rng.uniform(0.3, 0.7, size)
    points = rng.uniform(centre - 0.05, centre + 0.05, (500, size))
    y = Runtime(model).logits(points.astype(np.float32).reshape(-1, *model.input_shape)).astype(np.float64)
    margin = y[:, 0] - y[:, 1]
    for shift, status in ((0.5, "proved"), (-0.3, "violated")):
        row = Clause(np.array([[-1.0, 1.0, 0.0]]), np.array([-(margin.max() + shift * np.ptp(margin))]), np.zeros(1, dtype=bool))
        asked = Property((Case(centre - 0.05, centre + 0.05, (row,)),), (size,), (model.outputs,))
        for attack in (False, True):
            milp = MilpOptions(attack=attack)
            assert decide_property(model, asked, VerifyOptions(LIMITS, milp, BabOptions(**TENSORS))).status == status
            with device_again(device) as mode:
                options = VerifyOptions(LIMITS, milp, BabOptions(device="cuda", **TENSORS), AttackPlan(device="cuda"))
                assert decide_property(model, asked, options).status == status
            assert mode is None or mode.calls > 50


def device_again(device: AbstractContextManager[PretendDevice | None]) -> AbstractContextManager[PretendDevice | None]:
    """A context of `contextmanager` can be entered once."""
    return nullcontext() if isinstance(device, nullcontext) else pretend_device()


def test_a_step_takes_more_nodes_as_far_as_memory_allows() -> None:
    if HERE:
        pytest.skip("a CUDA device is here, so none is pretended")
    network = random_dense(1, 6, 12, 10, 3)
    x0, label = anchor(network, 1)
    models = target_models(network, x0, label, 0.3)
    for free, many in ((0, 32), (4 * 10**6, None), (2**34, 512)):
        with pretend_device(free=free):
            assert Frame.of(models).at_once(BabOptions()) == 32
            found = Frame.of(models, device="cuda").at_once(BabOptions(device="cuda"))
        assert found == many if many is not None else 32 < found < 512


def test_a_step_with_cuts_takes_twice_as_many_nodes_as_far_as_memory_allows() -> None:
    if HERE:
        pytest.skip("a CUDA device is here, so none is pretended")
    network = random_dense(1, 6, 12, 10, 3)
    x0, label = anchor(network, 1)
    models = target_models(network, x0, label, 0.3)
    op = network.activations[0]
    many = torch.zeros((len(models), 20_000, 2), dtype=torch.float64)
    cuts = {op.output: Cuts(many.long(), many, many, many[..., 0])}
    here = replace(Frame.of(models), cuts=cuts)
    assert here.at_once(BabOptions()) == 64
    counts = {}
    for free in (2**34, 2**40):
        with pretend_device(free=free):
            there = Frame.of(models, device="cuda")
            options = BabOptions(memory=2**40, device="cuda")
            counts[free] = there.at_once(options), replace(there, cuts=cuts).at_once(options)
    # 16 GiB hold all nodes of a step, or those that 20,000 cuts of 160 bytes leave room for
    assert counts[2**40] == (512, 1024)
    assert counts[2**34][0] == 512
    assert 2**33 / (16 * 20_000 * 160) * 0.99 < counts[2**34][1] + 1 < 2**33 / (16 * 20_000 * 160) + 1


@pytest.mark.parametrize(("module", "name"), [(bound, "pull_back"), (ascent, "pulled")])
def test_products_are_whole_float32(
    module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch, device: AbstractContextManager[PretendDevice | None]
) -> None:
    """Every pass of the engine runs without TF32, by operators and by matrices, and what was set before is set again."""
    seen = []
    real = getattr(module, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, watched)
    network = random_dense(1, 6, 12, 10, 3) if module is ascent else network_of("conv")
    x0, label = anchor(network, 1)
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    assert before == (True, "highest")
    models = target_models(network, x0, label, 0.3, tight=False)
    with device:
        tree = Frontier(Frame.of(models, device="cuda"), BabOptions(steps=2, root_steps=2, batch=2), 0.3)
        tree.start()
        tree.step(lambda points: None)
    assert len(seen) > 5
    assert set(seen) == {(False, False)}
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_settings_of_precision_come_back(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    try:
        for name, tf32 in (("cuda", False), ("cpu", precision != "highest")):
            with ieee_float32(torch.device(name)):
                assert torch.backends.cuda.matmul.allow_tf32 is tf32
            assert torch.get_float32_matmul_precision() == precision
            assert torch.backends.cuda.matmul.allow_tf32 is (precision != "highest")
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "gpu", ""])
def test_devices_that_are_unknown(name: str) -> None:
    with pytest.raises(InputError, match="choose cpu or cuda"):
        BabOptions(device=name)


def test_devices_that_are_not_there() -> None:
    if not HERE:
        with pytest.raises(InputError, match="torch sees no CUDA device"):
            BabOptions.of_gib(4, "cuda")
        with pytest.raises(InputError, match="torch sees no CUDA device"):
            AttackPlan(device="cuda:0")
        with pretend_device():
            assert BabOptions(device="cuda:0").device == "cuda:0"
            with pytest.raises(InputError, match="no device cuda:1"):
                BabOptions(device="cuda:1")
