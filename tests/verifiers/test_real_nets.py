"""Distances of real MNIST networks: published ones, between searches, between solvers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxsub.query import Query, make_query
from onnxsub.verifiers.programs.solvers import SOLVERS
from onnxsub.verifiers.result import DistanceResult
from tests.verifiers.nets import measured

ANCHORS = {"mnist_2_20": (0, 1, 2, 3, 4), "mnist2x10": (0, 1, 2, 3, 4), "mnist_2_50": (6, 8, 9, 15, 20)}
CASES = [(net, index) for net, indices in ANCHORS.items() for index in indices]


@pytest.fixture(scope="module")
def query(data_dir: Path, net_path: Callable[[str], Path]) -> Callable[[str, int], Query]:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        images = archive["x_test"][:32]

    def make(net: str, index: int) -> Query:
        return make_query(net_path(net), images[index].reshape(-1).astype(np.float32) / np.float32(255), threads=1)

    return make


def solve(q: Query, **options: object) -> DistanceResult:
    options = {"threads": 1, **options}
    return measured(q.network, q.x0, q.label, q.space, replay=q.logits, **options)  # type: ignore[arg-type]


def check(q: Query, r: DistanceResult) -> None:
    assert r.status == "exact"
    assert r.witness is not None
    assert r.witness.kind in ("strict", "tie")
    assert q.radius(r.witness.x[None])[0] == r.upper
    assert r.upper - r.lower <= 1e-6
    assert q.margins(r.witness.x[None])[0][0] == pytest.approx(r.witness.margin, abs=1e-5)


@pytest.mark.parametrize(("net", "index"), [c for c in CASES if c[0] != "mnist_2_50" or c[1] != 6])
def test_solvers_agree(query: Callable[[str, int], Query], net: str, index: int) -> None:
    q = query(net, index)
    if q.misclassified:
        pytest.skip("the anchor is misclassified")
    results = {name: solve(q, solver=name) for name in ("highs", "scip") if SOLVERS[name].is_available()}
    for r in results.values():
        check(q, r)
        assert abs(r.upper - results["highs"].upper) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("net", "index"), CASES)
def test_direct_is_bisect_and_gurobi_agrees(query: Callable[[str, int], Query], net: str, index: int) -> None:
    q = query(net, index)
    solver = "scip" if SOLVERS["scip"].is_available() else "highs"
    direct, bisect = solve(q, solver=solver), solve(q, search="bisect", solver=solver)
    for r in (direct, bisect):
        check(q, r)
    assert abs(direct.upper - bisect.upper) <= 1e-5
    if SOLVERS["gurobi"].is_available():
        # inside the size limit of its pip licence: 784 inputs and at most 100 units
        other = solve(q, solver="gurobi")
        check(q, other)
        assert abs(direct.upper - other.upper) <= 1e-5


@pytest.mark.parametrize(
    ("index", "label", "distance"),
    [
        (0, 2, 0.0139927),
        pytest.param(1, 3, 0.0315565, marks=pytest.mark.slow),
        pytest.param(2, 8, 0.0192744, marks=pytest.mark.slow),
    ],
)
def test_published_distances(query: Callable[[str, int], Query], index: int, label: int, distance: float) -> None:
    q = query("mnist-net_256x2", index)
    r = solve(q)
    check(q, r)
    assert r.adversarial_label == label
    assert r.upper == pytest.approx(distance, abs=1e-5)
