"""The three invariants of the substitutes, folding, and both layouts against a NumPy model of the definition."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.errors import InputError
from onnxsub.layouts.compact import compact
from onnxsub.layouts.inplace import inplace
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Operator
from onnxsub.passes.fold import fold, stabilise
from onnxsub.passes.substitute import METHODS, lines, substitute
from onnxsub.propagate import compute_bounds
from tests.random_models import ACTIVATIONS, PIECEWISE, random_model

LAYOUTS = {"inplace": inplace, "compact": compact}


def run(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[0], dtype=np.float64)


def random_kept(network: Network, seed: int, share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {a.output: rng.random(a.out_shape) < share for a in network.activations}


def by_definition(
    network: Network, kept: dict[str, np.ndarray], method: str, x0: np.ndarray, x_adv: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """The substitute, unit by unit in NumPy: only the affine operators are the network's own."""
    z0 = {
        op.output: z[0].numpy()
        for op, z in zip(network.activations, network.preactivations(torch.as_tensor(x0[None])), strict=True)
    }
    za = {
        op.output: z[0].numpy()
        for op, z in zip(network.activations, network.preactivations(torch.as_tensor(x_adv[None])), strict=True)
    }
    values = {network.input: torch.as_tensor(x)}
    for op in network.ops:
        inputs = [values[n] for n in op.inputs]
        y = op.forward(*inputs)
        if op.output in z0:
            s = partial(_value, op)
            a, b = z0[op.output], za[op.output]
            if method == "con":
                line = np.broadcast_to(s(a), inputs[0].shape)
            elif method == "lin":
                with np.errstate(divide="ignore", invalid="ignore"):
                    slope = np.where(np.abs(b - a) > 1e-9 * np.maximum(np.abs(a), np.abs(b)), (s(b) - s(a)) / (b - a), 0.0)
                line = s(a) + slope * (inputs[0].numpy() - a)
            else:
                h = 1e-7 * (1 + np.abs(a))
                slope = (s(a + h) - s(a - h)) / (2 * h)
                line = s(a) + slope * (inputs[0].numpy() - a)
            y = torch.where(torch.as_tensor(kept[op.output]), y, torch.as_tensor(line.copy()))
        values[op.output] = y
    return values[network.output].flatten(1).numpy()


def _value(op: Operator, z: np.ndarray) -> np.ndarray:
    return op.forward(torch.as_tensor(z[None]))[0].numpy()


def points(network: Network, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x0 = rng.random(network.input_shape).astype(np.float32).astype(np.float64)
    x_adv = np.clip(x0 + rng.choice([-0.1, 0.1], x0.shape), 0, 1).astype(np.float32).astype(np.float64)
    return x0, x_adv, rng.random((5, *x0.shape)).astype(np.float32).astype(np.float64)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS), share=st.sampled_from([0.0, 0.1, 0.5]))
def test_both_layouts_equal_the_definition_and_keep_the_invariants(seed: int, method: str, share: float) -> None:
    model = load_model(random_model(seed, activations=PIECEWISE if method == "act" else ACTIVATIONS))
    network = lower(model)
    x0, x_adv, xs = points(network, seed)
    if method == "act":  # at a kink itself, difference quotients know nothing of the piece that counts there
        for op, z in zip(network.activations, network.preactivations(torch.as_tensor(x0)[None]), strict=True):
            assume(not any(bool(((z - kink).abs() < 1e-6 * (1 + z.abs())).any()) for kink in op.kinks(z)))
    kept = random_kept(network, seed, share)
    g = substitute(network, lines(network, method, x0, x_adv), kept)
    everywhere = np.concatenate([x0[None], x_adv[None], xs])
    expected = by_definition(network, kept, method, x0, x_adv, everywhere)
    f = run(model.source, everywhere)
    limit = 1e-4 * (1 + np.abs(expected).max())
    for name, layout in LAYOUTS.items():
        got = run(layout(model, g), everywhere)
        assert np.abs(got - expected).max() <= limit, name
        assert np.abs(got[0] - f[0]).max() <= limit, f"{name}: g(x0) = f(x0)"
        if method == "lin":
            assert np.abs(got[1] - f[1]).max() <= limit, f"{name}: g(x_adv) = f(x_adv)"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.1]))
def test_act_equals_f_where_every_pruned_unit_is_stable(seed: int, eps: float) -> None:
    model = load_model(random_model(seed, activations=PIECEWISE))
    network = lower(model)
    x0, _, _ = points(network, seed)
    low, high = np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)
    bounds = compute_bounds(network, low, high, "crown")
    kept = {op.output: ~op.affine_on(*bounds.pre[op.output])[0].numpy() for op in network.activations}
    g = substitute(network, lines(network, "act", x0), kept)
    x = np.random.default_rng(seed).uniform(low, high, (50, *x0.shape)).astype(np.float32)
    f, got = run(model.source, x), run(compact(model, g), x)
    assert np.abs(f - got).max() <= 1e-4 * (1 + np.abs(f).max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.01, 0.1, 1.0]))
def test_folding_on_bounds_is_the_same_function_on_the_ball(seed: int, eps: float) -> None:
    network = lower(load_model(random_model(seed, activations=ACTIVATIONS)))
    x0, x_adv, _ = points(network, seed)
    low, high = np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)
    g = substitute(network, lines(network, "lin", x0, x_adv), random_kept(network, seed, 0.5))
    x = torch.as_tensor(np.random.default_rng(seed).uniform(low, high, (50, *x0.shape)))
    for original in (network, g):
        bounds = compute_bounds(original, low, high, "crown")
        folded = fold(original, bounds)
        torch.testing.assert_close(folded.forward(x), original.forward(x), rtol=1e-9, atol=1e-9)
        assert folded.units == sum(int((~op.affine_on(*bounds.pre[op.output])).sum()) for op in original.activations)
        torch.testing.assert_close(stabilise(original, bounds).forward(x), original.forward(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual"])
def test_folding_without_bounds_is_the_same_function_everywhere(kind: str) -> None:
    network = lower(load_model(random_model(4, activations=ACTIVATIONS, kind=kind)))
    x0, x_adv, _ = points(network, 4)
    g = substitute(network, lines(network, "lin", x0, x_adv), random_kept(network, 4, 0.3))
    x = torch.as_tensor(np.random.default_rng(0).uniform(-2, 3, (50, *x0.shape)))
    torch.testing.assert_close(fold(g).forward(x), g.forward(x), rtol=1e-9, atol=1e-9)


def test_act_on_a_smooth_activation_is_refused() -> None:
    network = lower(load_model(random_model(1, activations=("Tanh",), kind="dense")))
    with pytest.raises(InputError, match=r"--method act needs piecewise-linear units; Tanh .* is not: use lin or con"):
        lines(network, "act", points(network, 1)[0])


def test_lin_without_an_adversarial_point_is_refused() -> None:
    network = lower(load_model(random_model(1, kind="dense")))
    with pytest.raises(InputError, match="lin needs an adversarial point"):
        lines(network, "lin", points(network, 1)[0])


def test_coinciding_preactivations_become_the_constant() -> None:
    network = lower(load_model(random_model(1, kind="dense")))
    x0 = points(network, 1)[0]
    chosen = lines(network, "lin", x0, x0)
    constant = lines(network, "con", x0)
    for name in chosen.slope:
        assert not chosen.slope[name].any()
        np.testing.assert_array_equal(chosen.offset[name], constant.offset[name])


def test_inplace_keeps_names_shapes_and_a_dynamic_batch() -> None:
    model = load_model(random_model(7, kind="residual"))
    network = lower(model)
    x0, x_adv, xs = points(network, 7)
    for method in METHODS:
        g = substitute(network, lines(network, method, x0, x_adv), random_kept(network, 7, 0.0))
        for layout in LAYOUTS.values():
            proto = layout(model, g)
            assert proto.graph.input[0] == model.source.graph.input[0]
            assert proto.graph.output[0].name == model.source.graph.output[0].name
            one = np.concatenate([run(proto, x[None]) for x in xs])
            np.testing.assert_allclose(run(proto, xs), one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ThresholdedRelu", "Relu", "LeakyRelu", "Elu", "HardSwish", "HardSigmoid", "Sign", "Abs"])
def test_stable_units_without_an_end(kind: str) -> None:
    """What a unit is beyond 7, below -7, or at 7 is known also where its interval has one end only."""
    make = helper.make_node
    nodes = [make("Gemm", ["x", "W"], ["z"]), make(kind, ["z"], ["s"]), make("Gemm", ["s", "V"], ["y"])]
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(3, 3)).astype(np.float32), name) for name in "WV"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    network = lower(load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)))
    (op,) = network.activations
    l, u = torch.tensor([[7.0, -np.inf, 7.0]]).double(), torch.tensor([[np.inf, -7.0, 7.0]]).double()
    found = compute_bounds(network, np.zeros(3), np.ones(3), "ibp")
    same = stabilise(network, replace(found, pre={op.output: (l, u)}))
    (part,) = same.activations
    z = torch.tensor([[7.0, -7.0, 7.0], [9.0, -1e3, 7.0]]).double()
    expected = op.forward(z)
    smooth = ~op.affine_on(l, u)
    assert bool((smooth == torch.tensor([[False, kind == "Elu", False]])).all())
    torch.testing.assert_close(part.forward(z), expected, rtol=1e-12, atol=1e-12)
