"""Distances by regions of the input box: those of the MILP, at every moment a bracket, and exact where trees of signs stay open."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import onnxsub
import onnxsub.verifiers.bab.inputs.halves as halves_module
from onnxsub.budget import OutOfTime
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.verifiers.bab.inputs.lines import RowLines
from onnxsub.verifiers.bab.inputs.nearest import FEW, NearestRegions, search_inputs
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import BabOptions
from onnxsub.verifiers.session import Session
from tests.verifiers.nets import anchor, balanced, dense, exact_options, far_anchor, logits, measured, random_network

TOL = 1e-6


def asked(network: Network, x0: Array, label: int, space: InputSpace | None = None, **options: object) -> Bracket:
    """A bracket with the point of an attack, if that finds one."""
    instance = Instance(network, x0, label, space or InputSpace(), logits(network))
    bracket = Bracket(instance, Session(exact_options(BabOptions(dive=0, leaf=0), threads=1, tol=TOL, **options)))
    bracket.find_start(None)
    return bracket


def scaled(seed: int, power: int) -> Network:
    """A dense network with many kinks, whose first layer is times 2^power and the next times 2^-power."""
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(2, 6)), *(int(rng.integers(12, 25)) for _ in range(2)), 3]
    layers = [[3 * rng.normal(size=(m, n)) / np.sqrt(n), rng.normal(size=m)] for n, m in pairwise(sizes)]
    layers[0][1] -= layers[0][0] @ np.full(sizes[0], 0.5)
    layers[0] = [e * 2.0**power for e in layers[0]]
    layers[1][0] = layers[1][0] / 2.0**power
    return balanced(dense(*((w, b) for w, b in layers)))


@pytest.mark.parametrize("power", [0, -80, 80])
@pytest.mark.parametrize("seed", [*range(8), 26, 32])
def test_distances_are_those_of_programs(seed: int, power: int) -> None:
    network = scaled(seed, power)
    x0, label = far_anchor(network, 0)
    true = measured(network, x0, label, replay=logits(network), tol=TOL, threads=1)
    bracket = asked(network, x0, label)
    search = NearestRegions(bracket)
    search.run(bracket.budget.with_nodes(3000))
    found = bracket.result("bab")
    assert search.visited > 0
    assert true.status == found.status == "exact"
    assert found.lower <= true.upper + 1e-9
    assert found.upper >= true.lower - 1e-9
    assert found.upper == pytest.approx(true.upper, abs=2 * TOL)


KINDS = [("conv", ("LeakyRelu",)), ("residual", ("Relu",)), ("dense", ("Sigmoid", "Relu"))]


@pytest.mark.parametrize(("kind", "activations"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_no_point_lies_within_what_is_proved(seed: int, kind: str, activations: tuple[str, ...]) -> None:
    """Other operators, ended in the middle again and again: what is proved holds, and the search goes on."""
    network = random_network(seed, kind=kind, activations=activations, classes=3)
    x0, label = anchor(network, seed)
    bracket = asked(network, x0, label)
    search = NearestRegions(bracket)
    rng, value = np.random.default_rng(seed), logits(network)
    for _ in range(4):
        before = bracket.lower
        try:
            search.run(bracket.budget.with_nodes(60))
        except OutOfTime:
            pytest.fail("counts end a search between steps")
        lower = min(bracket.lower, 1.0)
        assert lower >= before
        d = rng.uniform(-lower, lower, (3000, *network.input_shape))
        d[::2] = np.sign(d[::2]) * lower
        f = value(np.clip(x0 + d, 0, 1))
        own = f[:, label].copy()
        f[:, label] = -np.inf
        assert (f.max(1) - own).max() <= 1e-9 * (1 + np.abs(own).max())
    assert search.visited > 50 or bracket.settled or bracket.lower >= bracket.reach


def test_wide_and_shifted_domains() -> None:
    """Anchors at 1000 in a domain 2e6 wide, with features of which one does not move."""
    rng = np.random.default_rng(3)
    w = [rng.normal(size=(m, n)) / np.sqrt(n) for n, m in ((4, 12), (12, 8), (8, 3))]
    network = dense((w[0] / 50, -(w[0] / 50) @ np.full(4, 1000.0)), (w[1], rng.normal(size=8)), (w[2], rng.normal(size=3)))
    low, high = np.full(4, -1e6), np.full(4, 1e6)
    low[2] = high[2] = 1000.0
    space, x0 = InputSpace(lower=low, upper=high), np.full(4, 1000.0, dtype=np.float32)
    label = int(logits(network)(x0[None])[0].argmax())
    true = measured(network, x0, label, space, replay=logits(network), tol=1e-3, threads=1)
    bracket = Bracket(Instance(network, x0, label, space, logits(network)), Session(exact_options(tol=1e-3, threads=1)))
    bracket.find_start(None)
    NearestRegions(bracket).run(bracket.budget.with_nodes(4000))
    assert bracket.lower <= true.upper * (1 + 1e-9)
    assert bracket.upper >= true.lower * (1 - 1e-9)
    assert bracket.lower == pytest.approx(true.lower, rel=1e-3)


def test_what_is_not_finite_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = scaled(1, 0)
    x0, label = far_anchor(network, 0)
    for name in ("c", "end"):
        bracket = asked(network, x0, label)
        search = NearestRegions(bracket)
        whole = search._radii

        def spoilt(lines: object, regions: object, name: str = name, whole: object = whole) -> object:
            broken = getattr(lines, name).clone()
            broken[:] = torch.nan if name == "c" else torch.inf
            return whole(_with(lines, name, broken), regions)  # type: ignore[operator]

        monkeypatch.setattr(search, "_radii", spoilt)
        search.run(bracket.budget.with_nodes(200))  # intervals may go on proving
        true = measured(network, x0, label, replay=logits(network), tol=TOL, threads=1)
        assert bracket.lower <= true.upper + 1e-9


@pytest.mark.parametrize("slope", [1e300, 1e308, float("inf"), float("nan")])
def test_lines_that_overflow_close_nothing(slope: float) -> None:
    """Lines that are zero or more at the anchor, and so steep that their sums are no numbers."""
    network = scaled(1, 0)
    x0, label = far_anchor(network, 0)
    search = NearestRegions(asked(network, x0, label))
    regions, n = search._waiting, network.input_size
    count = len(regions)
    c = torch.full((count, count, n), slope, dtype=torch.float64)
    end = torch.full((count, count), 1.7e308, dtype=torch.float64)
    radius, _ = search._radii(RowLines(c, end, end, {}), regions)
    assert (radius == 0).all()


def _with(lines: object, name: str, value: torch.Tensor) -> object:
    return replace(lines, **{name: value})  # type: ignore[type-var]


def test_regions_too_small_to_be_halved_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = scaled(3, 0)
    x0, label = far_anchor(network, 0)
    true = measured(network, x0, label, replay=logits(network), tol=TOL, threads=1)
    for smallest, stuck in ((1e-12, False), (0.2, True)):
        monkeypatch.setattr(halves_module, "_SMALLEST", smallest)
        bracket = asked(network, x0, label)
        search = NearestRegions(bracket)
        search.run(bracket.budget.with_nodes(3000))
        assert search.stuck is stuck
        assert bracket.settled is not stuck
        assert bracket.lower <= true.upper + 1e-9


def test_where_the_file_takes_whole_numbers_the_real_boundary_ends_it() -> None:
    """Classes change at `x_0 + x_1 = 7.5 + relu(x_0 - x_1) / 4`, so at 0.75 from (3, 3), and at 1 among whole numbers."""
    layers = (
        (np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)),
        (np.array([[0.0, 0.0], [1.0, -0.25]]), np.array([0.0, -7.5])),
    )
    network, x0 = dense(*layers), np.array([3.0, 3.0], dtype=np.float32)
    space = InputSpace(lower=0.0, upper=10.0, whole=True)
    bracket = Bracket(Instance(network, x0, 0, space, logits(network)), Session(exact_options(threads=1)))
    bracket.find_start(None)
    search = NearestRegions(bracket)
    search.run(bracket.budget.with_nodes(5000))
    assert search.visited < 1000
    assert bracket.upper == 1.0
    assert bracket.lower == pytest.approx(0.75, abs=1e-5)


def test_it_is_for_few_inputs() -> None:
    for n in (FEW, FEW + 1):
        rng = np.random.default_rng(n)
        network = balanced(dense((rng.normal(size=(9, n)), rng.normal(size=9)), (rng.normal(size=(3, 9)), np.zeros(3))))
        x0, label = anchor(network, 0)
        bracket = asked(network, x0, label)
        nodes = bracket.budget.nodes
        search_inputs(bracket)
        assert (bracket.budget.nodes > nodes) is (n == FEW)


def test_networks_of_few_inputs_end_exactly(data_dir: Path) -> None:
    """300 Relus over five inputs: the trees of signs leave 9 to 27 % open after twenty seconds."""
    path = data_dir / "lowdim" / "acasxu_2023" / "ACASXU_run2a_1_1_batch_2000.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}")
    low, high = np.array([0.0, -0.4, -0.4, 0.0, 0.0]), np.array([0.6, 0.4, 0.4, 0.5, 0.5])
    x = np.random.default_rng(0).uniform(low, high).astype(np.float32).reshape(1, 1, 5)
    found = onnxsub.distance(path, x, lower=-0.5, upper=0.7, nodes=3000, threads=1)
    assert found.status == "exact"
    assert found.upper == pytest.approx(0.104024, abs=1e-5)
    assert math.isfinite(found.lower)
