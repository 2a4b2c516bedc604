"""Layout `chain`: only Flatten, Gemm and Relu in turn, exact on the domain, and as small as it can be."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from onnxsub.budget import Budget
from onnxsub.errors import InputError, ModelError, UnsupportedOperatorError
from onnxsub.layouts import LAYOUTS, LayoutContext, folded
from onnxsub.layouts import chain as layout
from onnxsub.layouts.chain import chain, chain_network
from onnxsub.layouts.chain_cover import carry, cover
from onnxsub.layouts.chain_relus import with_relus_only
from onnxsub.layouts.chain_rows import relu_rows_on
from onnxsub.layouts.chain_stages import stages
from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Nonlinear
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.fold import fold
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import METHODS, Lines, lines, substitute
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from tests.handmade import Net, run
from tests.random_dags import random_dag
from tests.random_models import PIECEWISE, random_model

SPACE = InputSpace()


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these gain nothing from a second thread, and lose much beside a busy process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def context(network: Network, space: InputSpace = SPACE, *, flat_input: bool = False, seed: int = 0) -> LayoutContext:
    rng = np.random.default_rng(seed)
    x0, x_adv = rng.uniform(space.lower, space.upper, (2, *network.input_shape))
    return LayoutContext.of(space, x0, 0.1, x_adv, flat_input=flat_input, exact_on="domain")


def pruned(network: Network, method: str, share: float, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    kept = {a.output: rng.random(a.out_shape) < share for a in network.activations}
    x0 = rng.random(network.input_shape)
    x_adv = np.clip(x0 + rng.choice([-0.1, 0.1], x0.shape), 0, 1)
    return substitute(network, lines(network, method, x0, x_adv), kept)


def widths(proto: ModelProto) -> list[int]:
    """Width of the input and of every Gemm's output."""
    weights = [numpy_helper.to_array(w) for w in proto.graph.initializer if len(w.dims) == 2]
    return [weights[0].shape[1], *(w.shape[0] for w in weights)]


def anywhere(shape: tuple[int, ...], seed: int, count: int = 40) -> np.ndarray:
    """Points of [0, 1]: half of them corners."""
    x = np.random.default_rng(seed).random((count, *shape))
    x[: count // 2] = x[: count // 2].round()
    return x


def check_form(proto: ModelProto, *, flat_input: bool = False) -> None:
    """What every reader is promised."""
    kinds = [node.op_type for node in proto.graph.node]
    if not flat_input:
        assert kinds.pop(0) == "Flatten"
    assert len(kinds) >= 3
    assert kinds == ["Gemm" if i % 2 == 0 else "Relu" for i in range(len(kinds))]
    assert kinds[-1] == "Gemm"
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 13)]
    assert proto.ir_version == 8
    weights = {w.name: w.dims for w in proto.graph.initializer}
    for node, after in itertools.pairwise(proto.graph.node):
        assert after.input[0] == node.output[0]
    for node in proto.graph.node:
        if node.op_type == "Gemm":
            assert {a.name: a.i for a in node.attribute} == {"transB": 1}
            assert list(weights[node.input[2]]) == [weights[node.input[1]][0]]
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 1


def one_by_one(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    return Runtime(load_model(proto)).logits(x.astype(np.float32)).astype(np.float64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_chain_equals_compact_on_the_domain(seed: int, method: str, share: float) -> None:
    model = load_model(random_model(seed, activations=PIECEWISE))
    network = lower(model)
    g = pruned(network, method, share, seed)
    proto = chain(model, g, context(network, seed=seed))
    check_form(proto)
    x = anywhere(network.input_shape, seed + 1)
    expected = run(compact(model, g), x.astype(np.float32))
    assert np.abs(one_by_one(proto, x) - expected).max() <= 1e-4 * (1 + np.abs(expected).max())
    assert proto.graph.input[0].name == model.input
    assert proto.graph.output[0].name == model.raw_output


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS), share=st.sampled_from([0.2, 1.0]), pairs=st.booleans())
def test_the_chain_is_exact_in_float64(seed: int, method: str, share: float, pairs: bool) -> None:
    network = lower(load_model(random_dag(seed, activations=PIECEWISE)))
    g = pruned(network, method, share, seed)
    low, high = np.zeros(network.input_shape), np.ones(network.input_shape)
    x = anywhere(network.input_shape, seed)
    # samples in a corner of the domain: nearly every form becomes a pair
    samples = 0.05 * anywhere(network.input_shape, seed).reshape(len(x), -1) if pairs else None
    values = x.reshape(len(x), -1)
    plan = stages(relu_rows_on(g, low, high), samples)
    for stage in plan[:-1]:
        values = np.maximum(values @ stage.weight.T + stage.bias, 0)
    values = values @ plan[-1].weight.T + plan[-1].bias
    expected = g.forward(torch.as_tensor(x)).numpy()
    assert np.abs(values - expected).max() <= 1e-8 * (1 + np.abs(expected).max())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_every_operator_is_written_with_relus_exactly(seed: int) -> None:
    network = lower(load_model(random_dag(seed, activations=PIECEWISE)))
    for g in (network, pruned(network, "lin", 0.5, seed)):
        relus = with_relus_only(g)
        for op in relus.ops:
            if isinstance(op, Nonlinear):
                assert isinstance(op.base if isinstance(op, Substituted) else op, Relu)
        x = torch.as_tensor(np.random.default_rng(seed).uniform(-2, 3, (20, *g.input_shape)))
        torch.testing.assert_close(relus.forward(x), g.forward(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"), [((2, 2), 2, 0), ((3, 3), 1, 1), ((3, 2), 2, 0), ((1, 1), 2, 0), ((1, 1), 1, 0), ((6, 6), 1, 0)]
)
def test_max_pooling_is_a_tree_of_relus(kernel: tuple[int, int], stride: int, pads: int) -> None:
    net = Net(2, 6, 6)
    pooled = net.node("MaxPool", ["x"], kernel_shape=kernel, strides=[stride] * 2, pads=[pads] * 4)
    out = [(6 + 2 * pads - k) // stride + 1 for k in kernel]
    y = net.gemm(net.node("Flatten", [pooled]), 2 * out[0] * out[1], 3)
    model = load_model(net.model(y, 3))
    network = lower(model)
    proto = chain(model, network, context(network))
    check_form(proto)
    x = anywhere((2, 6, 6), 5)
    np.testing.assert_allclose(one_by_one(proto, x), run(model.source, x.astype(np.float32)), rtol=1e-5, atol=1e-5)
    depth = max(1, int(np.ceil(np.log2(np.prod(kernel)))))
    assert sum(node.op_type == "Relu" for node in proto.graph.node) == depth


def test_one_relu_stands_where_no_unit_is_left() -> None:
    model = load_model(random_model(3, kind="dense", classes=3))
    network = lower(model)
    for method in METHODS:
        proto = chain(model, pruned(network, method, 0.0), context(network))
        check_form(proto)
        assert len(proto.graph.node) == 4
    # constant logits: one value travels, since a Gemm cannot have none
    assert widths(chain(model, pruned(network, "con", 0.0), context(network)))[1:] == [1, 3]


def test_units_that_are_stable_on_the_domain_have_no_relu_of_their_own() -> None:
    net = Net(4)
    w = np.abs(net.rng.normal(size=(6, 4))) + 0.1
    z = net.node("Gemm", ["x", net.weight(np.concatenate([w, -w])), net.weight(np.repeat([0.1, -0.1], 6))], transB=1)
    y = net.gemm(net.node("Relu", [z]), 12, 2)
    model = load_model(net.model(y, 2))
    proto = chain(model, lower(model), context(lower(model)))
    assert widths(proto) == [4, 2, 2]


def test_an_unpruned_chain_stays_as_it_is() -> None:
    net = Net(9)
    x, n = "x", 9
    for m in (8, 7):
        x, n = net.node("Relu", [net.gemm(x, n, m)]), m
    model = load_model(net.model(net.gemm(x, n, 3), 3))
    network = lower(model)
    w = widths(chain(model, network, context(network)))
    assert len(w) == 4
    # never wider than the network itself: a stable unit travels at the place that it had
    assert w[0] == 9
    assert w[1] <= 8
    assert w[2] <= 7


def test_carried_forms_are_those_that_later_rows_need() -> None:
    net = Net(30)
    h = net.node("Relu", [net.gemm("x", 30, 8)])
    model = load_model(net.model(net.gemm(net.node("Relu", [net.gemm(h, 8, 6)]), 6, 2), 2))
    network = lower(model)
    first, second = network.activations
    kept = {first.output: np.arange(8) < 2, second.output: np.arange(6) < 3}
    slope = {a.output: np.full(a.out_shape, 0.5) for a in network.activations}
    offset = {a.output: np.full(a.out_shape, 0.1) for a in network.activations}
    g = substitute(network, Lines("lin", slope, offset), kept)
    # 2 units and 3 + 2 forms, 3 units and 2 forms, 2 logits
    assert widths(chain(model, g, context(network))) == [30, 7, 5, 2]


def test_normalised_inputs_are_exact_on_the_domain_of_the_original_ones() -> None:
    model = load_model(random_model(11, activations=PIECEWISE, kind="conv"))
    network = lower(model)
    space = InputSpace(-1.0, 2.0, (0.4,), (0.25,))
    proto = chain(model, pruned(network, "lin", 0.4), context(network, space))
    x = space.normalise(3 * anywhere(network.input_shape, 1) - 1)
    expected = run(compact(model, pruned(network, "lin", 0.4)), x)
    assert np.abs(one_by_one(proto, x) - expected).max() <= 1e-4 * (1 + np.abs(expected).max())


def test_flat_input_has_no_flatten() -> None:
    model = load_model(random_model(5, kind="conv"))
    network = lower(model)
    g = pruned(network, "act", 0.5)
    proto = LAYOUTS["chain"](model, g, context(network, flat_input=True))
    check_form(proto, flat_input=True)
    x = anywhere(network.input_shape, 2)
    shaped = one_by_one(chain(model, g, context(network)), x)
    np.testing.assert_array_equal(one_by_one(proto, x.reshape(len(x), -1)), shaped)


def test_an_unbounded_domain_needs_a_box_and_the_file_says_so() -> None:
    model = load_model(random_model(6, kind="dense"))
    network = lower(model)
    g = pruned(network, "lin", 0.5)
    x0 = np.full(network.input_shape, 5.0)
    nowhere = (np.full(network.input_shape, -np.inf), np.full(network.input_shape, np.inf))
    with pytest.raises(InputError, match="the domain is unbounded or empty"):
        chain(model, g, LayoutContext(SPACE, x0[None], box=nowhere))
    proto = chain(model, g, LayoutContext(SPACE, x0[None], box=(x0 - 0.5, x0 + 0.5), valid_radius=0.5))
    assert {p.key: p.value for p in proto.metadata_props} == {"onnxsub.chain.valid_radius": "0.5"}
    x = x0 + np.random.default_rng(0).uniform(-0.5, 0.5, (30, *x0.shape))
    expected = run(compact(model, g), x.astype(np.float32))
    assert np.abs(one_by_one(proto, x) - expected).max() <= 1e-4 * (1 + np.abs(expected).max())


def test_smooth_units_are_refused_unless_all_are_pruned() -> None:
    model = load_model(random_model(2, activations=("Sigmoid", "Tanh"), kind="dense"))
    network = lower(model)
    with pytest.raises(UnsupportedOperatorError, match=r"no Relu can stand for; use --layout compact"):
        chain(model, pruned(network, "lin", 1.0), context(network))
    check_form(chain(model, pruned(network, "lin", 0.0), context(network)))


def test_a_chain_that_float32_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(random_model(2, kind="dense"))
    network = lower(model)
    monkeypatch.setattr(layout, "TOLERANCE", -1.0)
    message = r"float32 cannot hold layout chain, its logits are off by .* where .* is allowed; use --layout compact"
    with pytest.raises(ModelError, match=message):
        chain(model, pruned(network, "lin", 0.5), context(network))


def test_a_chain_that_float32_cannot_hold_on_the_domain_holds_on_the_ball_or_compact_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = load_model(random_model(2, kind="dense"))
    query = make_query(model, np.full(lower(model).input_shape, 0.5, dtype=np.float32))
    options = PruneOptions(method="act", eps=0.01, attack=AttackOptions(restarts=2, steps=5))
    true = layout._complaint

    def on_the_domain(reference: Runtime, runtime: Runtime, context: LayoutContext, *rest: object) -> str:
        return "too far" if context.valid_radius is None else true(reference, runtime, context, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(layout, "_complaint", on_the_domain)
    found = prune(query, options)
    assert (found.layout, found.exact_on) == ("chain", "ball")
    assert any("on the ball of radius" in note for note in found.notes)
    with pytest.raises(ModelError, match="cannot hold layout chain, too far"):
        prune(query, replace(options, exact_on="domain", layout="chain"))
    monkeypatch.setattr(layout, "_complaint", lambda *_: "too far")
    folds: list[int] = []

    def counted(network: Network, budget: Budget | None = None) -> Network:
        folds.append(1)
        return fold(network, budget=budget)

    monkeypatch.setattr(folded, "fold", counted)
    found = prune(query, options)
    assert len(folds) == 1  # for the chain and for compact
    gc.collect()
    assert not folded._FOUND  # nothing is kept
    assert (found.layout, found.exact_on) == ("compact", "everywhere")
    assert "float32 cannot hold layout chain, too far: layout compact was written" in found.notes
    assert max(found.preserves.values()) < 1e-5
    with pytest.raises(ModelError, match="cannot hold layout chain, too far; use --layout compact"):
        prune(query, replace(options, layout="chain"))


def test_wide_intervals_travel_as_pairs() -> None:
    """A deep network whose intervals are orders of magnitude wider than what is reached: one shift would cost the digits."""
    net = Net(20)
    x, n = "x", 20
    for _ in range(9):
        x, n = net.node("Relu", [net.gemm(x, n, 40)]), 40
    model = load_model(net.model(net.gemm(x, n, 3), 3))
    network = lower(model)
    g = pruned(network, "lin", 0.5)
    samples = np.random.default_rng(0).random((50, 20))
    rows = relu_rows_on(g, np.zeros(20), np.ones(20))
    single, paired = stages(rows), stages(rows, samples)
    biggest = [max(float(np.abs(s.bias).max()) for s in plan) for plan in (single, paired)]
    assert biggest[1] < 0.3 * biggest[0]
    check_form(chain(model, g, context(network)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_cover_is_a_smallest_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 6, 2)
    matrix = sp.csr_array((rng.random((m, n)) < rng.random()).astype(np.float64))
    rows, columns = cover(matrix)
    dense = matrix.toarray()
    assert not dense[~rows][:, ~columns].any()
    subsets = (set(c) for k in range(m + 1) for c in itertools.combinations(range(m), k))
    least = min(len(chosen) + int(dense[[i for i in range(m) if i not in chosen]].any(axis=0).sum()) for chosen in subsets)
    assert rows.sum() + columns.sum() == least


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), rank=st.integers(0, 5))
def test_what_is_carried_gives_all_forms(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    forms = rng.normal(size=(9, rank)) @ rng.normal(size=(rank, 12)) * (rng.random(12) < 0.8) * 10.0 ** rng.integers(-3, 4, (9, 1))
    plan = carry(sp.csr_array(forms))
    assert plan.count <= max(rank, 0)
    s = rng.normal(size=12)
    got = plan.direct @ s[plan.columns] + plan.mix @ (plan.rows @ s)
    assert np.abs(got - forms @ s).max() <= 1e-8 * (1 + np.abs(forms).max())


def test_the_options_say_what_goes_together() -> None:
    with pytest.raises(InputError, match="--flat-input is for --layout chain"):
        PruneOptions(layout="compact", flat_input=True)
    assert PruneOptions(layout="chain", flat_input=True).flat_input


REAL = {
    "wk17a": ("lin", 0.99),
    "salman_mnist_MLP_2_100_ADV": ("con", 0.9),
    "mnist2x10": ("act", 0.5),
    "kw_mnist_small": ("act", 0.9),
    "cifar_base_kw": ("lin", 0.9),
    "mnist_relu_3_50": ("lin", 0.9),
}


@pytest.mark.parametrize("name", REAL)
def test_real_networks(name: str, net_path: Callable[[str], Path], data_dir: Path) -> None:
    method, gamma = REAL[name]
    cifar = name.startswith("cifar")
    with np.load(data_dir / "data" / ("cifar10.npz" if cifar else "mnist.npz")) as archive:
        images = archive["x_test"][:40].astype(np.float32) / 255
    images = images.transpose(0, 3, 1, 2) if cifar else images[:, None]
    space = InputSpace(mean=(0.485, 0.456, 0.406), std=(0.225,) * 3) if cifar else SPACE
    model = load_model(net_path(name))
    query = make_query(model, images[0], space=space)
    quick = AttackOptions(steps=20, threads=1)
    result = prune(query, PruneOptions(method, SelectOptions(gamma=gamma), "chain", attack=quick))
    check_form(result.proto)
    g = substitute(lower(model), result.substitute.lines, result.substitute.selection.kept)
    points = np.concatenate([images, anywhere(query.x0.shape, 9, 20)])
    x = space.normalise(points)
    expected = Runtime(load_model(compact(model, g))).logits(x).astype(np.float64)
    assert np.abs(one_by_one(result.proto, x) - expected).max() <= 1e-4 * (1 + np.abs(expected).max())
    assert result.preserves["x0"] <= 1e-4 * (1 + np.abs(query.logits(query.x0[None])).max())
    if (name, gamma) == ("wk17a", 0.99):
        assert len(widths(result.proto)) <= 5
        assert sum(widths(result.proto)[1:]) <= 48 + 3 * 10 + 48


def test_chain_network_is_a_network_like_any_other() -> None:
    network = lower(load_model(random_model(8, kind="residual")))
    g = pruned(network, "act", 0.3)
    low, high = np.zeros(network.input_shape), np.ones(network.input_shape)
    found = chain_network(g, low, high)
    x = torch.as_tensor(anywhere(network.input_shape, 3))
    torch.testing.assert_close(found.forward(x), g.forward(x), rtol=1e-9, atol=1e-9)
    assert chain_network(g, low, high, flat_input=True).input_shape == (network.input_size,)
