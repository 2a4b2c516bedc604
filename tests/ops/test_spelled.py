"""Functions that files spell out: each spelling is read as its function and computes it; what only looks like one is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.layouts.inplace import inplace
from onnxsub.lower import lower, lower_nodes
from onnxsub.model import load_model
from onnxsub.ops.base import Activation
from onnxsub.ops.either import Either
from onnxsub.ops.functions import Gelu, HardSwish, Mish, Softplus, Swish
from onnxsub.ops.spelled import recognised
from onnxsub.ops.substituted import Substituted
from tests.ops.tools import nodes_of, run

SHAPE = (3, 5)


class Graph:
    """A graph of one input `x`, built node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str | float, **attributes: object) -> str:
        names = [self.number(i) if isinstance(i, float) else i for i in inputs]
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], name=f"n{len(self.nodes)}", **attributes))
        return output

    def number(self, value: float) -> str:
        return self.tensor(f"c{len(self.weights)}", np.array(value, np.float32))

    def tensor(self, name: str, values: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def integers(self, *values: int) -> str:
        return self.tensor(f"c{len(self.weights)}", np.array(values, np.int64))

    def model(self, output: str, opset: int = 18, last: str = "Identity") -> onnx.ModelProto:
        self.nodes.append(helper.make_node(last, [output], ["y"], name="last"))
        shapes = {"x": SHAPE, "y": (math.prod(SHAPE),) if last == "Flatten" else SHAPE}
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, *s]) for n, s in shapes.items()]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def gelu_torch(g: Graph) -> str:
    """As the exporter of torch writes it."""
    share = g("Add", g("Erf", g("Div", "x", math.sqrt(2))), 1.0)
    return g("Mul", g("Mul", "x", share), 0.5)


def gelu_keras(g: Graph) -> str:
    share = g("Add", 1.0, g("Erf", g("Mul", "x", math.sqrt(0.5))))
    return g("Mul", share, g("Mul", 0.5, "x"))


def gelu_halved_share(g: Graph) -> str:
    share = g("Mul", g("Add", g("Erf", g("Div", "x", 1.4142135)), 1.0), 0.5)
    return g("Mul", "x", share)


def gelu_divided(g: Graph) -> str:
    return g("Div", g("Mul", "x", g("Sub", g("Erf", g("Mul", "x", 0.70710678)), -1.0)), 2.0)


def gelu_sum(g: Graph) -> str:
    """`x erf + x`, halved."""
    return g("Mul", g("Add", g("Mul", "x", g("Erf", g("Mul", "x", 0.70710678))), "x"), 0.5)


def tanh_pow(g: Graph) -> str:
    inner = g("Add", "x", g("Mul", g("Pow", "x", 3.0), 0.044715))
    share = g("Add", g("Tanh", g("Mul", inner, 0.7978845608)), 1.0)
    return g("Mul", g("Mul", "x", 0.5), share)


def tanh_product(g: Graph) -> str:
    cube = g("Mul", g("Mul", "x", "x"), "x")
    inner = g("Mul", g("Add", g("Mul", cube, 0.044715), "x"), math.sqrt(2 / math.pi))
    return g("Mul", g("Mul", g("Add", 1.0, g("Tanh", inner)), "x"), 0.5)


def tanh_logistic(g: Graph) -> str:
    inner = g("Mul", "x", g("Add", g("Mul", g("Mul", "x", "x"), 0.0713548163), 1.5957691216))
    return g("Mul", "x", g("Sigmoid", inner))


def silu(g: Graph) -> str:
    return g("Mul", "x", g("Sigmoid", "x"))


def quick_gelu(g: Graph) -> str:
    return g("Mul", g("Sigmoid", g("Mul", "x", 1.702)), "x")


def silu_tanh(g: Graph) -> str:
    return g("Mul", "x", g("Mul", g("Add", g("Tanh", g("Mul", "x", 0.5)), 1.0), 0.5))


def hard_swish_sigmoid(g: Graph) -> str:
    return g("Mul", "x", g("HardSigmoid", "x", alpha=1 / 6, beta=0.5))


def hard_swish_relu6(g: Graph) -> str:
    clipped = g("Clip", g("Add", "x", 3.0), 0.0, 6.0)
    return g("Mul", "x", g("Div", clipped, 6.0))


def hard_swish_late(g: Graph) -> str:
    return g("Div", g("Mul", "x", g("Clip", g("Add", "x", 3.0), 0.0, 6.0)), 6.0)


def mish(g: Graph) -> str:
    return g("Mul", "x", g("Tanh", g("Softplus", "x")))


def hard_sigmoid(g: Graph) -> str:
    return g("HardSigmoid", "x", alpha=0.3)


def elu(g: Graph) -> str:
    return g("Elu", "x", alpha=1.5)


NATIVE = (hard_sigmoid, elu)
GELU = (gelu_torch, gelu_keras, gelu_halved_share, gelu_divided, gelu_sum, tanh_pow, tanh_product, tanh_logistic)
def softplus_torch(g: Graph) -> str:
    """As the exporter of torch writes it: x itself beyond the threshold 20."""
    return g("Where", g("Greater", "x", 20.0), "x", g("Softplus", "x"))


def softplus_beta(g: Graph) -> str:
    scaled = g("Mul", "x", 2.0)
    return g("Where", g("Greater", scaled, 20.0), "x", g("Div", g("Softplus", scaled), 2.0))


SPELLINGS: list[tuple[Callable[[Graph], str], type[Activation]]] = [
    *((f, Gelu) for f in GELU),
    *((f, Swish) for f in (silu, quick_gelu, silu_tanh)),
    *((f, HardSwish) for f in (hard_swish_sigmoid, hard_swish_relu6, hard_swish_late)),
    (mish, Mish),
    (softplus_torch, Softplus), (softplus_beta, Softplus),
]


@pytest.mark.parametrize(("spell", "kind"), SPELLINGS, ids=[f.__name__ for f, _ in SPELLINGS])
def test_a_spelling_is_its_function(spell: Callable[[Graph], str], kind: type[Activation]) -> None:
    g = Graph()
    model = g.model(spell(g))
    network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
    (op,) = network.activations
    assert type(op) is kind
    assert op.inputs == ("x",)
    if isinstance(op, Gelu):
        assert op.tanh == spell.__name__.startswith("tanh")
    for scale in (0.1, 3.0, 30.0):
        x = (np.random.default_rng(0).normal(size=(1, *SHAPE)) * scale).astype(np.float32)
        (want,) = run(model, {"x": x})
        found = network.values(torch.from_numpy(x.astype(np.float64)))["y"].numpy()
        np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6 * scale)


def swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The factors and terms of every node in the other order."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for node in found.graph.node:
        if node.op_type in ("Mul", "Add"):
            node.input[:] = list(node.input)[::-1]
    return found


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("spell", [*(f for f, _ in SPELLINGS), *NATIVE], ids=lambda f: f.__name__)
def test_a_substitute_in_place(spell: Callable[[Graph], str], turned: bool) -> None:
    """Some units are replaced by lines of the function's own input, which the last node of a spelling need not read."""
    g = Graph()
    proto = g.model(spell(g), last="Flatten")
    model = load_model(swapped(proto) if turned else proto)
    network = lower(model)
    (op,) = network.activations
    rng = np.random.default_rng(3)
    kept = rng.random(SHAPE) < 0.5
    given = Substituted.of(op, kept, rng.normal(size=SHAPE), rng.normal(size=SHAPE))
    g_network = network.replace({op.output: given})
    file = inplace(model, g_network)
    x = rng.normal(size=(1, *SHAPE)).astype(np.float32) * 3
    (found,) = run(file, {"x": x})
    want = g_network.forward(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def other_tensor(g: Graph) -> str:
    return g("Mul", g("Neg", g("Relu", "x")), g("Sigmoid", "x"))


def cancelled(g: Graph) -> str:
    """x and -x leave a number, by which a Swish is multiplied."""
    one = g("Sub", g("Add", "x", 1.0), "x")
    return g("Mul", g("Mul", one, 2.0), g("Mul", "x", g("Sigmoid", "x")))


def cancelled_inside(g: Graph) -> str:
    return g("Mul", "x", g("Sigmoid", g("Mul", "x", g("Mul", g("Sub", g("Add", "x", 1.0), "x"), 1.702))))


def cancelled_sign(g: Graph) -> str:
    return g("Mul", g("Neg", g("Sub", g("Add", "x", 1.0), "x")), g("Mul", "x", g("Sigmoid", "x")))


def nothing_left(g: Graph) -> str:
    return g("Mul", g("Add", g("Mul", g("Mul", "x", 0.0), g("Sigmoid", "x")), "x"), 1.0)


def nearly_one(g: Graph) -> str:
    return g("Mul", "x", g("Mul", g("Sigmoid", "x"), 1.0000009))


def wrong_root(g: Graph) -> str:
    return g("Mul", g("Mul", "x", g("Add", g("Erf", g("Div", "x", 1.42)), 1.0)), 0.5)


def wrong_half(g: Graph) -> str:
    return g("Mul", g("Mul", "x", g("Add", g("Erf", g("Div", "x", math.sqrt(2))), 1.0)), 0.51)


def wrong_shift(g: Graph) -> str:
    return g("Mul", g("Add", "x", 0.1), g("Sigmoid", "x"))


def negative(g: Graph) -> str:
    return g("Mul", "x", g("Sigmoid", g("Neg", "x")))


def twice(g: Graph) -> str:
    return g("Mul", g("Sigmoid", "x"), g("Sigmoid", "x"))


def wrong_cubic(g: Graph) -> str:
    inner = g("Add", "x", g("Mul", g("Pow", "x", 3.0), 0.0448))
    return g("Mul", g("Mul", "x", 0.5), g("Add", g("Tanh", g("Mul", inner, 0.7978845608)), 1.0))


def wrong_clip(g: Graph) -> str:
    return g("Mul", "x", g("Div", g("Clip", g("Add", "x", 3.0), 0.0, 5.0), 6.0))


def early_threshold(g: Graph) -> str:
    """At 2 a Softplus is not yet x."""
    return g("Where", g("Greater", "x", 2.0), "x", g("Softplus", "x"))


def other_scale(g: Graph) -> str:
    return g("Where", g("Greater", "x", 20.0), "x", g("Div", g("Softplus", g("Mul", "x", 2.0)), 2.0))


def below_threshold(g: Graph) -> str:
    return g("Where", g("Less", "x", 20.0), "x", g("Softplus", "x"))


@pytest.mark.parametrize("spell", [early_threshold, other_scale, below_threshold], ids=lambda f: f.__name__)
def test_what_only_looks_like_a_softplus_stays_a_where(spell: Callable[[Graph], str]) -> None:
    g = Graph()
    model = g.model(spell(g))
    network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
    assert [op.op_type for op in network.ops if isinstance(op, Either)] == ["Where"]
    x = (np.random.default_rng(2).normal(size=(1, *SHAPE)) * 20).astype(np.float32)
    (want,) = run(model, {"x": x})
    got = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-5, atol=1e-5)


def test_a_softplus_gives_way_to_x_where_x_itself_is_tested() -> None:
    """In float32 this test is true from x = 2 on, where a Softplus is not yet x."""
    g = Graph()
    asked = g("Sub", g("Sub", g("Add", g("Add", "x", 30.0), 1e9), 1e9), 30.0)
    model = g.model(g("Where", g("Greater", asked, 20.0), "x", g("Softplus", "x")))
    network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
    assert [op.op_type for op in network.ops if isinstance(op, Either)] == ["Where"]
    (found,) = run(model, {"x": np.full((1, *SHAPE), 3.0, np.float32)})
    assert (found == 3.0).all()


def two_constants(g: Graph) -> str:
    """The second factor is multiplied by five numbers, not by one."""
    g.weights.append(numpy_helper.from_array(np.linspace(0.5, 1.5, 5, dtype=np.float32), "row"))
    return g("Mul", "x", g("Sigmoid", g("Mul", "x", "row")))


NEAR = [
    cancelled, cancelled_inside, cancelled_sign, nothing_left, nearly_one, other_tensor, wrong_root, wrong_half, wrong_shift,
    negative, twice, wrong_cubic, wrong_clip, two_constants,
]  # fmt: skip


@pytest.mark.parametrize("spell", NEAR, ids=lambda f: f.__name__)
def test_what_only_looks_like_one_stays_a_product(spell: Callable[[Graph], str]) -> None:
    g = Graph()
    model = g.model(spell(g))
    network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
    if spell not in (cancelled, cancelled_sign):  # these contain a true one on the way
        assert not [op for op in network.ops if isinstance(op, Gelu | Swish | HardSwish | Mish)]
    x = np.random.default_rng(2).normal(size=(1, *SHAPE)).astype(np.float32) * 2
    (want,) = run(model, {"x": x})
    got = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-5, atol=1e-5)


def test_a_part_that_somebody_else_reads_stays() -> None:
    g = Graph()
    share = g("Sigmoid", "x")
    model = g.model(g("Add", g("Mul", "x", share), share))
    network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
    assert sorted(type(op).__name__ for op in network.activations) == ["Sigmoid", "Swish"]
    x = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32)
    (want,) = run(model, {"x": x})
    np.testing.assert_allclose(network.values(torch.from_numpy(x).double())["y"].numpy(), want, rtol=1e-5, atol=1e-6)


def test_behind_an_operator_of_unknown_shape_nothing_is_looked_for() -> None:
    nodes = nodes_of(Graph().model("x"))
    mul = helper.make_node("Mul", ["a", "half"], ["y"], name="m")
    (known,) = nodes
    node = type(known)("Mul", "m", 18, {}, tuple(mul.input), ("y",), {"half": np.array(0.5, np.float32)}, {"half": ()})
    assert recognised((node,)) == (node,)
