"""What other verifiers read, and what they would get wrong."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.substitute import lines, substitute
from onnxsub.region import InputSpace
from onnxsub.verifiers.external.reader import READERS, check_readable
from tests.handmade import Net
from tests.random_models import PIECEWISE, random_model


def refused(proto: ModelProto, tool: str, match: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=match) as caught:
        check_readable(load_model(proto), tool)
    assert "--layout chain" in str(caught.value)
    assert "\n" not in str(caught.value)


def net(*shape: int) -> Net:
    return Net(*(shape or (4,)))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("tool", sorted(READERS))
def test_chains_are_for_all(tool: str, flat: bool) -> None:
    model = load_model(random_model(1, kind="conv", activations=PIECEWISE, classes=3))
    network = lower(model)
    rng = np.random.default_rng(0)
    x0 = rng.uniform(0.3, 0.7, network.input_shape).astype(np.float32)
    g = substitute(network, lines(network, "act", x0), {a.output: rng.random(a.out_shape) < 0.5 for a in network.activations})
    check_readable(load_model(LAYOUTS["chain"](model, g, LayoutContext.of(InputSpace(), x0, 0.1, flat_input=flat))), tool)


def test_an_unknown_tool_is_given_everything() -> None:
    n = net()
    check_readable(load_model(n.model(n.gemm(n.node("Abs", ["x"]), 4, 3), 3)), None)


@pytest.mark.parametrize("tool", ["marabou", "nnenum"])
def test_an_operator_that_is_not_on_the_list(tool: str) -> None:
    n = net()
    refused(n.model(n.gemm(n.node("Abs", ["x"]), 4, 3), 3), tool, "Abs .* is not for .* does not read")


def test_marabou_reads_plain_networks() -> None:
    n = net(1, 6, 6)
    h = n.node("Relu", [n.node("Conv", ["x", n.weight(n.gauss(2, 1, 3, 3, fan=9))], pads=[1, 1, 1, 1], strides=[1, 1])])
    h = n.node("MaxPool", [h], kernel_shape=[2, 2], strides=[2, 2])
    h = n.node("Relu", [n.gemm(n.node("Flatten", [h]), 18, 5)])
    y = n.node("Add", [n.node("MatMul", [h, n.weight(n.gauss(5, 3, fan=5))]), n.weight(np.ones(3))])
    check_readable(load_model(n.model(y, 3)), "marabou")


def test_marabou_turns_the_sign_of_what_is_subtracted() -> None:
    """maraboupy 2.0.0 evaluates `Sub(x, c)` as x + c."""
    n = net()
    refused(n.model(n.gemm(n.node("Sub", ["x", n.weight(np.ones(4))]), 4, 3), 3), "marabou", "Sub")


@pytest.mark.parametrize("attributes", [{"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}])
def test_marabou_ignores_attributes_of_conv(attributes: dict[str, object]) -> None:
    n = net(1, 6, 6)
    h = n.node("Conv", ["x", n.weight(n.gauss(1, 1, 2, 2, fan=4))], **attributes)
    size = 16 if "dilations" in attributes else 36
    refused(n.model(n.gemm(n.node("Flatten", [h]), size, 3), 3), "marabou", f"Conv .* ignores {next(iter(attributes))}")


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"ceil_mode": 1}])
def test_marabou_ignores_attributes_of_max_pool(attributes: dict[str, object]) -> None:
    n = net(1, 5, 5)
    h = n.node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2], **attributes)
    refused(n.model(n.gemm(n.node("Flatten", [h]), 9, 3), 3), "marabou", f"MaxPool .* ignores {next(iter(attributes))}")


@pytest.mark.parametrize("view", [False, True])
def test_marabou_adds_a_constant_for_all_that_read_the_tensor(view: bool) -> None:
    n = net()
    z = n.node("MatMul", ["x", n.weight(n.gauss(4, 4, fan=4))])
    seen = n.node("Identity", [z]) if view else z
    biased = n.node("Add", [seen, n.weight(np.ones(4))])
    both = n.node("Add", [n.node("Relu", [biased]), n.node("Relu", [z])])
    refused(n.model(n.gemm(both, 4, 3), 3), "marabou", "Add .* for all that read it")


def test_marabou_multiplies_by_a_scalar_behind_only() -> None:
    n = net()
    check_readable(load_model(n.model(n.gemm(n.node("Mul", ["x", n.weight(np.array(2.0))]), 4, 3), 3)), "marabou")
    n = net()
    refused(n.model(n.gemm(n.node("Mul", ["x", n.weight(np.ones(4))]), 4, 3), 3), "marabou", "Mul .* scalar")


def test_nnenum_wants_a_chain_with_a_relu() -> None:
    n = net()
    refused(n.model(n.gemm("x", 4, 3), 3), "nnenum", "at least one Relu")
    n = net()
    z = n.gemm("x", 4, 4)
    refused(n.model(n.gemm(n.node("Add", [n.node("Relu", [z]), z]), 4, 3), 3), "nnenum", "chains only")
