"""Random graphs of today's operators: gates, attention, normalisations, quotients and powers, on a few rows of a few numbers."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.random_models import Builder

__all__ = ["random_modern"]

_OPSET = 23
_FUNCTIONS = ("Gelu", "Sigmoid", "Tanh", "Relu", "HardSwish", "Elu", "Softplus", "Mish", "Erf", "Softsign")


class _Modern:
    """A pool of tensors `(rows, width)` that every step reads from and adds to; all of them have the same number of rows."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 15])
        self.b = Builder(self.rng, _FUNCTIONS, opset=_OPSET)
        self.rows, width = int(self.rng.integers(1, 4)), int(self.rng.integers(2, 5))
        self.entry = (self.rows, width)
        self.pool: list[tuple[str, int]] = [("x", width)]

    def pick(self) -> tuple[str, int]:
        n = len(self.pool)
        return self.pool[int(n - 1 - min(n - 1, self.rng.geometric(0.5) - 1))]

    def step(self) -> None:
        steps = (
            self.dense, self.dense, self.function, self.gate, self.gated_unit, self.attention, self.layer_norm, self.rms_norm,
            self.lp_norm, self.softmax, self.quotient, self.power, self.root, self.logarithm, self.exponential, self.norm,
            self.residual, self.local_response, self.extreme, self.reduced_extreme, self.threshold, self.choice, self.truths,
            self.stairs, self.group_norm, self.own_product, self.own_quotient, self.length_pool,
        )  # fmt: skip
        x, width = self.pick()
        steps[int(self.rng.integers(len(steps)))](x, width)

    def linear(self, x: str, width: int, out: int) -> str:
        product = self.b.node("MatMul", [x, self.b.weight(self.b.gauss(width, out, fan=width))])
        return self.b.node("Add", [product, self.b.weight(0.3 * self.rng.normal(size=out))])

    def number(self, value: float) -> str:
        return self.b.weight(np.array(value))

    def dense(self, x: str, width: int) -> None:
        out = int(self.rng.integers(2, 6))
        self.pool.append((self.linear(x, width, out), out))

    def function(self, x: str, width: int) -> None:
        self.pool.append((self.b.activation(x, (self.rows, width)), width))

    def gate(self, x: str, width: int) -> None:
        """Another tensor, or one number per row, times this one."""
        out = width if self.rng.random() < 0.5 else 1
        other = self.b.node("Sigmoid", [self.linear(x, width, out)]) if self.rng.random() < 0.5 else self.linear(x, width, out)
        self.pool.append((self.b.node("Mul", [x, other]), width))

    def gated_unit(self, x: str, width: int) -> None:
        both = self.linear(x, width, 2 * width)
        ends = [self.b.weight(np.array([n]), np.int64) for n in (0, width, 2 * width, 2)]
        halves = [self.b.node("Slice", [both, ends[i], ends[i + 1], ends[3]]) for i in (0, 1)]
        self.pool.append((self.b.node("Mul", [halves[0], self.b.node("Sigmoid", [halves[1]])]), width))

    def attention(self, x: str, width: int) -> None:
        q, k, v = (self.linear(x, width, 2) for _ in range(3))
        scores = self.b.node("MatMul", [q, self.b.node("Transpose", [k], perm=[0, 2, 1])])
        self.pool.append((self.b.node("MatMul", [self.b.node("Softmax", [scores], axis=-1), v]), 2))

    def layer_norm(self, x: str, width: int) -> None:
        parameters = [self.b.weight(self.rng.uniform(0.5, 1.5, width)), self.b.weight(self.rng.normal(size=width) / 5)]
        self.pool.append((self.b.node("LayerNormalization", [x, *parameters], epsilon=float(self.rng.choice([1e-5, 1e-2]))), width))

    def rms_norm(self, x: str, width: int) -> None:
        scale = self.b.weight(self.rng.uniform(0.5, 1.5, width))
        self.pool.append((self.b.node("RMSNormalization", [x, scale], epsilon=0.01), width))

    def lp_norm(self, x: str, width: int) -> None:
        shifted = self.b.node("Add", [x, self.number(2.0)])
        self.pool.append((self.b.node("LpNormalization", [shifted], axis=-1, p=int(self.rng.integers(1, 3))), width))

    def softmax(self, x: str, width: int) -> None:
        kind = "Softmax" if self.rng.random() < 0.6 else "LogSoftmax"
        self.pool.append((self.b.node(kind, [x], axis=int(self.rng.integers(1, 3))), width))

    def quotient(self, x: str, width: int) -> None:
        below = self.b.node("Add", [self.b.node("Abs", [self.linear(x, width, width)]), self.number(0.5)])
        above = x if self.rng.random() < 0.7 else self.b.weight(self.rng.normal(size=width))
        self.pool.append((self.b.node("Div", [above, below]), width))

    def power(self, x: str, width: int) -> None:
        kind = int(self.rng.integers(6))
        if kind == 3:
            exponents = self.b.weight(self.rng.integers(0, 4, width).astype(np.float64))
            self.pool.append((self.b.node("Pow", [self.b.node("Tanh", [x]), exponents]), width))
        elif kind == 4:
            self.pool.append((self.b.node("Pow", [self.number(1.7), self.b.node("Tanh", [x])]), width))
        elif kind == 5:
            product = self.b.node("ReduceProd", [self.b.node("Tanh", [x]), self.b.weight(np.array([2]), np.int64)])
            self.pool.append((self.b.node("Concat", [x, product], axis=2), width + 1))
        elif kind == 0:
            self.pool.append((self.b.node("Mul", [x, x]), width))
        elif kind == 1:
            self.pool.append((self.b.node("Pow", [self.b.node("Tanh", [x]), self.number(3.0)]), width))
        else:
            positive = self.b.node("Add", [self.b.node("Relu", [x]), self.number(0.3)])
            self.pool.append((self.b.node("Pow", [positive, self.number(float(self.rng.choice([0.5, 1.5, -1.0, -0.5])))]), width))

    def root(self, x: str, width: int) -> None:
        square = self.b.node("Add", [self.b.node("Mul", [x, x]), self.number(0.1)])
        self.pool.append((self.b.node("Sqrt", [square]), width))

    def logarithm(self, x: str, width: int) -> None:
        self.pool.append((self.b.node("Log", [self.b.node("Add", [self.b.node("Softplus", [x]), self.number(0.2)])]), width))

    def exponential(self, x: str, width: int) -> None:
        self.pool.append((self.b.node("Exp", [self.b.node("Tanh", [x])]), width))

    def norm(self, x: str, width: int) -> None:
        kind = str(self.rng.choice(["ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"]))
        length = self.b.node(kind, [x, self.b.weight(np.array([2]), np.int64)])
        self.pool.append((self.b.node("Concat", [x, length], axis=2), width + 1))

    def residual(self, x: str, width: int) -> None:
        self.pool.append((self.b.node("Add", [x, self.b.activation(self.linear(x, width, width), (self.rows, width))]), width))

    def local_response(self, x: str, width: int) -> None:
        image = self.b.node("Unsqueeze", [x, self.b.weight(np.array([3]), np.int64)])
        y = self.b.node("LRN", [image], size=3, alpha=0.5, beta=0.75, bias=1.0)
        self.pool.append((self.b.node("Squeeze", [y, self.b.weight(np.array([3]), np.int64)]), width))


    def extreme(self, x: str, width: int) -> None:
        """The larger or the smaller of two tensors, one of which may be a constant or one number per row."""
        kind = str(self.rng.choice(["Max", "Min"]))
        draw = self.rng.random()
        other = self.b.weight(self.rng.normal(size=width) / 2) if draw < 0.3 else self.linear(x, width, width if draw < 0.7 else 1)
        self.pool.append((self.b.node(kind, [x, other]), width))

    def reduced_extreme(self, x: str, width: int) -> None:
        kind = str(self.rng.choice(["ReduceMax", "ReduceMin"]))
        best = self.b.node(kind, [x, self.b.weight(np.array([int(self.rng.integers(1, 3))]), np.int64)])
        self.pool.append((self.b.node("Sub", [x, best]), width))

    def test(self, x: str, width: int) -> str:
        """A truth for every element: a comparison with a number or with another tensor."""
        kind = str(self.rng.choice(["Greater", "Less", "GreaterOrEqual", "LessOrEqual"]))
        other = self.number(self.rng.normal() / 3) if self.rng.random() < 0.6 else self.linear(x, width, width)
        return self.b.node(kind, [x, other])

    def threshold(self, x: str, width: int) -> None:
        kind = str(self.rng.choice(["ThresholdedRelu", "Sign"]))
        attributes = {} if kind == "Sign" else {"alpha": float(self.rng.normal() / 3)}
        self.pool.append((self.b.node(kind, [x], **attributes), width))

    def choice(self, x: str, width: int) -> None:
        """One of two branches, or of a branch and a number, by a test; now and then one that is a Relu, a Clip or the like."""
        draw = self.rng.random()
        first = x if draw < 0.5 else self.b.activation(x, (self.rows, width))
        second = self.linear(x, width, width) if draw < 0.7 else self.b.node("Mul", [x, self.number(0.1)])
        second = second if draw < 0.9 else self.number(0.2)
        self.pool.append((self.b.node("Where", [self.test(x, width), first, second]), width))

    def stairs(self, x: str, width: int) -> None:
        """Whole numbers near x, or what a division leaves; steps of a fifth to one."""
        kind = str(self.rng.choice(["Floor", "Ceil", "Round", "Mod"]))
        if kind == "Mod":
            step = self.number(0.7) if self.rng.random() < 0.5 else self.b.weight(self.rng.uniform(0.2, 1.0, width))
            self.pool.append((self.b.node("Mod", [x, step], fmod=1), width))
            return
        grown = self.b.node("Mul", [x, self.number(float(self.rng.uniform(1.0, 5.0)))])
        self.pool.append((self.b.node(kind, [grown]), width))

    def group_norm(self, x: str, width: int) -> None:
        """Rows are the channels."""
        parameters = [self.b.weight(self.rng.uniform(0.5, 1.5, self.rows)), self.b.weight(self.rng.normal(size=self.rows) / 5)]
        groups = self.rows if self.rng.random() < 0.5 else 1
        self.pool.append((self.b.node("GroupNormalization", [x, *parameters], num_groups=groups, epsilon=0.01), width))

    def own_product(self, x: str, width: int) -> None:
        """A matrix times itself, turned: both factors are of one tensor."""
        turned = self.b.node("Transpose", [x], perm=[0, 2, 1])
        self.pool.append((self.b.node("MatMul", [x, turned]), self.rows))

    def own_quotient(self, x: str, width: int) -> None:
        """`x / (1 + |x|)` and `x / x`, which is 1 where x is not 0."""
        below = self.b.node("Add", [self.b.node("Abs", [x]), self.number(1.0)])
        if self.rng.random() < 0.3:
            self.pool.append((self.b.node("Mul", [self.b.node("Div", [below, below]), x]), width))
        else:
            self.pool.append((self.b.node("Div", [x, below]), width))

    def length_pool(self, x: str, width: int) -> None:
        """The lengths of neighbours in a row."""
        reach, p = min(2, width), int(self.rng.integers(1, 3))
        self.pool.append((self.b.node("LpPool", [x], kernel_shape=[reach], p=p), width - reach + 1))

    def truths(self, x: str, width: int) -> None:
        """Truths combined, as numbers that an element is multiplied by."""
        both = self.b.node(str(self.rng.choice(["And", "Or", "Xor"])), [self.test(x, width), self.test(x, width)])
        both = both if self.rng.random() < 0.5 else self.b.node("Not", [both])
        self.pool.append((self.b.node("Mul", [x, self.b.node("Cast", [both], to=TensorProto.FLOAT)]), width))


def random_modern(seed: int, steps: int = 4) -> ModelProto:
    """A classifier with inputs in [0, 1] of `steps` random steps between two dense ones."""
    m = _Modern(seed)
    m.dense(*m.pool[0])
    for _ in range(steps):
        m.step()
    x, width = m.pool[-1]
    flat = m.b.node("Flatten", [x])
    classes = int(m.rng.integers(2, 4))
    y = m.b.dense(flat, m.rows * width, classes)
    return helper.make_model(
        helper.make_graph(
            m.b.nodes, f"modern{seed}", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *m.entry])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", classes])], m.b.weights,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10,
    )  # fmt: skip
