"""Tensors without elements: the model is read as if they were not there, by every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from onnxsub.errors import ModelError
from onnxsub.layouts import LAYOUTS
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.model_info import info
from onnxsub.passes.attack import attack
from onnxsub.passes.bounds import BoundsOptions, bounds
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from onnxsub.verifiers.distance import distance
from onnxsub.verifiers.verify import verify

_RNG = np.random.default_rng(8)
_W1, _B1 = _RNG.normal(size=(4, 6)).round(2), _RNG.normal(size=6).round(2)
_W2, _B2 = _RNG.normal(size=(6, 3)).round(2), _RNG.normal(size=3).round(2)
_X0 = _RNG.random((4,)).astype(np.float32)


def _numbers(values: np.ndarray) -> str:
    return ", ".join(repr(float(v)) for v in values.reshape(-1))


def _model(front: str, back: str = "y = Gemm (t, W2, b2)", shape: str = "4", more: str = "", result: str = "3") -> onnx.ModelProto:
    """A network of six Relus; `front` makes `flat` of the input x, `back` makes y of the activations t."""
    return parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[1,{shape}] x) => (float[1,{result}] y)
        <float[4,6] W1 = {{{_numbers(_W1)}}}, float[6] b1 = {{{_numbers(_B1)}}},
         float[6,3] W2 = {{{_numbers(_W2)}}}, float[3] b2 = {{{_numbers(_B2)}}},
         int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[0] none = {{}}, int64[1] all = {{-1}},
         int64[2] parts = {{0, 4}}, int64[2] flat4 = {{1, 4}}, int64[3] empty3 = {{1, 0, 2}}, int64[2] empty2 = {{1, 0}}
         {more}>
        {{
            {front}
            h = Gemm (flat, W1, b1)
            t = Relu (h)
            {back}
        }}
    """)


_PLAIN = _model("flat = Identity (x)")

_FRONTS = {
    "slice, in front": "e = Slice (x, two, two, one) flat = Concat <axis = 1> (e, x)",
    "slice, behind": "e = Slice (x, two, one, one) flat = Concat <axis = 1> (x, e, e)",
    "slice of the batch": "e = Slice (x, zero, zero, zero) flat = Concat <axis = 0> (x, e)",
    "split with a zero part": "e, a = Split <axis = 1> (x, parts) flat = Concat <axis = 1> (a, e)",
    "empty part unused": "e, flat = Split <axis = 1> (x, parts)",
    "concat of empty parts": """
        e = Slice (x, zero, zero, one) f = Slice (x, two, two, one)
        g = Concat <axis = 1> (e, f) flat = Concat <axis = 1> (g, x, e)""",
    "gather of nothing": "e = Gather <axis = 1> (x, none) flat = Concat <axis = 1> (e, x)",
    "reshape of nothing": """
        e = Slice (x, zero, zero, one) r = Reshape <allowzero = 1> (e, empty3)
        s = Reshape <allowzero = 1> (r, empty2) flat = Concat <axis = 1> (s, x)""",
    "what is done with nothing": """
        e = Slice (x, zero, zero, one) r = Relu (e) s = Softmax (r) u = Transpose <perm = [0, 1]> (s)
        flat = Concat <axis = 1> (u, x)""",
    "between pieces": """
        a = Slice (x, zero, two, one) e = Slice (x, two, two, one) b = Slice (x, two, last, one)
        flat = Concat <axis = 1> (a, e, b)""",
}


def _fronted(name: str) -> onnx.ModelProto:
    front = _FRONTS[name]
    if "allowzero" not in front:
        return _model(front, more=", int64[1] last = {4}")
    proto = _model(front, more=", int64[1] last = {4}")
    proto.opset_import[0].version = 14  # the first opset of allowzero
    return proto


@pytest.mark.parametrize("name", _FRONTS)
def test_the_network_is_the_one_without_them(name: str) -> None:
    model, plain = load_model(_fronted(name)), load_model(_PLAIN)
    assert info(model).unsupported == ()
    assert all(0 not in shape for shape in lower(model).shapes.values())
    x = np.random.default_rng(0).random((1, 4)).astype(np.float32)
    np.testing.assert_array_equal(Runtime(model).logits(x), Runtime(plain).logits(x))
    ours, theirs = make_query(model, _X0), make_query(plain, _X0)
    d = distance(theirs)
    assert d.status == "exact"
    found = distance(ours)
    assert (found.status, found.lower) == ("exact", pytest.approx(d.lower, rel=1e-9))
    assert attack(ours).d_adv == attack(theirs).d_adv
    assert verify(ours, 0.9 * d.lower).status == "proved"
    assert verify(ours, 1.1 * d.upper).status == "violated"
    a, b = (bounds(q, BoundsOptions(eps=0.1)) for q in (ours, theirs))
    # a Slice that is left costs one more outward step of 1e-9
    np.testing.assert_allclose(a.layers[0].lower, b.layers[0].lower, atol=2e-8)
    np.testing.assert_allclose(a.output[1], b.output[1], atol=2e-8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["concat of empty parts", "split with a zero part", "reshape of nothing"])
def test_every_layout_is_written(name: str, layout: str) -> None:
    query = make_query(load_model(_fronted(name)), _X0)
    substitute = prune(query, PruneOptions(method="lin", select=SelectOptions(gamma=0.5), layout=layout))
    written = load_model(substitute.proto)
    assert info(written).unsupported == ()
    x = _X0[None]
    np.testing.assert_allclose(Runtime(written).logits(x), Runtime(query.model).logits(x), atol=1e-5)


def test_a_sum_over_nothing_is_zero() -> None:
    """As onnxruntime has it: a Gemm of nothing is its bias, a MatMul and a ReduceSum of nothing are zero."""
    back = """
        e = Slice (t, zero, zero, one) m = MatMul (e, V) s = ReduceSum (e, one) q = Gemm (e, V, b2)
        l = Gemm (t, W2, b2) k = Add (l, m) j = Add (k, q) y = Add (j, s)"""
    model = load_model(_model("flat = Identity (x)", back, more=", float[0,3] V = {}"))
    network = lower(model)
    x = np.random.default_rng(1).random((5, 4)).astype(np.float32)
    with torch.no_grad():
        ours = network.forward(torch.as_tensor(x, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(ours, Runtime(model).logits(x), atol=1e-5)


@pytest.mark.parametrize(
    ("back", "result"),
    [
        ("e = Slice (t, zero, zero, one) m = ReduceMax <axes = [1]> (e) l = Gemm (t, W2, b2) y = Add (l, m)", "3"),
        ("e = Slice (t, zero, zero, one) m = ReduceMean <axes = [1]> (e) l = Gemm (t, W2, b2) y = Add (l, m)", "3"),
        ("e = Slice (t, zero, zero, one) m = Pad (e, pads) l = Gemm (t, W2, b2) y = Add (l, m)", "3"),
        ("y = Slice (t, zero, zero, one)", "0"),
        ("l = Gemm (t, W2, b2) y = Slice (l, two, two, one)", "0"),
        ("e = Slice (t, zero, zero, one) y = Gemm (e, V, b2)", "3"),  # nothing of the input is left
    ],
)
def test_what_nothing_has_no_value_for_is_refused(back: str, result: str) -> None:
    more = ", float[0,3] V = {}, int64[4] pads = {0, 0, 0, 3}"
    with pytest.raises(ModelError) as caught:
        load_model(_model("flat = Identity (x)", back, more=more, result=result))
    message = str(caught.value)
    assert "\n" not in message
    assert "empty" in message or "no operator leads from input" in message


def test_an_empty_input_is_refused() -> None:
    proto = _model("flat = Reshape (x, flat4)", shape="0")
    with pytest.raises(ModelError, match="is empty"):
        load_model(proto)


def test_annotated_bounds_are_written(tmp_path: Path) -> None:
    from onnxsub.passes.annotate import save_annotated

    query = make_query(load_model(_fronted("concat of empty parts")), _X0)
    result = bounds(query, BoundsOptions(eps=0.05))
    save_annotated(query.model, result, str(tmp_path / "a.onnx"))
    assert info(str(tmp_path / "a.onnx")).units == 6
