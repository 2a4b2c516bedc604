"""Windows as units: their lines, what the lines are off by, and substitutes of networks with pools, maxima and minima."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto
from scipy.optimize import linprog

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.windows import WindowMax
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.certify import keeps_its_pieces, margin_rows, worst_margin_bound
from onnxsub.passes.fold import fold, stabilise
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import lines, substitute
from onnxsub.passes.unpool import relus_needed, without_windows
from onnxsub.passes.windows import line_error, narrowed, window_line
from onnxsub.propagate import compute_bounds, margin_bounds
from onnxsub.pruning.prune import PruneOptions, PruneResult, prune
from onnxsub.query import Query, make_query
from tests.handmade import Net

FAST = AttackOptions(steps=20, restarts=4, rounds=1, threads=1)
SEEDS = pytest.mark.parametrize("seed", range(5))


def table_of(rng: np.random.Generator) -> WindowMax:
    table = np.stack([rng.permutation(6)[:4] for _ in range(8)])
    table[rng.random(table.shape) < 0.2] = -1
    table[:, 0] = np.where(table.max(axis=1) < 0, 0, table[:, 0])
    return WindowMax(op_type="Max", node="n", inputs=("x",), output="y", in_shapes=((6,),), out_shape=(8,), windows=table)


def model(kind: str, seed: int = 0) -> ModelProto:
    """A small classifier with windows of one kind."""
    n = Net(2, 8, 8, seed=seed)
    if kind == "maxout":
        n = Net(6, seed=seed)
        y = n.node("Max", [n.gemm("x", 6, 9), n.gemm("x", 6, 9), n.gemm("x", 6, 9)])
        y = n.node("Min", [n.gemm(y, 9, 5), n.gemm(y, 9, 5)])
        return n.model(n.gemm(y, 5, 3), 3)
    h = n.node("Relu", [n.filters("x", 2, 3, 3)])
    if kind == "pool":
        h = n.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
        h = n.node("Relu", [n.filters(h, 3, 4, 2)])
        return n.model(n.gemm(n.node("Flatten", [n.node("MaxPool", [h], kernel_shape=[2, 2])]), 4, 3), 3)
    if kind == "reduce":
        h = n.node("ReduceMax", [h], axes=[2], keepdims=0)
        return n.model(n.gemm(n.node("Flatten", [n.node("ReduceMin", [h], axes=[1], keepdims=1)]), 6, 3), 3)
    h = n.node("Flatten", [n.node("GlobalMaxPool", [h])])
    return n.model(n.gemm(h, 3, 3), 3)


KINDS = ("pool", "maxout", "reduce", "global")


def question(kind: str, seed: int = 0) -> Query:
    """A question that an attack can answer: another class is made likely at the anchor."""
    for k in range(20):
        file = load_model(model(kind, seed + k))
        query = make_query(file, np.random.default_rng(k).random(file.input_shape))
        found = np.random.default_rng(1).random((400, *file.input_shape))
        if len(np.unique(query.logits(found.astype(np.float32)).argmax(axis=1))) > 1:
            return query
    raise AssertionError("no random network has two classes")


def options(method: str, layout: str | None, **more: Any) -> PruneOptions:
    select = SelectOptions(gamma=more.pop("gamma", 0.8), bounds="ibp", rank=more.pop("rank", "influence"))
    return PruneOptions(method, select, layout, more.pop("eps", None), FAST, **more)


@SEEDS
def test_the_error_of_a_line_is_the_smallest_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    op = table_of(rng)
    x = rng.normal(size=(2, 6))
    low, high = x.min(axis=0) - rng.random(6), x.max(axis=0) + rng.random(6) * (rng.random(6) < 0.6)
    for method in ("con", "act", "lin"):
        line = window_line(op, method, x)
        least, most = line_error(op, low, high, line)
        # corners have the largest error; the smallest lies where elements meet: a linear program knows
        corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
        grid = np.concatenate([corners, rng.uniform(low, high, (2000, 6))])
        t = torch.as_tensor(grid)
        error = (op.forward(t) - line.forward(t)).numpy()
        assert (error >= least - 1e-9).all()
        assert (error <= most + 1e-9).all()
        np.testing.assert_allclose(error.max(axis=0), most, atol=1e-9)
        for w, row in enumerate(op.table):
            cost = np.zeros(7)
            cost[6] = 1
            cost[line.first[w]] -= line.weight[w]
            cost[line.second[w]] -= line.other[w]
            elements = row[row >= 0]
            rows = np.eye(7)[elements] - np.eye(7)[6]
            found = linprog(cost, rows, np.zeros(len(rows)), bounds=[*zip(low, high, strict=True), (None, None)])
            assert found.fun - line.shift[w] == pytest.approx(least[w], abs=1e-7)
        # exact where the text says so
        at = (op.forward(torch.as_tensor(x)) - line.forward(torch.as_tensor(x))).numpy()
        np.testing.assert_allclose(at[: 2 if method == "lin" else 1], 0, atol=1e-12)


def test_an_infinite_end_gives_an_infinite_error_or_none() -> None:
    op = table_of(np.random.default_rng(0))
    line = window_line(op, "con", np.zeros((1, 6)))
    least, most = line_error(op, np.full(6, -1.0), np.full(6, np.inf), line)
    np.testing.assert_array_equal(most, np.inf)
    np.testing.assert_array_equal(least, -1.0)


@SEEDS
def test_narrowed_windows_are_the_same_on_the_box(seed: int) -> None:
    rng = np.random.default_rng(seed)
    op = table_of(rng)
    low = rng.normal(size=6)
    high = low + rng.random(6)
    few = narrowed(op, (torch.as_tensor(low), torch.as_tensor(high)))
    points = torch.as_tensor(rng.uniform(low, high, (300, 6)))
    np.testing.assert_allclose(few.forward(points).numpy(), op.forward(points).numpy(), atol=0)
    assert relus_needed(few) <= relus_needed(op)


@pytest.mark.parametrize("kind", KINDS)
def test_relus_in_place_of_windows(kind: str) -> None:
    network = lower(load_model(model(kind)))
    x = torch.as_tensor(np.random.default_rng(0).random((50, *network.input_shape)))
    plain = without_windows(network)
    assert network.windows > 0
    assert plain.windows == 0
    np.testing.assert_allclose(plain.forward(x).numpy(), network.forward(x).numpy(), atol=1e-12)
    low, high = (x[0] - 0.05).numpy(), (x[0] + 0.05).numpy()
    bounds = compute_bounds(network, low, high, "crown")
    inside = x[0] + 0.1 * (torch.as_tensor(np.random.default_rng(1).random((50, *network.input_shape))) - 0.5)
    for g in (stabilise(network, bounds), fold(network, bounds), fold(network), without_windows(stabilise(network, bounds))):
        np.testing.assert_allclose(g.forward(inside).numpy(), network.forward(inside).numpy(), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["inplace", "compact", "chain"])
@pytest.mark.parametrize("method", ["con", "act", "lin"])
def test_what_a_substitute_preserves(kind: str, method: str, layout: str) -> None:
    query = question(kind)
    gamma = 0.99 if kind == "global" else 0.8  # three windows only, which matter most
    result = prune(query, options(method, layout, gamma=gamma))
    total = query.network.units + query.network.windows
    kept = result.substitute.selection.kept_per_layer
    assert result.units_total == total
    assert sum(kept) == total - round(gamma * total)
    assert len(kept) == len(query.network.prunable)
    limit = 1e-4 * (1 + np.abs(query.logits(query.x0[None])).max())
    assert result.preserves["x0"] <= limit
    if method == "lin":
        assert result.preserves["x_adv"] <= limit
    keys = result.to_json()
    assert keys["windows_total"] == query.network.windows
    assert 0 < keys["windows_pruned"] <= keys["units_pruned"]
    _same_function(query, result)


def _same_function(query: Query, result: PruneResult) -> None:
    """The file read back is the substitute: everywhere, or where it says."""
    file = lower(load_model(result.proto))
    g = result.substitute.network
    rng = np.random.default_rng(3)
    ball = query.space.ball(query.x0, result.substitute.eps)
    points = rng.uniform(*ball, (200, *query.x0.shape))
    if result.exact_on != "ball":
        points = np.concatenate([points, rng.random((200, *query.x0.shape))])
    x = torch.as_tensor(points)
    expected = g.forward(x).detach().numpy()
    np.testing.assert_allclose(file.forward(x.reshape(len(x), *file.input_shape)).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("rank", ["width", "influence"])
def test_windows_and_units_are_ranked_together(rank: str) -> None:
    query = question("pool")
    kept = prune(query, options("lin", "compact", gamma=0.5, rank=rank)).substitute.selection.kept
    assert {op.output for op in query.network.prunable} == set(kept)
    assert all(kept[op.output].shape == op.out_shape for op in query.network.prunable)


@pytest.mark.parametrize("where", ["domain", "ball", "auto"])
def test_where_a_chain_is_exact(where: str) -> None:
    query = question("pool")
    result = prune(query, options("lin", "chain", exact_on=where))
    assert result.exact_on == where or where == "auto"
    assert (result.exact_on == "ball") == any("on the ball" in note for note in result.notes)
    _same_function(query, result)


def some_kept(network: Network, rng: np.random.Generator, share: float) -> dict[str, np.ndarray[Any, Any]]:
    return {op.output: rng.random(op.out_shape) < share for op in network.prunable}


@pytest.mark.parametrize("kind", KINDS)
@SEEDS
def test_what_bounds_prove_with_lines_of_windows(kind: str, seed: int) -> None:
    network = lower(load_model(model(kind, seed)))
    rng = np.random.default_rng(seed)
    x0 = rng.random(network.input_shape)
    x1 = np.clip(x0 + rng.normal(size=x0.shape) / 20, 0, 1)
    g = substitute(network, lines(network, "lin", x0, x1), some_kept(network, rng, 0.4))
    box = np.clip(x0 - 0.05, 0, 1), np.clip(x0 + 0.05, 0, 1)
    with torch.no_grad():
        label = int(network.forward(torch.as_tensor(x0[None])).argmax())
        points = torch.as_tensor(rng.uniform(*box, (300, *x0.shape)))
        least = (network.forward(points).numpy() @ margin_rows(network.classes, label).T).min()
        own = g.forward(points).numpy() @ margin_rows(network.classes, label).T
    assert worst_margin_bound(network, box, label, substitute=g) <= least + 1e-9
    bounds = compute_bounds(g, *box, "crown")
    low, high = margin_bounds(g, bounds, margin_rows(network.classes, label))
    assert (own >= low.numpy() - 1e-9).all()
    assert (own <= high.numpy() + 1e-9).all()
    tiny = np.clip(x0 - 1e-7, 0, 1), np.clip(x0 + 1e-7, 0, 1)
    stable = compute_bounds(network, *tiny, "crown", only_unstable=True)
    same = stabilise(network, stable)
    if not any(op.kept.any() for op in same.prunable if hasattr(op, "kept")):
        assert keeps_its_pieces(network, same, tiny, anchor=x0)
    far = {name: np.zeros_like(mask) for name, mask in some_kept(network, rng, 0.0).items()}
    assert not keeps_its_pieces(network, substitute(network, lines(network, "con", x0), far), box, anchor=x0)
