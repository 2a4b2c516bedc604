"""Products, Einsum and operands that meet without the batch axis in front, against onnxruntime, with points inside all bounds."""

from __future__ import annotations

import math
from typing import Any

import onnx
import pytest
from onnx import helper

from tests.ops.test_moved_batch import Shape, model_of, stays_within_bounds
from tests.ops.tools import ints, random


@pytest.mark.parametrize("alpha", [1.0, 0.7])
@pytest.mark.parametrize("variable", ["B", "C", "AB", "AC", "BC", "ABC"])
@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm_of_any_of_its_inputs(variable: str, alpha: float, turned: tuple[int, int]) -> None:
    """A, B and C are of the input or constants."""
    make, number = helper.make_node, onnx.numpy_helper.from_array
    shapes = {"A": (4, 3) if turned[0] else (3, 4), "B": (2, 4) if turned[1] else (4, 2), "C": (3, 2)}
    weights = [number(ints(1, 6), "flat"), number(random((6, 3)), "v")]
    nodes = []
    for name, shape in shapes.items():
        if name in variable:
            size = math.prod(shape)
            weights += [number(random((12, size), size, 0.5), f"w{name}"), number(ints(*shape), f"s{name}")]
            nodes += [make("MatMul", ["x", f"w{name}"], [f"r{name}"]), make("Reshape", [f"r{name}", f"s{name}"], [name])]
        else:
            weights.append(number(random(shape, 4), name))
    nodes += [make("Gemm", ["A", "B", "C"], ["g"], transA=turned[0], transB=turned[1], alpha=alpha, beta=2 * alpha),
              make("Reshape", ["g", "flat"], ["c"]), make("Gemm", ["c", "v"], ["y"])]  # fmt: skip
    stays_within_bounds(model_of(nodes, (12,), (3,), 1, weights), 5)


@pytest.mark.parametrize("batch", ["N", 1])
def test_gemm_adds_another_tensor(batch: int | str) -> None:
    """A residual connection, as optimisers join it with the product before."""
    make, number = helper.make_node, onnx.numpy_helper.from_array
    nodes = [make("Gemm", ["x", "w"], ["a"]), make("Relu", ["a"], ["r"]), make("Gemm", ["r", "v", "x"], ["b"], beta=0.5),
             make("Gemm", ["b", "u"], ["y"])]  # fmt: skip
    weights = [number(random(shape), name) for name, shape in (("w", (4, 5)), ("v", (5, 4)), ("u", (4, 3)))]
    stays_within_bounds(model_of(nodes, (4,), (3,), batch, weights), 2)


@pytest.mark.parametrize("kind", ["left", "right", "both"])
def test_products_of_vectors(kind: str) -> None:
    """Without rows: a sample as a vector, as a Squeeze of the batch axis leaves it."""
    make, number = helper.make_node, onnx.numpy_helper.from_array
    weights = [number(random((4, 4)), "w"), number(ints(0), "zero"), number(ints(1, -1), "flat")]
    product = {"left": ["a", "w"], "right": ["w", "a"], "both": ["a", "a"]}[kind]
    nodes = [make("Squeeze", ["x", "zero"], ["a"]), make("MatMul", product, ["b"]), make("Reshape", ["b", "flat"], ["c"]),
             make("MatMul", ["c", "v"], ["y"])]  # fmt: skip
    stays_within_bounds(model_of(nodes, (4,), (3,), 1, [*weights, number(random((1 if kind == "both" else 4, 3), 8), "v")]), 7)


@pytest.mark.parametrize(
    ("equation", "shapes", "after"),
    [
        ("bij,ik->kbj", [(3, 4), None], (2, 1, 4)),  # the batch axis moves
        ("kbj,kbl->bjl", [(2, 1, 6), (2, 1, 3)], (1, 6, 3)),
        ("ti,ij,sj->ts", [(3, 4), None, (2, 6)], (3, 2)),  # without one
        ("...i,i->...", [(3, 4), None], (3,)),
        ("i,i->", [(12,), (12,)], ()),
        ("bqd,bkd->bqk", [None, (3, 4)], (1, 5, 3)),  # by queries that are constant
        ("ij,tk->t", [None, (3, 4)], (3,)),  # by the sum of a constant
        ("m,i->i", [None, (1,)], (1,)),
        ("ik,ik,t->t", [None, None, (5,)], (5,)),
        (",ti->it", [None, (3, 4)], (4, 3)),
    ],
)
def test_einsum_without_the_batch_axis_in_front(equation: str, shapes: list[Shape | None], after: Shape) -> None:
    make, number = helper.make_node, onnx.numpy_helper.from_array
    constants = {"ik": (3, 2), "ij": (4, 6), "i": (4,), "bqd": (1, 5, 4), "m": (2,), "": ()}
    terms, nodes, names = equation.split("->")[0].split(","), list[Any](), list[str]()
    weights = [number(ints(1, math.prod(after)), "flat"), number(random((math.prod(after), 3)), "v")]
    for k, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        names.append(f"t{k}")
        if shape is None:
            weights.append(number(random(constants[term], 4), names[-1]))
            continue
        full = (1, *shape) if equation.startswith("b") else shape
        weights += [number(random((12, math.prod(shape)), k, 0.5), f"w{k}"), number(ints(*full), f"s{k}")]
        nodes += [make("MatMul", ["x", f"w{k}"], [f"r{k}"]), make("Reshape", [f"r{k}", f"s{k}"], [names[-1]])]
    nodes += [make("Einsum", names, ["e"], equation=equation), make("Reshape", ["e", "flat"], ["c"])]
    nodes.append(make("Gemm", ["c", "v"], ["y"]))
    stays_within_bounds(model_of(nodes, (12,), (3,), 1, weights), 9)


@pytest.mark.parametrize("kind", ["Add", "Mul", "Max", "MatMul", "more axes", "matrices", "Expand"])
def test_operands_whose_first_axes_do_not_meet(kind: str) -> None:
    """At batch 1 they are broadcast as they are, as unrolled recurrent networks and ensembles have them."""
    make, number = helper.make_node, onnx.numpy_helper.from_array
    weights = [number(random((4, 12), 1, 0.5), "w"), number(ints(1, 3, 4), "rows"), number(ints(1, -1), "flat")]
    nodes = [make("MatMul", ["x", "w"], ["r"]), make("Reshape", ["r", "rows"], ["b"])]
    other, size = "b", 12
    if kind == "MatMul":
        nodes.append(make("Transpose", ["b"], ["t"], perm=[0, 2, 1]))
        other, size = "t", 3
    elif kind in ("more axes", "matrices"):
        shape, size = ((1, 1, 4), 4) if kind == "more axes" else ((3, 4, 2), 6)
        weights.append(number(random(shape, 3), "c"))
        other = "c"
    op = {"more axes": "Add", "matrices": "MatMul"}.get(kind, kind)
    if kind == "Expand":  # copies of a sample, each of which is met by another row
        weights += [number(ints(3, 1, 4), "copies"), number(random((3, 1, 4), 5), "c")]
        nodes += [make("Unsqueeze", ["x", "zero"], ["u"]), make("Expand", ["u", "copies"], ["e"]), make("Mul", ["e", "c"], ["m"])]
        weights.append(number(ints(0), "zero"))
    else:
        nodes.append(make(op, ["x", other], ["m"]))
    nodes += [make("Relu", ["m"], ["n"]), make("Reshape", ["n", "flat"], ["f"]), make("Gemm", ["f", "v"], ["y"])]
    stays_within_bounds(model_of(nodes, (4,), (3,), 1, [*weights, number(random((size, 3), 8), "v")]), 4)
