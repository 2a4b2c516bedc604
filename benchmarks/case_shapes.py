"""Variants of the other kinds of fault: just beyond an attack, many clauses, empty tensors, ties behind a head, huge radii."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto

from benchmarks.case_judges import Question, anchored, attacked, bracket, in_time, proved, says, supported, violated
from benchmarks.sampling import Anchor, logits_by_onnxruntime
from benchmarks.truth import TooLarge, distance, pieces_of
from tests.handmade import Net

__all__ = ["CLAUSES", "SHAPES", "many_clauses"]

MODELS = Path(__file__).parents[1] / "models"
CLAUSES = ("bounds", "rows", "tree", "sat")
"""Properties of many clauses: excluded by intervals; the same with two rows each; not excluded by intervals; one satisfiable."""


def beyond_attack() -> Iterator[Question]:
    """An attack finds a strict point at d_adv; the ball of a slightly larger radius holds it, so it is violated, at once."""
    import onnxsub

    with np.load(MODELS / "digits_anchors.npz") as archive:
        digits = archive["x"]
    asked: list[tuple[str, ModelProto | Path, np.ndarray]] = [(f"digits {i}", MODELS / "digits.onnx", digits[i]) for i in (2, 5, 8)]
    for seed in range(3):
        net = Net(64, seed=600 + seed)
        h = "x"
        for n, m in ((64, 60), (60, 60), (60, 40)):
            h = net.node("LeakyRelu" if seed == 2 else "Relu", [net.gemm(h, n, m)])
        model = net.model(net.gemm(h, 40, 10), 10)
        asked.append((f"dense net {seed}", model, np.random.default_rng([6, seed]).random(64).astype(np.float32)))
    for name, model, x0 in asked:
        query = onnxsub.make_query(onnxsub.load(model), x0)
        d = float(onnxsub.attack(query).d_adv)
        at = Anchor(query.x0.astype(np.float64).reshape(-1), query.label)
        for factor in (1.0005, 1.02):
            eps = d * factor
            ask = ("verify", "model.onnx", *anchored(at), "--eps", repr(eps), "--timeout", "20", "-o", "w.npy")
            files = {"model.onnx": model, "x0.npy": np.asarray(query.x0)}
            judge = in_time(violated(at, eps), cpu=8.0)
            yield Question("06 beyond-attack", f"{name} x {factor}", ask, f"violated, a point at {d:.7g}", judge, files)


def many_clauses(count: int, flavour: str, seed: int) -> tuple[ModelProto, str, str]:
    """A network of six units, a property of `count` clauses about it, and the answer, `proved` or `violated`.

    The largest output M on the box comes from a grid and the network's Lipschitz constant, so thresholds above it are unreachable.
    """
    rng = np.random.default_rng([7, seed])
    W, b, V = rng.normal(size=(6, 2)), 0.3 * rng.normal(size=6), rng.normal(size=(2, 6))
    W, b, V = (a.astype(np.float32).astype(np.float64) for a in (W, b, V))
    net = Net(2)
    h = net.node("Relu", [net.node("Gemm", ["x", net.weight(W), net.weight(b)], transB=1)])
    model = net.model(net.node("Gemm", [h, net.weight(V), net.weight([0.0, 0.0])], transB=1), 2, batch=1)
    steps = np.linspace(-1, 1, 1001)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    values = np.maximum(grid @ W.T + b, 0) @ V[0]
    most = float(values.max() + 0.5 * 0.002 * (np.abs(V[0]) @ np.abs(W)).sum())
    top = np.maximum(np.abs(W).sum(axis=1) + b, 0)
    surely = float(np.maximum(V[0], 0) @ top)  # by intervals
    start = most + 0.01 if flavour == "tree" else surely + 0.5
    thresholds = start + 1e-4 * np.arange(count)
    if flavour == "sat":
        thresholds[int(rng.integers(count))] = float(values.max() - 0.1 * (values.max() - values.min()))
    lines = ["(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)"]
    lines += [f"(assert (<= -1 X_{i}))\n(assert (<= X_{i} 1))" for i in range(2)]
    second = " (<= Y_1 0.5)" if flavour == "rows" else ""
    lines.append("(assert (or " + "".join(f"(and (>= Y_0 {c:.5f}){second})\n" for c in thresholds) + "))\n")
    return model, "\n".join(lines), "violated" if flavour == "sat" else "proved"


def clauses() -> Iterator[Question]:
    for i, flavour in enumerate(CLAUSES):
        for count in (50, 4000):
            model, text, answer = many_clauses(count, flavour, i)
            ask = ("verify", "model.onnx", "prop.vnnlib", "--timeout", "20")
            judge = in_time(proved if answer == "proved" else says("violated"), cpu=10.0, peak=1.0)
            files = {"model.onnx": model, "prop.vnnlib": text}
            yield Question("07 many-clauses", f"{flavour} {count}", ask, f"{answer}, <= 10 CPU s, <= 1 GB", judge, files)


def zero_width() -> Iterator[Question]:
    """A tensor of width zero joined to another: the model without both."""
    for how in ("slice input", "slice hidden", "split", "constant", "gather", "channels"):
        seed = 0
        while True:
            rng = np.random.default_rng([8, seed, len(how)])
            seed += 1
            image = how == "channels"
            with_it, plain = (_joined(how, seed, kept) for kept in (True, False))
            n = 9 if image else 3
            x0 = rng.random(n).astype(np.float32)
            real = pieces_of(plain)
            at = Anchor(x0.astype(np.float64), int(real(x0[None])[0].argmax()))
            try:
                d = distance(real, at, programs=200)
            except TooLarge:
                continue
            if 0.03 < d < 0.6:
                break
        logits_by_onnxruntime(with_it)(x0)  # onnxruntime runs it
        files = {"model.onnx": with_it, "x0.npy": x0.reshape(1, 3, 3) if image else x0}
        kind, ask = "08 zero-width", ("model.onnx", *anchored(at), "--timeout", "20")
        yield Question(kind, f"{how} info", ("info", "model.onnx"), "supported", supported, files)
        yield Question(kind, f"{how} below", ("verify", *ask, "--eps", repr(0.7 * d)), "proved", proved, files)
        beyond = ("verify", *ask, "--eps", repr(1.3 * d), "-o", "w.npy")
        yield Question(kind, f"{how} beyond", beyond, "violated", violated(at, 1.3 * d), files)
        for verifier in ("bab", "milp"):
            asked = ("distance", *ask, "--verifier", verifier)
            yield Question(kind, f"{how} distance {verifier}", asked, f"{d:.7g}", bracket(d, finite=True), files)
        pruned = ("prune", *ask, "-o", "pruned.onnx")
        yield Question(kind, f"{how} prune", pruned, "a substitute", says("exit 0"), files)


def _joined(how: str, seed: int, kept: bool) -> ModelProto:
    """A network of eight units, with the empty tensor or without it."""
    net = Net(*((1, 3, 3) if how == "channels" else (3,)), seed=seed)
    whole = lambda *v: net.weight(v, np.int64)  # noqa: E731

    def join(x: str, axis: int = 1) -> str:
        if not kept:
            return x
        if how == "split":
            net.nodes.append(_split(x, whole(0, 3)))
            return net.node("Concat", ["rest", "none"], axis=1)
        if how == "constant":
            return net.node("Concat", [x, net.weight(np.zeros((1, 0)))], axis=1)
        if how == "gather":
            return net.node("Concat", [net.node("Gather", [x, whole()], axis=1), x], axis=1)
        return net.node("Concat", [net.node("Slice", [x, whole(0), whole(0), whole(1)]), x], axis=axis)

    if how == "channels":
        h = net.node("Relu", [net.filters("x", 1, 2, 2)])
        return net.model(net.gemm(net.node("Flatten", [join(h)]), 8, 3), 3, batch=1)
    x = "x" if how == "slice hidden" else join("x")
    h = net.node("Relu", [net.gemm(x, 3, 8)])
    return net.model(net.gemm(join(h) if how == "slice hidden" else h, 8, 3), 3, batch=1)


def _split(x: str, sizes: str) -> object:
    from onnx import helper

    return helper.make_node("Split", [x, sizes], ["none", "rest"], axis=1)


def head_tie() -> Iterator[Question]:
    """A head that rounds close logits to one value: strict in the file's own output, or a word that the margin is of the logits."""
    heads = (("Softmax", 1 / 256), ("Softmax", 1e-6), ("Softmax", 1e-3), ("Sigmoid", 1e-5), ("Sigmoid", 1 / 64))
    for i, (head, factor) in enumerate(heads):
        rng = np.random.default_rng([9, i])
        classes = 4 if head == "Softmax" else 1
        net = Net(6, seed=90 + i)
        h = net.node("Relu", [net.gemm("x", 6, 20)])
        h = net.node("Relu", [net.gemm(h, 20, 20)])
        y = net.node("Mul", [net.gemm(h, 20, classes), net.weight([factor])])
        model = net.model(net.node(head, [y], **({"axis": 1} if head == "Softmax" else {})), classes)
        x0 = rng.random(6).astype(np.float32)
        out = logits_by_onnxruntime(model)(x0)[0]
        label = int(out.argmax()) if classes > 1 else int(out[0] > 0.5)
        at = Anchor(x0.astype(np.float64), label)
        ask = ("attack", "model.onnx", *anchored(at), "-o", "w.npy", "--timeout", "20")
        right = "strict in the file's output, or said"
        yield Question("09 softmax-tie", f"{head} {factor:.1g}", ask, right, attacked(at), {"model.onnx": model, "x0.npy": x0})


def huge_radius() -> Iterator[Question]:
    """A radius beyond float32 asks about the whole domain."""
    for i, sign in enumerate((1.0, -1.0, 1.0)):
        net = Net(2, seed=i)
        h = net.node("Relu", [net.node("Gemm", ["x", net.weight(np.eye(2)), net.weight([-0.5, -0.5])], transB=1)])
        offset = 0.4 * sign  # y_0 - y_1 = 0.4 - max(x_0 - 0.5, 0) reaches 0; with -0.4 class 1 leads by 0.4 or more
        y = net.node("Gemm", [h, net.weight([[-1.0, 0.0], [0.0, 0.0]]), net.weight([offset, 0.0])], transB=1)
        x0 = np.array([0.2, 0.3 + 0.1 * i], np.float32)
        at = Anchor(x0.astype(np.float64), 0 if sign > 0 else 1)
        files = {"model.onnx": net.model(y, 2), "x0.npy": x0}
        for eps, verifier in ((1e39, "bab"), (1e300, "milp")):
            more = ("--verifier", verifier, "--timeout", "20", "-o", "w.npy")
            ask = ("verify", "model.onnx", *anchored(at), "--eps", repr(eps), *more)
            judge = violated(at, eps) if sign > 0 else proved
            yield Question("00 eps", f"net {i} {eps:g} {verifier}", ask, "violated" if sign > 0 else "proved", judge, files)


SHAPES = {"00": huge_radius, "06": beyond_attack, "07": clauses, "08": zero_width, "09": head_tie}
"""Number of a kind: its variants."""
