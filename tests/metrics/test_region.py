"""The linear-region program: against one program over all facets, against the exact distance, and at its edges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from onnxsub.budget import Budget
from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.metrics.region import RegionOptions, RegionResult, region_distance
from onnxsub.metrics.region_cell import Cell
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.ops.maxpool import MaxPool
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import PIECEWISE, random_model

SEEDS = range(12)


def query_of(seed: int, *, kind: str | None = None, space: InputSpace | None = None, dag: bool = False) -> Query:
    proto = random_dag(seed, activations=PIECEWISE) if dag else random_model(seed, activations=PIECEWISE, kind=kind)
    model = load_model(proto)
    x0 = np.random.default_rng(1000 + seed).random(model.input_shape).astype(np.float32)
    return make_query(model, x0, space=space, threads=1)


def all_rows(query: Query) -> tuple[Array, Array]:
    """Every facet of the region, by differentiating the network itself at the anchor: `A delta <= b`."""
    network, x0 = query.network, torch.as_tensor(query.x0.astype(np.float64)).unsqueeze(0)
    n = query.network.input_size
    rows, ends = [np.zeros((0, n))], [np.zeros(0)]
    values = network.values(x0)
    for op in network.nonlinear:
        name = op.inputs[0]
        jacobian = torch.autograd.functional.jacobian(lambda x, name=name: network.values(x)[name].flatten(), x0)
        J, z = jacobian.reshape(-1, n).numpy(), values[name].flatten().numpy()
        if isinstance(op, MaxPool):
            for window in op.table:
                inside = window[window >= 0]
                best = inside[z[inside].argmax()]
                rows.append(J[inside] - J[best])
                ends.append(z[best] - z[inside])
            continue
        for kink in op.kinks(values[name]):
            k = kink.flatten().numpy()
            sign = np.where(z > k, -1.0, 1.0)
            rows.append(sign[:, None] * J)
            ends.append(sign * (k - z))
    return np.concatenate(rows), np.concatenate(ends)


def by_one_program(query: Query, target: int) -> float:
    """The same distance with all facets in one program over (delta, e), by scipy."""
    A, b = all_rows(query)
    x0 = torch.as_tensor(query.x0.astype(np.float64)).unsqueeze(0)
    n = query.network.input_size
    f = query.network.forward(x0)[0].detach().numpy()
    J = torch.autograd.functional.jacobian(lambda x: query.network.forward(x)[0], x0).reshape(-1, n).numpy()
    c, m = J[target] - J[query.label], f[target] - f[query.label]
    eye, one, zero = np.eye(n), np.ones((n, 1)), np.zeros((len(A) + 1, 1))
    rows = np.block([[np.concatenate([A, -c[None]]), zero], [eye, -one], [-eye, -one]])
    ends = np.concatenate([b, [m], np.zeros(2 * n)])
    flat = query.x0.astype(np.float64).reshape(-1)
    bounds = [(query.space.lower - v, query.space.upper - v) for v in flat] + [(0, None)]
    found = linprog(np.append(np.zeros(n), 1.0), A_ub=rows, b_ub=ends, bounds=bounds, method="highs-ds")
    assert found.status in (0, 2), found.message
    return float(found.fun) if found.status == 0 else np.inf


def check(query: Query, result: RegionResult) -> int:
    """Asserts every target, the witness and the order of both; how many targets are reached."""
    reached = 0
    for t, target in result.targets.items():
        expected = by_one_program(query, t)
        if np.isinf(expected):
            assert target.status == "none", (t, target)
        else:
            reached += 1
            assert target.status == "reached", (t, target, expected)
            assert target.distance == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert target.lower == pytest.approx(expected, rel=1e-6, abs=1e-9)
    if reached:
        assert result.witness is not None
        assert result.witness.confirmed
        assert result.distance == query.radius(result.witness.x[None])[0]
        assert result.distance == pytest.approx(min(t.distance for t in result.targets.values()), rel=1e-3, abs=2e-6)
        # onnxruntime rounds differently in batches of another size
        assert query.margins(result.witness.x[None])[0][0] == pytest.approx(result.witness.margin, abs=1e-5)
    else:
        assert result.status == "none"
        assert np.isinf(result.distance)
    return reached


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
def test_equals_one_program_over_all_facets(kind: str) -> None:
    reached = 0
    for seed in SEEDS if kind == "dense" else SEEDS[:5]:
        query = query_of(seed, kind=kind)
        reached += check(query, region_distance(query, RegionOptions(batch=3)))
    assert reached >= 1


def test_equals_one_program_on_graphs_of_every_operator() -> None:
    reached = 0
    for seed in SEEDS:
        query = query_of(seed, dag=True)
        reached += check(query, region_distance(query))
    assert reached >= 2


def test_normalised_inputs_and_another_domain() -> None:
    space = InputSpace(-0.5, 1.25, mean=(0.4,), std=(0.7,))
    reached = 0
    for seed in SEEDS:
        query = query_of(seed, kind="dense", space=space)
        reached += check(query, region_distance(query))
    assert reached >= 2


@pytest.mark.parametrize("seed", range(8))
def test_never_below_the_exact_distance(seed: int) -> None:
    query = query_of(seed, kind="dense")
    # the lower end is proved also where the limit ends the search
    exact = distance(query, DistanceOptions(Limits(timeout=1.0, threads=1)))
    region = region_distance(query)
    assert region.distance >= exact.lower
    assert region.rho.upper == region.distance
    assert region.rho.lower == 0


def test_in_the_affine_case_it_is_the_exact_distance() -> None:
    net = Net(3)
    w = net.weight([[1.0, 0.0, 0.0], [0.0, 1.0, -1.0]])
    model = load_model(net.model(net.named("Gemm", ["x", w, net.weight([0.3, 0.0])], None, transB=1), 2))
    query = make_query(model, np.array([0.6, 0.5, 0.4], dtype=np.float32), threads=1)
    # the margin -0.8 grows by 1 per unit of each of three inputs
    region = region_distance(query)
    assert region.distance == pytest.approx(0.8 / 3, abs=2e-6)
    assert region.targets[1].facets == 0
    assert region.rounds == 0


def test_where_no_boundary_is_in_the_region_none_is_claimed() -> None:
    net = Net(1)
    h = net.node("Relu", [net.named("Gemm", ["x", net.weight([[1.0]]), net.weight([-0.5])], None, transB=1)])
    model = load_model(net.model(net.named("Gemm", [h, net.weight([[0.0], [4.0]]), net.weight([1.0, 0.0])], None, transB=1), 2))
    query = make_query(model, np.array([0.2], dtype=np.float32), threads=1)
    assert distance(query).upper == pytest.approx(0.55, abs=1e-5)
    region = region_distance(query)
    assert region.status == "none"
    assert region.to_json()["distance"] is None
    assert region.targets[1].status == "none"


def test_an_anchor_on_a_kink_and_a_tie_of_a_pooling_window() -> None:
    net = Net(1, 2, 2)
    pooled = net.node("MaxPool", ["x"], kernel_shape=[2, 2])
    z = net.gemm(net.node("Flatten", [pooled]), 1, 2, None)
    net.weights[-2].CopyFrom(_tensor(net.weights[-2].name, [[1.0], [0.0]]))
    net.weights[-1].CopyFrom(_tensor(net.weights[-1].name, [-0.5, 0.25]))
    model = load_model(net.model(net.node("Relu", [z]), 2))
    # all elements tie, and the first logit's Relu is at 0
    query = make_query(model, np.full((1, 2, 2), 0.5, dtype=np.float32), threads=1)
    assert query.label == 1
    region = region_distance(query)
    assert check(query, region) == 0  # the piece at the kink is the one below it
    assert distance(query).upper == pytest.approx(0.25, abs=1e-5)


def _tensor(name: str, values: list[object]) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.asarray(values, dtype=np.float32), name)


def test_one_logit() -> None:
    net = Net(4)
    h = net.node("Relu", [net.gemm("x", 4, 6)])
    model = load_model(net.model(net.gemm(h, 6, 1), 1))
    query = make_query(model, np.full(4, 0.5, dtype=np.float32), threads=1)
    check(query, region_distance(query))


def test_a_misclassified_anchor_is_at_distance_0() -> None:
    query = query_of(1, kind="dense")
    other = make_query(query.model, query.x0, query.targets[0], threads=1)
    region = region_distance(other)
    assert region.status == "misclassified"
    assert region.distance == 0
    assert region.rho.misclassified


def test_the_budget_that_it_belongs_to_ends_it() -> None:
    query = query_of(next(s for s in SEEDS if region_distance(query_of(s, kind="dense")).status == "reached"), kind="dense")
    over = Budget()
    over.stop.set()
    region = region_distance(query, RegionOptions(timeout=100), budget=over)
    assert region.status == "bracket"
    assert all(t.status in ("bracket", "none") for t in region.targets.values())
    full = region_distance(query)
    assert all(region.targets[t].lower <= full.targets[t].lower + 1e-9 for t in region.targets)
    assert region_distance(query, budget=Budget(100)).distance == full.distance


def test_nearest_only_finds_the_same_distance() -> None:
    cut = 0
    for seed in SEEDS:
        query = query_of(seed, kind="dense")
        all_of_them, nearest = region_distance(query), region_distance(query, RegionOptions(nearest_only=True))
        assert nearest.distance == pytest.approx(all_of_them.distance, rel=1e-6)
        for t, target in nearest.targets.items():
            cut += target.status == "cutoff"
            assert target.lower <= all_of_them.targets[t].distance * (1 + 1e-9)
    assert cut > 0


def test_a_limit_ends_the_search_beyond_it() -> None:
    query = query_of(next(s for s in SEEDS if region_distance(query_of(s, kind="dense")).status == "reached"), kind="dense")
    full = region_distance(query)
    assert region_distance(query, RegionOptions(limit=full.distance * 1.01)).distance == full.distance
    short = region_distance(query, RegionOptions(limit=full.distance * 0.5))
    assert short.status == "none"
    assert all(t.status in ("cutoff", "none") for t in short.targets.values())
    for t, target in short.targets.items():
        assert target.lower <= full.targets[t].distance * (1 + 1e-9)


@pytest.mark.parametrize("many", [0, 10**9])
def test_both_methods_of_the_solver_agree(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxsub.metrics.region_program._MANY", many)
    reached = 0
    for seed in SEEDS:
        query = query_of(seed, kind="dense")
        reached += check(query, region_distance(query))
    assert reached >= 2


def test_a_smooth_network_has_no_linear_region() -> None:
    query = make_query(load_model(random_model(0, activations=("Tanh",), kind="dense")), np.full(6, 0.5)[: _inputs(0)], threads=1)
    with pytest.raises(UnsupportedOperatorError, match="piecewise linear"):
        region_distance(query)


def _inputs(seed: int) -> int:
    return load_model(random_model(seed, activations=("Tanh",), kind="dense")).input_shape[0]


def test_no_time() -> None:
    query = next(
        q for q in (query_of(s, kind="dense") for s in SEEDS) if any(t.rounds for t in region_distance(q).targets.values())
    )
    region = region_distance(query, RegionOptions(timeout=1e-9))
    assert region.status in ("bracket", "reached", "none")
    assert any(t.status == "bracket" for t in region.targets.values())
    full = region_distance(query)
    for t, target in region.targets.items():
        assert target.lower <= full.targets[t].distance * (1 + 1e-9)


def test_points_of_the_region_have_the_affine_margin() -> None:
    for seed in SEEDS:
        query = query_of(seed)
        cell = Cell(query.network, query.x0)
        A, b = all_rows(query)
        rng = np.random.default_rng(seed)
        step = rng.normal(size=query.network.input_size)
        growth = A @ step
        room = (b[growth > 1e-12] / growth[growth > 1e-12]).min(initial=1.0)
        inside, outside = 0.999 * room * step, 1.5 * room * step
        assert cell.crossed(inside, 5, cell.none_known()) == []
        if 0 < room < 1:
            assert cell.crossed(outside, 5, cell.none_known()) != []
        x = torch.as_tensor(query.x0 + inside.reshape(query.x0.shape)).unsqueeze(0)
        f = query.network.forward(x)[0].detach().numpy()
        for t in query.targets:
            c, m = cell.margin(query.label, t)
            assert c @ inside + m == pytest.approx(f[t] - f[query.label], abs=1e-9)


@pytest.mark.parametrize("options", [{"batch": 0}, {"limit": 0.0}, {"tol": 0.0}, {"tol": float("nan")}, {"timeout": 0.0}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="region"):
        RegionOptions(**options)  # type: ignore[arg-type]


def test_a_real_convolution(net_path: Callable[[str], Path], data_dir: Path) -> None:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        x, y = archive["x_test"][8].astype(np.float32)[None] / 255, int(archive["y_test"][8])
    query = make_query(load_model(net_path("wk17a")), x, y, threads=1)
    region = region_distance(query, RegionOptions(nearest_only=True))
    # the published distance of this image is 0.0940014
    assert region.status == "reached"
    assert 0.0940014 <= region.distance <= 0.1402
