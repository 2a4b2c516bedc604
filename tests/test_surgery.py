from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.errors import ModelError
from onnxsub.surgery import annotate, edit

F = TensorProto.FLOAT


def nothing(graph: gs.Graph) -> None:
    """A change that changes nothing."""


def tidy(graph: gs.Graph) -> None:
    graph.cleanup().toposort()


def props(item: object, **values: str) -> None:
    helper.set_model_props(item, {f"test.{k}": v for k, v in values.items()})  # type: ignore[arg-type]


def rich() -> ModelProto:
    """A model in which every field is filled that a round trip could lose."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.normal(size=(4, 3)).astype(np.float32), "w")
    w.doc_string = "weights"
    props(w, of="w")
    b = helper.make_tensor("b", F, [3], [0.5, -0.25, 0.125])  # float_data, not raw
    spare = helper.make_tensor("spare", F, [1], [1.0])
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="dense", doc_string="first", alpha=1.0, transB=0),
        helper.make_node("Constant", [], ["c"], name="const", value=numpy_helper.from_array(np.ones(3, np.float32), "inner")),
        helper.make_node("Relu", ["z"], ["h"], name="", doc_string="act"),
        helper.make_node("Twice", ["h"], ["t"], name="f", domain="test.functions"),
        helper.make_node("Clip", ["t", "", "six"], ["k"]),
        helper.make_node("Add", ["k", "c"], ["y"], name="last"),
    ]
    nodes[0].attribute[0].doc_string = "one"
    props(nodes[0], width="3")
    props(nodes[2], stable="2")
    x = helper.make_tensor_value_info("x", F, ["batch", 4], doc_string="pixels")
    x.type.denotation = "IMAGE"
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    props(x, unit="grey")
    y = helper.make_tensor_value_info("y", F, ["batch", 3], doc_string="logits")
    h = helper.make_tensor_value_info("h", F, ["batch", 3], doc_string="hidden")
    props(h, of="h")
    graph = helper.make_graph(
        nodes,
        "rich",
        [x],
        [y],
        [spare, w, b, helper.make_tensor("six", F, [], [6.0])],
        doc_string="a graph",
        value_info=[h, helper.make_tensor_value_info("w", F, [4, 3])],
    )
    props(graph, graph="yes")
    graph.quantization_annotation.add(tensor_name="h")
    body = [helper.make_node("Add", ["a", "a"], ["r"], doc_string="inside")]
    function = helper.make_function(
        "test.functions", "Twice", ["a"], ["r"], body, [helper.make_opsetid("", 17)], doc_string="doubles"
    )
    proto = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("test.functions", 1), helper.make_opsetid("unused", 3)],
        producer_name="maker",
        producer_version="1.2",
        domain="org.example",
        model_version=7,
        doc_string="a model",
        ir_version=10,
    )
    props(proto, licence="none")
    onnx.checker.check_model(proto)
    return proto


def run(proto: ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(y)


X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def test_the_round_trip_that_this_wrapper_is_for_does_lose_things() -> None:
    """When this fails, graphsurgeon has become lossless and the wrapper can go."""
    proto = rich()
    bare = gs.export_onnx(gs.import_onnx(rich()))
    assert not bare.metadata_props
    assert not any(n.metadata_props for n in bare.graph.node)
    assert bare.domain != proto.domain


def test_no_change_loses_nothing() -> None:
    proto, untouched = rich(), rich()
    assert edit(proto, nothing).SerializeToString(deterministic=True) == untouched.SerializeToString(deterministic=True)
    assert proto == untouched


def test_no_change_on_real_networks(data_dir: Path) -> None:
    for path in sorted((data_dir / "nets").glob("*.onnx")):
        proto = onnx.load(path)
        assert edit(proto, nothing) == proto, path.name
        tidied = edit(proto, tidy)
        onnx.checker.check_model(tidied)
        value = proto.graph.input[0]
        shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        x = np.random.default_rng(2).random(shape).astype(np.float32)
        np.testing.assert_array_equal(run(tidied, x), run(proto, x), err_msg=path.name)


def replace_relu(graph: gs.Graph) -> None:
    (relu,) = [n for n in graph.nodes if n.op == "Relu"]
    (out,) = relu.outputs
    relu.outputs = []
    graph.nodes.append(
        gs.Node("Mul", name="line", inputs=[relu.inputs[0], gs.Constant("slope", np.full(3, 0.5, np.float32))], outputs=[out])
    )
    graph.cleanup().toposort()


def test_a_change_keeps_everything_else() -> None:
    proto = rich()
    changed = edit(proto, replace_relu)
    onnx.checker.check_model(changed)
    assert proto == rich()
    assert sorted(n.op_type for n in changed.graph.node) == ["Add", "Clip", "Constant", "Gemm", "Mul", "Twice"]
    nodes = {n.output[0]: n for n in changed.graph.node}
    for old in proto.graph.node:
        if old.op_type != "Relu":
            assert nodes[old.output[0]] == old
    # the node that writes the tensor now keeps what was noted about it
    assert {p.key: p.value for p in nodes["h"].metadata_props} == {"test.stable": "2"}
    assert nodes["h"].doc_string == "act"
    assert [t.name for t in changed.graph.initializer] == ["spare", "w", "b", "six", "slope"]
    assert list(changed.graph.initializer)[:4] == list(proto.graph.initializer)
    for field in ("input", "output", "value_info", "metadata_props", "quantization_annotation", "doc_string", "name"):
        assert getattr(changed.graph, field) == getattr(proto.graph, field), field
    for field in (
        *("metadata_props", "functions", "opset_import", "ir_version", "domain"),
        *("model_version", "doc_string", "producer_name", "producer_version"),
    ):
        assert getattr(changed, field) == getattr(proto, field), field
    dense = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    expected = np.minimum(X @ dense["w"] + dense["b"], 6) + 1
    np.testing.assert_allclose(run(changed, X), expected, rtol=1e-5)


def test_a_changed_node_keeps_its_unchanged_attributes() -> None:
    def scale(graph: gs.Graph) -> None:
        graph.nodes[0].attrs["alpha"] = 2.0

    first = edit(rich(), scale).graph.node[0]
    assert {a.name: helper.get_attribute_value(a) for a in first.attribute} == {"alpha": 2.0, "transB": 0}
    assert first.attribute[0].doc_string == "one"
    assert first.doc_string == "first"
    assert first.metadata_props[0].value == "3"


def test_a_changed_initializer_keeps_its_notes() -> None:
    def shift(graph: gs.Graph) -> None:
        w = graph.tensors()["w"]
        w.values = w.values + 1

    w = edit(rich(), shift).graph.initializer[1]
    old = rich().graph.initializer[1]
    assert (w.name, w.doc_string, list(w.metadata_props)) == ("w", "weights", list(old.metadata_props))
    np.testing.assert_array_equal(numpy_helper.to_array(w), numpy_helper.to_array(old) + 1)


def test_what_is_removed_leaves_no_trace() -> None:
    def cut(graph: gs.Graph) -> None:
        add = next(n for n in graph.nodes if n.op == "Add")
        gemm = next(n for n in graph.nodes if n.op == "Gemm")
        add.inputs[0] = gemm.outputs[0]
        gemm.outputs[0].dtype = np.float32
        graph.cleanup()

    graph = edit(rich(), cut).graph
    assert [n.op_type for n in graph.node] == ["Gemm", "Constant", "Add"]
    assert [t.name for t in graph.initializer] == ["spare", "w", "b"]
    assert "h" not in [v.name for v in graph.value_info]


def test_the_graph_itself_can_be_renamed_and_get_a_new_output() -> None:
    def change(graph: gs.Graph) -> None:
        graph.name, graph.doc_string, graph.producer_name = "new", "new graph", "someone else"
        relu = next(n for n in graph.nodes if n.op == "Relu").outputs[0]
        graph.outputs = [relu]

    proto = edit(rich(), change)
    assert (proto.graph.name, proto.graph.doc_string, proto.producer_name) == ("new", "new graph", "someone else")
    assert [v.name for v in proto.graph.output] == ["h"]
    assert proto.domain == "org.example"


def old_style(ir: int) -> ModelProto:
    """Initializers listed as inputs, as IR 3 demands."""
    values = {"w": np.ones((4, 3), np.float32), "b": np.zeros(3, np.float32)}
    inputs = [
        helper.make_tensor_value_info("w", F, [4, 3], doc_string="weights"),
        helper.make_tensor_value_info("x", F, ["N", 4]),
        helper.make_tensor_value_info("b", F, [3]),
    ]
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", F, ["N", 3])]
    graph = helper.make_graph(nodes, "old", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in values.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=ir)


@pytest.mark.parametrize("ir", [3, 7])
def test_initializers_listed_as_inputs(ir: int) -> None:
    proto = old_style(ir)
    assert edit(proto, nothing) == proto

    def change(graph: gs.Graph) -> None:
        gemm = graph.nodes[0]
        gemm.op, gemm.inputs = "MatMul", [gemm.inputs[0], gs.Constant("w", np.ones((4, 2), np.float32))]
        replace_relu_with_slope(graph)

    def replace_relu_with_slope(graph: gs.Graph) -> None:
        relu = graph.nodes[1]
        relu.op, relu.inputs = "Mul", [relu.inputs[0], gs.Constant("slope", np.ones(2, np.float32))]
        graph.outputs[0].shape = ["N", 2]

    changed = edit(proto, change)
    onnx.checker.check_model(changed, full_check=True)
    names = [v.name for v in changed.graph.input]
    assert names == (["w", "x", "slope"] if ir == 3 else ["w", "x"])
    assert [d.dim_value for d in changed.graph.input[0].type.tensor_type.shape.dim] == [4, 2]
    assert run(changed, X).shape == (5, 2)


def test_an_error_in_the_change_passes_through() -> None:
    def fail(graph: gs.Graph) -> None:
        raise RuntimeError("no")

    proto = rich()
    with pytest.raises(RuntimeError, match="no"):
        edit(proto, fail)
    assert proto == rich()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    proto = rich()
    proto.graph.node[-1].name = "dense"  # graphsurgeon warns of the second one on standard output
    edit(proto, replace_relu)
    assert capfd.readouterr() == ("", "")


def test_annotate() -> None:
    proto = old_style(7)
    noted = annotate(proto, {"onnxsub.method": "lin"}, {"y": {"onnxsub.bounds.unstable": "3"}})
    assert proto == old_style(7)
    assert noted.ir_version == 10
    assert {p.key: p.value for p in noted.metadata_props} == {"onnxsub.method": "lin"}
    assert [{p.key: p.value for p in n.metadata_props} for n in noted.graph.node] == [{}, {"onnxsub.bounds.unstable": "3"}]
    onnx.checker.check_model(noted)
    np.testing.assert_array_equal(run(noted, X), run(proto, X))
    again = annotate(noted, {"onnxsub.method": "act"}, {"y": {"onnxsub.bounds.unstable": "4"}, "z": {"onnxsub.a": "b"}})
    assert [(p.key, p.value) for p in again.metadata_props] == [("onnxsub.method", "act")]
    assert [[(p.key, p.value) for p in n.metadata_props] for n in again.graph.node] == [
        [("onnxsub.a", "b")],
        [("onnxsub.bounds.unstable", "4")],
    ]
    assert edit(again, nothing) == again


def test_annotate_keeps_what_is_there() -> None:
    noted = annotate(rich(), {"onnxsub.a": "1"}, {})
    assert {p.key: p.value for p in noted.metadata_props} == {"test.licence": "none", "onnxsub.a": "1"}
    assert annotate(old_style(7), {"onnxsub.a": "1"}, {}).ir_version == 7


def test_annotate_refuses() -> None:
    with pytest.raises(ValueError, match=r"'method' does not begin with 'onnxsub\.'"):
        annotate(rich(), {"method": "x"}, {})
    with pytest.raises(ValueError, match="'width'"):
        annotate(rich(), {}, {"h": {"width": "x"}})
    with pytest.raises(ModelError, match="'nowhere'"):
        annotate(rich(), {}, {"nowhere": {"onnxsub.width": "x"}})
