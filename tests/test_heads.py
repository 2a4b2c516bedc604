"""Files that end in a head: what is called strict is strict in the file's own float32 output too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.instance import Instance
from onnxsub.metrics.local import decide_local, make_property
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import attack
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import distance
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.verify import verify

_HEADS = {
    "Softmax of small logits": ((2.0**-12, "Softmax"), 3),
    "Softmax of tiny logits": ((2.0**-18, "Softmax"), 4),
    "LogSoftmax of small logits": ((2.0**-14, "LogSoftmax"), 3),
    "Softmax of large logits": ((200.0, "Softmax"), 3),
    "Softmax in half precision": ((1.0, "Softmax", "half"), 3),
    "Sigmoid of a small score": ((2.0**-20, "Sigmoid"), 1),
}


def _model(name: str, seed: int) -> onnx.ModelProto:
    """Eight inputs, twelve Relus, then `scale` and the head."""
    (scale, head, *half), classes = _HEADS[name]
    rng = np.random.default_rng(seed)
    values = {
        "W1": rng.normal(size=(8, 12)), "b1": 0.3 * rng.normal(size=12), "W2": rng.normal(size=(12, classes)),
        "b2": 0.3 * rng.normal(size=classes), "scale": np.array(scale),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "W1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "W2", "b2"], ["f"]),
        helper.make_node("Mul", ["f", "scale"], ["z"]),
        helper.make_node(head, ["z"], ["p" if half else "y"]),
    ]
    if half:
        nodes.append(helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT16))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16 if half else TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def _query(name: str, seed: int) -> Query:
    return make_query(load_model(_model(name, seed)), np.random.default_rng(100 + seed).random(8).astype(np.float32))


def _own(name: str, seed: int, x: Array) -> Array:
    """What anybody gets who runs the file on that point alone; a single score s as `(1 - s, s)`."""
    session = onnxruntime.InferenceSession(_model(name, seed).SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x[None].astype(np.float32)})
    row = y.reshape(-1).astype(np.float64)
    return row if len(row) > 1 else np.array([0.5, row[0]])


def _strict(own: Array, label: int) -> bool:
    return bool(np.delete(own, label).max() > own[label])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", _HEADS)
def test_a_strict_point_is_strict_in_the_files_own_output(name: str, seed: int) -> None:
    query = _query(name, seed)
    assert query.predicted == _own(name, seed, query.x0).argmax()
    found = attack(query)
    assert found.found
    assert found.x_adv is not None
    assert found.margin > 0
    assert _strict(_own(name, seed, found.x_adv), query.label)
    answer = distance(query)
    assert answer.witness is not None
    assert answer.witness.confirmed
    assert answer.lower <= answer.upper <= found.d_adv
    if answer.witness.kind == "strict":
        assert _strict(_own(name, seed, answer.witness.x), query.label)
    else:
        assert answer.witness.margin <= 0
    decided = verify(query, 1.001 * found.d_adv)
    assert decided.status == "violated"
    assert decided.witness is not None
    assert decided.witness.kind == ("strict" if _strict(_own(name, seed, decided.witness.x), query.label) else "tie")
    verdict = decide_local(query, make_property("cr", 1.001 * found.d_adv))
    assert verdict.status == "violated"
    assert verdict.value is not None
    assert verdict.value <= 0


@pytest.mark.parametrize("name", ["Softmax of tiny logits", "Softmax in half precision", "Sigmoid of a small score"])
def test_points_before_the_head_can_tell_are_ties(name: str) -> None:
    """Points on the way to a strict one whose logits have another class in front, and whose own output does not."""
    query = _query(name, 0)
    found = attack(query)
    assert found.x_adv is not None
    x0, x1 = query.x0.astype(np.float64), found.x_adv.astype(np.float64)
    line = query.space.inside(x0 + np.concatenate([np.linspace(0.9, 1.0, 200), np.linspace(0.999, 1.0, 200)])[:, None] * (x1 - x0))
    logits = query.logits(line)
    ahead = [not _strict(_own(name, 0, x), query.label) for x in line]
    lead = np.delete(logits, query.label, axis=1).max(axis=1) - logits[:, query.label]
    between = np.flatnonzero((lead > 0) & np.array(ahead))
    assert len(between) > 0, "the example does not show what it should"
    margins, targets = query.margins(line[between])
    assert (margins == 0).all()
    assert (targets != query.label).all()
    referee = Referee(Instance.of(query))
    assert {w.kind for w in referee.judge(line[between])} == {"tie"}
    others = np.setdiff1d(np.arange(len(line)), between)
    np.testing.assert_array_equal(query.judged(line[others]), query.logits(line[others]))


def test_a_file_without_a_head_is_judged_by_its_logits() -> None:
    proto = _model("Softmax of small logits", 0)
    del proto.graph.node[-1]
    proto.graph.node[-1].output[0] = "y"
    query = make_query(load_model(proto), np.full(8, 0.5, dtype=np.float32))
    x = np.random.default_rng(0).random((50, 8)).astype(np.float32)
    np.testing.assert_array_equal(query.judged(x), query.logits(x))


def test_only_one_sigmoid_is_a_head() -> None:
    """`sigmoid(sigmoid(z)) >= 1/2` is `sigmoid(z) >= 0`, which is always true: the inner one stays."""
    proto = _model("Sigmoid of a small score", 0)
    proto.graph.node[-1].output[0] = "s"
    proto.graph.node.append(helper.make_node("Sigmoid", ["s"], ["y"]))
    model = load_model(proto)
    assert model.output == "s"
    query = make_query(model, np.full(8, 0.5, dtype=np.float32))
    assert query.predicted == 1
    assert distance(query).status == "none"


def test_the_command_says_strict_of_strict_points_only(tmp_path: Path) -> None:
    from onnxsub.cli.main import run

    name = "Softmax of tiny logits"
    onnx.save(_model(name, 1), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", _query(name, 1).x0)
    where = [str(tmp_path / "m.onnx"), "--x0", str(tmp_path / "x.npy"), "-o", str(tmp_path / "w.npy")]
    assert run(["attack", *where]) == 0
    assert _strict(_own(name, 1, np.load(tmp_path / "w.npy").reshape(-1)), _query(name, 1).label)
