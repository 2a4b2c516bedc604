"""Variants of the kinds of fault that arithmetic makes: overflow, cancellation, absolute slack, grids of float32, empty windows.

Every right answer is known by construction, or from `truth.py`. Seeds make the networks; none is a copy of a stored example.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto

from benchmarks.case_judges import Question, anchored, bracket, cancelled, in_time, original, proved, says, violated
from benchmarks.random_questions import scaled, small_model
from benchmarks.sampling import Anchor, nearest_sampled
from benchmarks.truth import TooLarge, distance, pieces_of
from tests.handmade import Net

__all__ = ["NUMBERS", "ball_text"]


def ball_text(at: Anchor, eps: float, classes: int) -> str:
    """Some other class within the ball, as VNN-LIB 1.0 of what the network is fed."""
    low, high = (at.fed(np.clip(at.x0 + w * eps, at.lower, at.upper)) for w in (-1, 1))
    lines = [f"(declare-const X_{i} Real)" for i in range(len(at.x0))] + [f"(declare-const Y_{i} Real)" for i in range(classes)]
    lines += [f"(assert (>= X_{i} {a:.17f}))\n(assert (<= X_{i} {b:.17f}))" for i, (a, b) in enumerate(zip(low, high, strict=True))]
    others = " ".join(f"(and (>= Y_{t} Y_{at.label}))" for t in range(classes) if t != at.label)
    return "\n".join([*lines, f"(assert (or {others}))", ""])


def nan_proved() -> Iterator[Question]:
    """Class 1 is a step at t of x_0: a Relu, a gain of 1e300 or more by several operators, a Clip or a Sigmoid. d = t - x_0."""
    kind, shapes = "01 nan-proved", ((2, "Mul"), (3, "Gemm"), (1, "Conv"), (4, "Div"), (2, "Neg"))
    for i, (n, how) in enumerate(shapes):
        rng = np.random.default_rng([1, i])
        t = float(np.float32(rng.uniform(0.4, 0.7)))
        x0 = rng.uniform(0.3, 0.6, n).astype(np.float32)
        x0[0] = np.float32(t - rng.uniform(0.05, 0.15))
        net = Net(n)
        pick = np.zeros((1, n))
        pick[0, 0] = 1.0
        sign = -1.0 if how == "Neg" else 1.0
        h = net.node("Relu", [net.node("Gemm", ["x", net.weight(pick), net.weight([-t])], transB=1)])
        if how == "Conv":
            h = net.node("Reshape", [h, net.weight([-1, 1, 1, 1], np.int64)])
        for j in range(9):
            if how == "Gemm":
                h = net.node("Gemm", [h, net.weight([[1e38]]), net.weight([0.0])], transB=1)
            elif how == "Conv":
                h = net.node("Conv", [h, net.weight([[[[3e37]]]])])
            elif how == "Div":
                h = net.node("Div", [h, net.weight(1e-37)])
            else:
                h = net.node("Mul", [h, net.weight(sign * 1e38 if j == 0 else 1e38)])
        if how == "Conv":
            h = net.node("Flatten", [h])
        low, high = (0.0, 1.0) if sign > 0 else (-1.0, 0.0)
        h = net.node("Clip", [h, net.weight(low), net.weight(high)])
        if sign < 0:
            h = net.node("Neg", [h])
        half = net.node("Gemm", ["x", net.weight(np.zeros((1, n))), net.weight([0.5])], transB=1)
        y = net.node("Concat", [half, h], axis=1)
        model, d = net.model(y, 2), t - float(x0[0])
        at = Anchor(x0.astype(np.float64), 0)
        files = {"model.onnx": model, "x0.npy": x0, "ball.vnnlib": ball_text(at, 2 * d, 2)}
        for verifier in ("bab", "milp"):
            ask = ("verify", "model.onnx", *anchored(at), "--verifier", verifier, "--timeout", "20")
            far, near = (*ask, "--eps", repr(2 * d), "-o", "w.npy"), (*ask, "--eps", repr(d / 2))
            yield Question(kind, f"{how} {verifier} beyond", far, "violated", violated(at, 2 * d), files)
            yield Question(kind, f"{how} {verifier} below", near, "proved or unknown", says("proved", "unknown"), files)
            door = ("verify", "model.onnx", "ball.vnnlib", "-o", "w.npy", "--verifier", verifier, "--timeout", "20")
            yield Question(kind, f"{how} {verifier} vnnlib", door, "violated", violated(at, 2 * d, fed=True), files)
        ask = ("distance", "model.onnx", *anchored(at), "--timeout", "20")
        yield Question(kind, f"{how} distance", ask, f"a bracket of {d:.6g}", bracket(d), files)


def original_exact() -> Iterator[Question]:
    """Pruned units change their piece within the ball, in a hidden layer of size 2^-44 to 2^-20: the original is not exact."""
    kind, found, seed = "02 original-exact", 0, 0
    while found < 5:
        seed += 1
        rng = np.random.default_rng([2, seed])
        n, m = int(rng.integers(2, 5)), int(rng.integers(4, 9))
        size = float(2.0 ** rng.integers(-44, -19))
        weights = rng.normal(size=(m, n)), 0.3 * rng.normal(size=m), rng.normal(size=(3, m)), 0.2 * rng.normal(size=3)
        plain, tiny = (_two_layers(*weights, by) for by in (1.0, size))
        x0 = rng.random(n).astype(np.float32)
        real = pieces_of(plain)
        at = Anchor(x0.astype(np.float64), int(real(x0[None])[0].argmax()))
        d = distance(real, at)
        if not 0.02 < d < 0.5 or _linear(real, at) < 1.05 * d:
            continue
        found += 1
        for name, model in (("plain", plain), (f"2^{math.log2(size):.0f}", tiny)):
            files = {"model.onnx": model, "x0.npy": x0}
            for via in ("act:1.0", "lin:0.9"):
                ask = ("distance", "model.onnx", *anchored(at), "--via", via, "--timeout", "20")
                yield Question(kind, f"net {seed} {name} {via}", ask, f"original.lower <= {d:.7f}", original(d), files)
        ask = ("distance", "model.onnx", *anchored(at), "--timeout", "20", "--verifier", "milp" if found % 2 else "bab")
        yield Question(kind, f"net {seed} scaled distance", ask, f"{d:.7f}", bracket(d, finite=True), files)


def _two_layers(W: np.ndarray, b: np.ndarray, V: np.ndarray, c: np.ndarray, size: float) -> ModelProto:
    net = Net(W.shape[1])
    h = net.node("Relu", [net.node("Gemm", ["x", net.weight(W * size), net.weight(b * size)], transB=1)])
    return net.model(net.node("Gemm", [h, net.weight(V / size), net.weight(c)], transB=1), len(c))


def _linear(real: object, at: Anchor) -> float:
    """The distance of the network's affine piece at the anchor, without a domain."""
    assert callable(real)
    step = 1e-7
    points = np.vstack([at.x0, at.x0 + step * np.eye(len(at.x0))])
    out = real(points)
    slope = (out[1:] - out[0]) / step
    rest = [t for t in range(out.shape[1]) if t != at.label]
    gaps = [(out[0, at.label] - out[0, t]) / max(np.abs(slope[:, at.label] - slope[:, t]).sum(), 1e-12) for t in rest]
    return float(min(gaps))


def cancellation() -> Iterator[Question]:
    """y_0 = (G a + b) - G a, y_1 = c: over the reals b > c on the whole ball; in float32 b is lost where G a is large."""
    kind = "03 float32-cancellation"
    for i, (gain, n) in enumerate(((2.0**31, 2), (3e9, 3), (1e10, 2), (2.0**28, 5))):
        rng = np.random.default_rng([3, i])
        b, c, eps = 0.5, float(rng.uniform(0.15, 0.3)), 0.1
        net = Net(n)
        ways = np.zeros((2, n))
        ways[:, 0], ways[0, 1] = gain, 1.0
        h = net.node("Relu", [net.node("Gemm", ["x", net.weight(ways), net.weight(np.zeros(2))], transB=1)])
        if i % 2:
            h = net.node("Add", [h, net.weight(np.zeros(2))])
        y = net.node("Gemm", [h, net.weight([[1.0, -1.0], [0.0, 0.0]]), net.weight([0.0, c])], transB=1)
        x0 = np.concatenate([[0.0, b], rng.random(n - 2)]).astype(np.float32)
        at = Anchor(x0.astype(np.float64), 0)
        files = {"model.onnx": net.model(y, 2), "x0.npy": x0, "ball.vnnlib": ball_text(at, eps, 2)}
        for verifier in ("bab", "milp"):
            more = ("--verifier", verifier, "--timeout", "20", "-o", "w.npy")
            ask = ("verify", "model.onnx", *anchored(at), "--eps", repr(eps), *more)
            right = "violated, or proved but for float32"
            yield Question(kind, f"gain {gain:.0e} {verifier}", ask, right, cancelled(at, eps), files)
            door = ("verify", "model.onnx", "ball.vnnlib", *more)
            yield Question(kind, f"gain {gain:.0e} {verifier} vnnlib", door, right, cancelled(at, eps, fed=True), files)


def wide_domain() -> Iterator[Question]:
    """`exact` where the ends differ by more than the tolerance is false, however wide the domain and far the anchor."""
    kind = "04 wide-domain"
    places = (
        (-1e6, 1e6, 0.0, 1.0, 0.5), (-1e8, 1e8, 0.0, 1.0, 0.3), (0.0, 2e6, 1e6, 1e3, 1e6), (-1e4, 1e4, 5e3, 10.0, 5e3),
        (0.0, 1e7, 0.0, 1e7, 3e6),
    )  # fmt: skip
    for i, (lower, upper, mean, std, centre) in enumerate(places):
        seed = 0
        while True:
            rng = np.random.default_rng([4, i, seed])
            seed += 1
            model = small_model(rng)
            n = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
            x0 = (centre + std * rng.uniform(-0.4, 0.4, n)).astype(np.float32)
            real = pieces_of(model)
            at = Anchor(x0.astype(np.float64), 0, lower, upper, mean, std)
            at = Anchor(at.x0, int(real(at.fed(at.x0[None]))[0].argmax()), lower, upper, mean, std)
            # a small box round the anchor holds the nearest boundary: its programs are well scaled
            box = Anchor(at.x0, at.label, max(lower, centre - 2 * std), min(upper, centre + 2 * std), mean, std)
            try:
                d = distance(real, box, programs=200)
            except TooLarge:
                continue
            if 0.02 * std < d < 0.6 * std:
                break
        grid = float(np.spacing(np.abs(x0).max() + np.float32(d)))
        for verifier in ("bab", "milp"):
            ask = ("distance", "model.onnx", *anchored(at), "--verifier", verifier, "--timeout", "20")
            judge = bracket(d, grid=2 * grid + 1e-6 * std)
            text = f"{d:.7g}, exact only within 1e-6 (grid {grid:.0e})"
            name = f"[{lower:g}, {upper:g}] std {std:g} {verifier}"
            yield Question(kind, name, ask, text, judge, {"model.onnx": model, "x0.npy": x0})


def empty_window() -> Iterator[Question]:
    """Units of which one branch sees no input, behind padding or in holes; only those are unstable."""
    kind = "05 crash-empty-window"
    for i, (how, size, rows) in enumerate((("Conv", 7, 2), ("Pad", 7, 2), ("ConvTranspose", 7, 2), ("wide Conv", 8, 2))):
        rng = np.random.default_rng([5, i])
        net = Net(1, 3, 3, seed=50 + i)
        x = net.node("Abs" if i % 2 else "Relu", [net.node("Sub", ["x", net.weight(0.4)])])
        if how == "Conv":
            h = net.node("Conv", [x, net.weight(rng.normal(size=(1, 1, 1, 1))), net.weight([0.2])], pads=[2, 2, 2, 2])
        elif how == "wide Conv":
            h = net.node("Conv", [x, net.weight(rng.normal(size=(1, 1, 2, 2))), net.weight([0.2])], pads=[3, 3, 3, 3])
        elif how == "Pad":
            h = net.node("Pad", [x, net.weight([0, 0, 2, 2, 0, 0, 2, 2], np.int64), net.weight(0.25)])
        else:
            h = net.node("ConvTranspose", [x, net.weight(rng.normal(size=(1, 1, 1, 1)))], strides=[3, 3])
        # the rest of the sum moves every unit, and keeps all but a row or two away from 0
        bias = np.full((size, size), 6.0)
        bias[1:rows] = 0.3 * rng.normal(size=(rows - 1, size))
        moved = net.weight(rng.normal(size=(size * size, 9)) / 3), net.weight(bias.reshape(-1))
        rest = net.node("Gemm", [net.node("Flatten", ["x"]), *moved], transB=1)
        h = net.node("Relu", [net.node("Add", [h, net.node("Reshape", [rest, net.weight([-1, 1, size, size], np.int64)])])])
        V = rng.normal(size=(3, size, size))
        V[:, :1], V[:, rows:] = 0.01 * V[:, :1], 0.01 * V[:, rows:]
        y = net.node("Gemm", [net.node("Flatten", [h]), net.weight(V.reshape(3, -1)), net.weight(np.zeros(3))], transB=1)
        model = net.model(y, 3)
        real = pieces_of(model, most=400)
        lower, upper, mean, std = (0.0, 255.0, 0.0, 255.0) if i % 2 == 0 else (0.0, 1.0, 0.0, 1.0)
        x0 = (lower + (upper - lower) * rng.random(9)).astype(np.float32)
        at = Anchor(x0.astype(np.float64), 0, lower, upper, mean, std)
        at = Anchor(at.x0, int(real(at.fed(at.x0[None]))[0].argmax()), lower, upper, mean, std)
        d, known = nearest_sampled(real, at, rng, beyond=1e-9), False
        with contextlib.suppress(TooLarge):
            d, known = distance(real, at, best=d, programs=150), True
        for more in (("milp", "--tighten", "lp"), ("milp",), ("bab",)):
            ask = ("distance", "model.onnx", *anchored(at), "--verifier", *more, "--timeout", "20")
            files = {"model.onnx": model, "x0.npy": x0.reshape(1, 3, 3)}
            judge = bracket(d, grid=1e-5 * at.width, known=known)
            yield Question(kind, f"{how} {' '.join(more)}", ask, f"{'' if known else '<= '}{d:.7g}", judge, files)


def overflow() -> Iterator[Question]:
    """Products beyond float32 on half of the domain, hidden layers times 2^k: bounds prove what they can, with a reason."""
    kind = "10 overflow"
    for i, (size, n) in enumerate(((1e30, 1), (1e25, 2), (3e37, 3))):
        rng = np.random.default_rng([10, i])
        t, gap = 0.5, float(np.float32(rng.uniform(0.08, 0.2)))
        net = Net(n)
        pick = np.zeros((2, n))
        pick[:, 0] = size
        h = net.node("Relu", [net.node("Gemm", ["x", net.weight(pick), net.weight([-t * size] * 2)], transB=1)])
        h = net.node("Relu", [net.node("Gemm", [h, net.weight(np.eye(2) * size), net.weight([0.0, 0.0])], transB=1)])
        y = net.node("Gemm", [h, net.weight([[1.0, -1.0], [0.0, 0.0]]), net.weight([1.0, 0.0])], transB=1)
        x0 = np.concatenate([[t - gap], rng.random(n - 1)]).astype(np.float32)
        at = Anchor(x0.astype(np.float64), 0)
        files = {"model.onnx": net.model(y, 2), "x0.npy": x0}
        for verifier in ("bab", "milp"):
            ask = ("verify", "model.onnx", *anchored(at), "--verifier", verifier, "--timeout", "20", "--eps")
            judge = says("proved", "unknown", reason=True)
            yield Question(kind, f"{size:g} {verifier} beyond", (*ask, repr(3 * gap)), "an answer", judge, files)
            yield Question(kind, f"{size:g} {verifier} below", (*ask, repr(gap / 2)), "proved", proved, files)
            ask = ("distance", "model.onnx", *anchored(at), "--verifier", verifier, "--timeout", "20")
            judge = bracket(math.inf, least=gap * 0.9, reason=True)
            yield Question(kind, f"{size:g} {verifier} distance", ask, f"lower >= {gap * 0.9:.3g}, a reason", judge, files)
    for i, power in enumerate((-60, -90, 60, 100)):
        seed = 0
        while True:
            rng = np.random.default_rng([10, 50 + i, seed])
            seed += 1
            plain = small_model(rng)
            n = plain.graph.input[0].type.tensor_type.shape.dim[1].dim_value
            x0 = rng.random(n).astype(np.float32)
            real = pieces_of(plain)
            at = Anchor(x0.astype(np.float64), int(real(x0[None])[0].argmax()))
            model = scaled(plain, power, rng)
            try:
                d = distance(real, at, programs=200)
            except TooLarge:
                continue
            if 0.02 < d < 0.9 and len(model.graph.initializer) > len(plain.graph.initializer):
                break
        for verifier in ("milp", "bab"):
            ask = ("distance", "model.onnx", *anchored(at), "--verifier", verifier, "--timeout", "20")
            judge = in_time(bracket(d, finite=True, reason=True), cpu=25.0)
            yield Question(kind, f"2^{power} {verifier}", ask, f"{d:.7f}", judge, {"model.onnx": model, "x0.npy": x0})


NUMBERS = {"01": nan_proved, "02": original_exact, "03": cancellation, "04": wide_domain, "05": empty_window, "10": overflow}
"""Number of a kind: its variants."""
