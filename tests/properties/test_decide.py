"""Decisions about properties, against a grid on small networks and against the published verdicts on real ones."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.errors import InputError
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.properties import Case, Clause, Property, as_margin_network, load_property, parse_property, read_witness, row_set
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import Limits, MilpOptions
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from tests.random_models import random_model

ONE = Limits(threads=1)
EXACT = VerifyOptions(ONE, MilpOptions(attack=False))
LOOSE = VerifyOptions(ONE, MilpOptions(attack=False, tighten="none", fold="never"))
MILP = VerifyOptions(ONE, MilpOptions(attack=False), verifier="milp")
LOOSE_MILP = replace(LOOSE, verifier="milp")
LP = VerifyOptions(ONE, MilpOptions(attack=False, tighten="lp"), verifier="milp")
WAYS = {"all": VerifyOptions(), "exact": EXACT, "loose": LOOSE, "milp": MILP, "loose milp": LOOSE_MILP, "lp": LP}


def grid(n: int, points: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.linspace(0, 1, points)] * n), axis=-1).reshape(-1, n)


def network(seed: int, head: str = "", outputs: int = 3) -> Model:
    """Two inputs, two hidden layers of 8."""
    rng = np.random.default_rng(seed)
    sizes = [2, 8, 8, outputs]
    nodes, weights, x = [], [], "x"
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights += [
            numpy_helper.from_array((rng.normal(size=(b, a)) / np.sqrt(a) * 1.5).astype(np.float32), f"w{i}"),
            numpy_helper.from_array((rng.normal(size=b) * 0.5).astype(np.float32), f"b{i}"),
        ]
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        x = f"z{i}"
        if i < 2:
            nodes.append(helper.make_node("Relu", [x], [f"h{i}"]))
            x = f"h{i}"
    if head:
        nodes.append(helper.make_node(head, [x], ["y"]))
        x = "y"
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", outputs])], weights,
    )  # fmt: skip
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def unit_box(*clauses: Clause, outputs: int = 3) -> Property:
    return Property((Case(np.zeros(2), np.ones(2), clauses),), (1, 2), (1, outputs))


def clause(*rows: tuple[list[float], float], strict: bool = False) -> Clause:
    return Clause(np.array([a for a, _ in rows]), np.array([b for _, b in rows]), np.full(len(rows), strict))


def check(model: Model, question: Property, options: VerifyOptions, wanted: str) -> None:
    result = decide_property(model, question, options)
    assert result.status == wanted, result.reason
    if wanted == "violated":
        assert result.witness is not None
        assert result.witness.confirmed
        x, y = read_witness(result.vnncomp_text(), question)
        replayed = Runtime(model).raw(x.reshape(1, *model.input_shape).astype(np.float32), one_by_one=True)
        assert question.satisfied_by(x, replayed)
        assert y is not None
        assert np.array_equal(y, replayed.reshape(-1).astype(np.float64))
    else:
        assert result.vnncomp_text() == "unsat\n"
        assert all(mark == "proved" for case in result.clauses for mark in case)


@pytest.mark.parametrize("options", list(WAYS.values()), ids=list(WAYS))
@pytest.mark.parametrize("seed", range(4))
def test_single_rows_near_their_optimum(seed: int, options: VerifyOptions) -> None:
    model = network(seed)
    y = Runtime(model).logits(grid(2, 201).astype(np.float32)).astype(np.float64)
    margin = y[:, 0] - y[:, 1]
    room = margin.max() - margin.min()
    # a row that the grid reaches, and one beyond what lies between two points of the grid
    check(model, unit_box(clause(([-1, 1, 0], -(margin.max() - 0.01 * room)))), options, "violated")
    check(model, unit_box(clause(([-1, 1, 0], -(margin.max() + 0.05 * room)))), options, "proved")


@pytest.mark.parametrize("options", list(WAYS.values()), ids=list(WAYS))
@pytest.mark.parametrize("seed", range(4))
def test_conjunctions_near_their_optimum(seed: int, options: VerifyOptions) -> None:
    model = network(seed)
    y = Runtime(model).logits(grid(2, 201).astype(np.float32)).astype(np.float64)
    both = np.minimum(y[:, 0] - y[:, 1], y[:, 2] - 0.5 * y[:, 0])
    room = both.max() - both.min()
    for move, wanted in ((-0.01, "violated"), (0.05, "proved")):
        t = both.max() + move * room
        check(model, unit_box(clause(([-1, 1, 0], -t), ([0.5, 0, -1], -t))), options, wanted)


def test_disjunctions_and_several_boxes() -> None:
    model = network(1)
    y = Runtime(model).logits(grid(2, 201).astype(np.float32)).astype(np.float64)
    top = y.max(0)
    never = clause(([-1, 0, 0], -(top[0] + 1)))
    reached = clause(([0, 0, -1], -(top[2] - 0.02)))
    for options in (EXACT, MILP):
        check(model, unit_box(never, never, reached), options, "violated")
    where = grid(2, 201)[int(y[:, 2].argmax())]
    near, far = np.clip([where - 0.05, where + 0.05], 0, 1), np.array([[0.0, 0.0], [1.0, 1.0]])
    boxes = Property((Case(far[0], far[1], (never,)), Case(near[0], near[1], (never, reached))), (2,), (3,))
    check(model, boxes, VerifyOptions(), "violated")
    check(model, Property(boxes.cases[:1], (2,), (3,)), VerifyOptions(), "proved")


def test_a_strict_row_is_not_satisfied_by_a_tie() -> None:
    """`y_0 < y_0'` where both are the same function: satisfied everywhere as `<=`, nowhere as `<`."""
    w = numpy_helper.from_array(np.array([[1.0, 2.0], [1.0, 2.0]], dtype=np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])], [w],
    )  # fmt: skip
    model = load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))
    check(model, unit_box(clause(([1, -1], 0.0)), outputs=2), EXACT, "violated")
    result = decide_property(model, unit_box(clause(([1, -1], 0.0), strict=True), outputs=2), VerifyOptions())
    assert result.status == "unknown"
    assert result.witness is not None
    assert result.witness.kind == "rejected"
    assert result.vnncomp == "unknown"


def test_a_box_without_a_float32_inside() -> None:
    """0.1 is no float32: the network is fed the nearest one, and the witness names 0.1."""
    model = network(2)
    box = Case(np.array([0.1, 0.3]), np.array([0.1, 0.3]), (clause(([-1, 0, 0], 100.0)),))
    check(model, Property((box,), (2,), (3,)), VerifyOptions(), "violated")


def test_heads() -> None:
    for head, outputs in (("Softmax", 3), ("Sigmoid", 1)):
        model = network(3, head, outputs)
        assert model.stripped
        y = Runtime(model).raw(grid(2, 101).astype(np.float32)).reshape(-1, outputs)
        if outputs == 1:
            rows = [clause(([-1.0], -0.5)), clause(([1.0], 0.5))]
            reached = [bool((y >= 0.5).any()), bool((y <= 0.5).any())]
        else:
            rows = [clause(([1.0, -1.0, 0.0], 0.0)), clause(([0.0, 1.0, -1.0], 0.0))]
            reached = [bool((y[:, 0] <= y[:, 1]).any()), bool((y[:, 1] <= y[:, 2]).any())]
        for row, found in zip(rows, reached, strict=True):
            check(model, unit_box(row, outputs=outputs), EXACT, "violated" if found else "proved")
        with pytest.raises(InputError, match=f"ends in a {head}"):
            decide_property(model, unit_box(clause(([1.0] * outputs, 0.3)), outputs=outputs))


def test_random_networks_never_contradict_samples() -> None:
    """`proved` although a sampled input satisfies the property would be unsound."""
    rng = np.random.default_rng(0)
    decided = []
    for seed in range(8):
        model = load_model(random_model(seed, activations=("Relu", "LeakyRelu"), classes=3))
        n = int(np.prod(model.input_shape))
        centre = rng.random(n)
        low, high = centre - 0.1, centre + 0.1
        corners = np.where(rng.random((500, n)) < 0.5, low, high)
        points = np.concatenate([rng.uniform(low, high, (500, n)), corners]).astype(np.float32)
        points = points[((low <= points) & (points <= high)).all(1)]
        y = Runtime(model).logits(points.reshape(-1, *model.input_shape)).astype(np.float64)
        margin = np.maximum(y[:, 1] - y[:, 0], y[:, 2] - y[:, 0])
        shift = float(rng.choice([margin.max() - 1e-3, margin.max() + 1e-2]))
        rows = (clause(([1, -1, 0], -shift)), clause(([1, 0, -1], -shift)))
        question = Property((Case(low, high, rows),), (n,), (3,))
        result = decide_property(model, question, VerifyOptions(Limits(timeout=60, threads=1)))
        decided.append(result.status)
        reached = any(question.satisfied_by(x, v) for x, v in zip(points, y, strict=True))
        assert not (reached and result.status == "proved")
        if result.status == "violated":
            assert result.witness is not None
            fed = result.witness.x.astype(np.float32).reshape(1, *model.input_shape)
            assert question.satisfied_by(result.witness.x, Runtime(model).logits(fed))
    assert decided.count("unknown") == 0
    assert {"violated", "proved"} <= set(decided)


def test_rows_of_a_network() -> None:
    model = network(0)
    clauses = (clause(([1, -1, 0], 0.0), ([0, 1, -1], 2.0)), clause(([1, -1, 0], 0.0)))
    rows = row_set(clauses)
    assert rows.clauses == ((0, 1), (0,))
    import torch

    x = grid(2, 5)
    f = lower(model)
    y = f.forward(torch.as_tensor(x)).numpy()
    found = as_margin_network(f, rows).forward(torch.as_tensor(x)).numpy()
    assert np.abs(found[:, :2] - (rows.b - y @ rows.A.T)).max() <= 1e-12
    assert not found[:, 2].any()


def test_a_time_limit_ends_it(data_dir: Path) -> None:
    model = load_model(data_dir / "nets" / "mnist-net_256x2.onnx")
    p = load_property(data_dir / "vnnlib" / "mnistfc21" / "prop_1_0.03.vnnlib.gz", model)
    result = decide_property(model, p, VerifyOptions(Limits(timeout=0.001)))
    assert (result.status, result.timed_out, result.vnncomp_text()) == ("unknown", True, "timeout\n")
    document = result.to_json()
    assert document["schema"] == "onnxsub.verify/2"
    assert document["clauses"] == [["unknown"] * 9]
    assert "time limit" in document["reason"]


def test_a_property_of_another_network_is_refused() -> None:
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= 0 X_0 1))(assert (<= Y_0 0))"
    with pytest.raises(InputError, match="1 inputs are declared"):
        decide_property(network(0), parse_property(text))


VERDICTS = [
    ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21", "prop_2_0.03"),
    ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21", "prop_7_0.03"),
    ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21", "prop_0_0.03"),
    ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21", "prop_1_0.05"),
    ("vnncomp2021_marabou_small", "cifar10_small", "marabou21", "index1189_eps0.012"),
    ("vnncomp2021_marabou_small", "cifar10_small", "marabou21", "index8498_eps0.024"),
    ("vnncomp2021_oval21_base", "cifar_base_kw", "oval21_2021", "img4549"),
    ("vnncomp2021_oval21_base", "cifar_base_kw", "oval21_2021", "img1598"),
    ("vnncomp2021_resnet_2b", "resnet_2b", "cifar10_resnet21", "prop_2_eps_0.008"),
]
SLOW = [
    ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21", "prop_6_0.05"),
    ("vnncomp2021_oval21_base", "cifar_base_kw", "oval21_2021", "img4631"),
    ("vnncomp2021_oval21_base", "cifar_base_kw", "oval21_2021", "img2908"),
    ("vnncomp2021_resnet_2b", "resnet_2b", "cifar10_resnet21", "prop_3_eps_0.008"),
]


@pytest.mark.parametrize(
    ("truth", "net", "folder", "name"),
    [*VERDICTS, *(pytest.param(*s, marks=pytest.mark.slow) for s in SLOW)],
    ids=[v[3] for v in (*VERDICTS, *SLOW)],
)
def test_published_verdicts(data_dir: Path, truth: str, net: str, folder: str, name: str) -> None:
    with (data_dir / "gt" / f"{truth}.csv").open() as file:
        (row,) = [r for r in csv.DictReader(file) if name in r["vnnlib"]]
    model = load_model(data_dir / "nets" / f"{net}.onnx")
    question = load_property(data_dir / "vnnlib" / folder / f"{Path(row['vnnlib']).name}.gz", model)
    result = decide_property(model, question, VerifyOptions(Limits(timeout=300, threads=1)))
    assert result.vnncomp == row["verdict"], result.reason


def test_models_of_other_number_types() -> None:
    """A float64 file is fed float64, so its witness is exact there."""
    w = numpy_helper.from_array(np.array([[1.0, -1.0], [0.0, 0.0]]), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 2])], [w],
    )  # fmt: skip
    proto: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    model = load_model(proto)
    question = unit_box(clause(([-1.0, 0.0], -0.9)), outputs=2)
    result = decide_property(model, question, EXACT)
    assert result.status == "violated"
    assert result.witness is not None
    assert question.satisfied_by(result.witness.x, Runtime(model).raw(result.witness.x.reshape(1, 2)))
