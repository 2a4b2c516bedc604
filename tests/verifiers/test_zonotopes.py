"""Intervals by zonotopes: they hold, they are as tight as they should be, and a search may use them or not."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import Reshape
from onnxsub.ops.relu import Relu
from onnxsub.ops.smooth import Sigmoid
from onnxsub.propagate import compute_bounds
from onnxsub.verifiers.bab.inputs.ways import Ways
from onnxsub.verifiers.bab.inputs.zonotopes import Zonotopes
from onnxsub.verifiers.bab.relu import kernels
from tests.verifiers.nets import random_dense

pytest.importorskip("numba", reason="numba is not installed: zonotopes are not computed")


@pytest.fixture(autouse=True)
def _from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PAYS", 0)


def joined(seed: int) -> Network:
    """Layers that read the inputs and earlier Relus too, as a folded network does."""
    rng = np.random.default_rng(seed)
    ops: list[Operator] = []
    name, width = "x", 3
    for i, m in enumerate((7, 6, 5)):
        weight = rng.normal(size=(m, width)) / np.sqrt(width)
        shapes = {"in_shapes": ((width,),), "out_shape": (m,)}
        named = {"op_type": "Gemm", "node": f"d{i}", "inputs": (name,), "output": f"z{i}"}
        ops.append(Dense(**named, weight=weight, bias=rng.normal(size=m), **shapes))
        ops.append(Relu(op_type="Relu", node=f"r{i}", inputs=(f"z{i}",), output=f"h{i}", in_shapes=((m,),), out_shape=(m,)))
        both = ("x", f"h{i}") if i % 2 else (f"h{i}", "x")
        in_shapes = tuple((3,) if b == "x" else (m,) for b in both)
        named = {"op_type": "Concat", "node": f"c{i}", "inputs": both, "output": f"j{i}"}
        ops.append(Concat(**named, in_shapes=in_shapes, out_shape=(m + 3,), axis=0, slots=(0, in_shapes[0][0])))
        name, width = f"j{i}", m + 3
    weight = rng.normal(size=(2, width))
    ops.append(Dense(op_type="Gemm", node="out", inputs=(name,), output="y", weight=weight, in_shapes=((width,),), out_shape=(2,)))
    return Network("x", (3,), "y", tuple(ops))


def boxes(seed: int, n: int, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    middle, half = rng.normal(size=(count, n)), 10.0 ** rng.uniform(-6, 0.5, size=(count, n))
    half[::4, 0] = 0.0  # an input that does not vary
    return torch.from_numpy(middle - half), torch.from_numpy(middle + half)


def seen(network: Network, zonotopes: Zonotopes, low: torch.Tensor, high: torch.Tensor, seed: int) -> dict[str, torch.Tensor]:
    """Pre-activations of corners and samples of boxes, `(S, B, m)` by name."""
    rng = np.random.default_rng(seed)
    shares = torch.from_numpy(np.concatenate([rng.random((60, *low.shape)), rng.integers(0, 2, (60, *low.shape)).astype(float)]))
    x = low + (high - low) * shares
    known = {network.input: x.reshape(-1, low.shape[1])}
    found = {}
    for op in network.ops:
        if op.output in zonotopes.names:
            found[op.output] = known[op.inputs[0]].reshape(len(shares), len(low), -1)
        known[op.output] = op.forward(*[known[n] for n in op.inputs])
    return found


@pytest.mark.parametrize("seed", range(30))
def test_no_value_lies_outside(seed: int) -> None:
    network = joined(seed) if seed % 2 else random_dense(seed, 4, 9, 8, 7, 3)
    zonotopes = Zonotopes.of(network)
    assert zonotopes is not None
    low, high = boxes(seed, network.input_shape[0])
    found = zonotopes.within(low, high, {})
    assert found is not None
    for name, values in seen(network, zonotopes, low, high, seed).items():
        l, u = found[name]
        assert (values >= l).all()
        assert (values <= u).all()
        assert (l.isfinite() & u.isfinite()).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_tensors_may_be_joined_along_any_axis(axis: int) -> None:
    rng = np.random.default_rng(axis)

    def layer(name: str, source: str, n: int, m: int) -> list[Operator]:
        shapes = {"in_shapes": ((n,),), "out_shape": (m,)}
        weight, bias = rng.normal(size=(m, n)) / np.sqrt(n), 0.3 * rng.normal(size=m)
        read = Dense(op_type="Gemm", node=name, inputs=(source,), output=f"{name}:z", weight=weight, bias=bias, **shapes)
        return [read, Relu(op_type="Relu", node=name, inputs=(f"{name}:z",), output=name, in_shapes=((m,),), out_shape=(m,))]

    def shaped(name: str, source: str, before: tuple[int, ...], after: tuple[int, ...]) -> Operator:
        return Reshape(op_type="Reshape", node=name, inputs=(source,), output=name, in_shapes=(before,), out_shape=after)

    ops: list[Operator] = [*layer("a", "x", 4, 6), shaped("a:2", "a", (6,), (2, 3))]
    ops += [*layer("b", "x", 4, 6), shaped("b:2", "b", (6,), (2, 3))]
    whole = (4, 3) if axis == 0 else (2, 6)
    ends = {"in_shapes": ((2, 3), (2, 3)), "out_shape": whole}
    slots = (0, whole[axis] // 2)
    ops.append(Concat(op_type="Concat", node="c", inputs=("a:2", "b:2"), output="c", axis=axis, slots=slots, **ends))
    ops += [shaped("c:1", "c", whole, (12,)), *layer("d", "c:1", 12, 8)]
    network = Network("x", (4,), "d", tuple(ops))
    zonotopes = Zonotopes.of(network)
    assert zonotopes is not None
    low, high = boxes(0, 4)
    found = zonotopes.within(low, high, {})
    assert found is not None
    for i in range(len(low)):
        points = low[i] + (high[i] - low[i]) * torch.from_numpy(rng.random((200, 4)))
        values = network.values(points)
        for op in network.nonlinear:
            lower, upper = (e[i] for e in found[op.output])
            assert bool((values[op.inputs[0]] >= lower - 1e-12).all())
            assert bool((values[op.inputs[0]] <= upper + 1e-12).all())


@pytest.mark.parametrize("seed", range(6))
def test_they_are_exact_where_no_unit_is_unstable_and_narrow_else(seed: int) -> None:
    network = random_dense(seed, 4, 9, 8, 7, 3)
    zonotopes = Zonotopes.of(network)
    assert zonotopes is not None
    low, high = boxes(seed, 4)
    found = zonotopes.within(low, high, {})
    assert found is not None
    plain = compute_bounds(network, low, high, "ibp").pre
    linear = compute_bounds(network, low, high, "fastlin").pre
    narrower = 0
    for name in zonotopes.names:
        (l, u), (pl, pu), (fl, fu) = found[name], plain[name], linear[name]
        # the lines of fastlin are those of a zonotope; it is intersected with nothing either
        assert torch.allclose(u - l, fu - fl, rtol=1e-6, atol=1e-8)
        narrower += int(((u - l) < 0.9 * (pu - pl)).sum())
    assert narrower > 20


def test_what_is_known_is_kept_and_used() -> None:
    network = random_dense(3, 4, 9, 8, 7, 3)
    zonotopes = Zonotopes.of(network)
    assert zonotopes is not None
    low, high = boxes(3, 4)
    known = compute_bounds(network, low, high, "crown").pre
    found = zonotopes.within(low, high, known)
    free = zonotopes.within(low, high, {})
    assert found is not None
    assert free is not None
    for name in zonotopes.names:
        assert (found[name][0] >= known[name][0]).all()
        assert (found[name][1] <= known[name][1]).all()
    last = zonotopes.names[-1]
    # unit by unit a narrower interval may lean a line so that a later one is wider
    assert float((found[last][1] - found[last][0]).mean()) < float((free[last][1] - free[last][0]).mean())
    assert not torch.equal(found[last][0], free[last][0])


@pytest.mark.parametrize("power", [-100, -40, 40, 100])
def test_scaled_layers(power: int) -> None:
    network = random_dense(5, 4, 9, 8, 3)
    scaled = []
    for op in network.ops:
        if isinstance(op, Dense) and op.node == "d0":
            scaled.append(replace(op, weight=op.weight * 2.0**power, bias=op.bias * 2.0**power))
        elif isinstance(op, Dense) and op.node == "d1":
            scaled.append(replace(op, weight=op.weight * 2.0**-power))
        else:
            scaled.append(op)
    other = Network("x", (4,), network.output, tuple(scaled))
    low, high = boxes(5, 4)
    a, b = Zonotopes.of(network), Zonotopes.of(other)
    assert a is not None
    assert b is not None
    first, second = a.within(low, high, {}), b.within(low, high, {})
    assert first is not None
    assert second is not None
    last = a.names[-1]
    for one, two in zip(first[last], second[last], strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [1e200, np.inf, np.nan])
def test_numbers_that_are_none_say_nothing(value: float) -> None:
    network = random_dense(7, 4, 9, 8, 3)
    zonotopes = Zonotopes.of(network)
    assert zonotopes is not None
    low, high = boxes(7, 4)
    low[1], high[1] = -value, value
    widths = dict(zip(zonotopes.names, (9, 8), strict=True))
    known = {name: (torch.full((12, m), -np.inf), torch.full((12, m), np.inf)) for name, m in widths.items()}
    known[zonotopes.names[0]][0][2] = np.nan
    found = zonotopes.within(low, high, {n: (l.double(), u.double()) for n, (l, u) in known.items()})
    assert found is not None
    values = seen(network, zonotopes, low, high, 7)
    for name in zonotopes.names:
        l, u = found[name]
        inside = (values[name] >= l) & (values[name] <= u)
        assert inside[:, [0, *range(3, 12)]].all()
        assert not (l[1] > u[1]).any()
    if not np.isfinite(value):
        assert not (found[zonotopes.names[0]][0][1].isfinite()).any()


def test_other_operators_have_none() -> None:
    network = random_dense(1, 4, 9, 3)
    shared = [{k: v for k, v in vars(op).items() if not k.startswith("_")} for op in network.ops]
    ops = [Sigmoid(**s) if isinstance(op, Relu) else op for op, s in zip(network.ops, shared, strict=True)]
    assert Zonotopes.of(Network("x", (4,), network.output, tuple(ops))) is None


def test_the_way_follows_what_it_brings() -> None:
    ways = Ways()
    for _ in range(20):
        ways.told(0, 90, 100)
        ways.told(1, 20, 100)
    assert [ways.next() for _ in range(8)].count(1) == 1
    for _ in range(20):
        ways.told(1, 80, 100)
    assert [ways.next() for _ in range(8)].count(0) == 1


def test_the_loops_are_compiled() -> None:
    module = importlib.import_module("onnxsub.verifiers.bab.inputs.compiled")
    assert hasattr(module.zonotopes, "py_func")
