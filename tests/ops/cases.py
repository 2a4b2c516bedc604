"""The table operator x opset x shape that the tests run over."""

from __future__ import annotations

import numpy as np

from tests.ops.cases_movement import MOVEMENT
from tests.ops.tools import Case, Input, ints, random

F32 = np.float32
ALL = (7, 9, 11, 13, 15, 18, 21, 24)


def _conv() -> list[Case]:
    w = random((4, 3, 3, 3))
    found = [
        Case("Conv", ((3, 7, 8), w), opsets=(7, 11, 22)),
        Case("Conv", ((3, 7, 8), w, random((4,))), {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}, (7, 11, 22)),
        Case("Conv", ((3, 7, 8), w, random((4,))), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, (11,)),
        Case("Conv", ((3, 8, 8), w), {"pads": [0, 1, 2, 1], "strides": [2, 3]}, (11,)),
        Case("Conv", ((3, 9, 8), w), {"dilations": [2, 1], "pads": [2, 0, 2, 0]}, (11,)),
        Case("Conv", ((3, 10, 9), w), {"dilations": [2, 2], "strides": [2, 1]}, (11,)),
        Case("Conv", ((4, 6, 6), random((6, 2, 3, 3)), random((6,))), {"group": 2, "pads": [1, 1, 1, 1]}, (11,)),
        Case("Conv", ((4, 6, 6), random((8, 1, 2, 2))), {"group": 4, "strides": [2, 2], "dilations": [2, 1]}, (11,)),
        Case("Conv", ((3, 11), random((5, 3, 4)), random((5,))), {"strides": [2], "pads": [1, 2]}, (11,)),
        Case("Conv", ((3, 11), random((5, 3, 4))), {"auto_pad": "SAME_UPPER", "strides": [3]}, (11,)),
        Case("Conv", ((2, 4, 5, 4), random((3, 2, 2, 2, 2))), {"pads": [1, 0, 0, 0, 1, 0]}, (11,)),
    ]
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        found.append(Case("Conv", ((3, 7, 8), random((4, 3, 2, 4))), {"auto_pad": mode, "strides": [2, 1]}, (7, 11)))
    return found


def _conv_transpose() -> list[Case]:
    w = random((3, 4, 3, 3))
    return [
        Case("ConvTranspose", ((3, 4, 5), w), opsets=(7, 11, 22)),
        Case("ConvTranspose", ((3, 4, 5), w, random((4,))), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}, (11,)),
        Case("ConvTranspose", ((3, 4, 5), w), {"strides": [2, 3], "pads": [0, 1, 2, 0]}, (11,)),
        Case("ConvTranspose", ((3, 4, 5), w), {"dilations": [2, 2], "strides": [1, 2]}, (11,)),
        Case("ConvTranspose", ((4, 3, 3), random((4, 3, 2, 2)), random((6,))), {"group": 2, "strides": [2, 2]}, (11,)),
        Case("ConvTranspose", ((3, 4, 5), w), {"strides": [3, 2], "output_shape": [10, 8]}, (11,)),
        Case("ConvTranspose", ((3, 4, 5), w), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (11,)),
        Case("ConvTranspose", ((3, 4, 5), w), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, (11,)),
        Case("ConvTranspose", ((3, 5), random((3, 2, 4)), random((2,))), {"strides": [2], "pads": [1, 2]}, (11,)),
    ]


def _dense() -> list[Case]:
    return [
        Case("Gemm", ((5,), random((5, 4)), random((4,))), opsets=(7, 9, 13)),
        Case("Gemm", ((5,), random((4, 5)), random((1, 4))), {"transB": 1, "alpha": 0.5, "beta": 2.0}, (7, 9, 13)),
        Case("Gemm", ((5,), random((5, 4)), random((1,))), {"beta": -1.5}, (13,)),
        Case("Gemm", ((5,), random((5, 4))), {"alpha": 0.3}, (13,)),
        Case("MatMul", ((5,), random((5, 4))), opsets=(7, 9, 13)),
        Case("MatMul", ((5,), random((5,))), opsets=(13,)),
        Case("MatMul", ((3, 5), random((5, 4))), opsets=(9, 13)),
        Case("MatMul", ((3, 5), random((1, 5, 4))), opsets=(13,)),
        Case("MatMul", ((2, 3, 5), random((5, 4))), opsets=(13,)),
        Case("MatMul", ((2, 3, 5), random((2, 5, 4))), opsets=(13,)),
        Case("MatMul", ((1, 3, 5), random((2, 5, 4))), opsets=(13,)),
        Case("MatMul", ((2, 3, 5), random((1, 2, 5, 4))), opsets=(13,)),
        Case("MatMul", ((3, 5), random((5,))), opsets=(13,)),
        Case("MatMul", (random((4, 3)), (3, 5)), opsets=(9, 13)),
        Case("MatMul", (random((3,)), (3, 5)), opsets=(13,)),
        Case("MatMul", (random((2, 4, 3)), (2, 3, 5)), opsets=(13,)),
        Case("MatMul", (random((2, 4, 3)), (1, 3, 5)), opsets=(13,)),
        Case("MatMul", (random((1, 4, 3)), (3, 5)), opsets=(13,)),
    ]


def _einsum() -> list[Case]:
    forms: list[tuple[str, tuple[Input, ...]]] = [
        ("bi,oi->bo", ((5,), random((4, 5)))),
        ("bi,io", ((5,), random((5, 4)))),
        ("oi,bi->bo", (random((4, 5)), (5,))),
        ("b t i , i o -> b t o", ((3, 5), random((5, 4)))),
        ("...i,oi->...o", ((2, 3, 5), random((4, 5)))),
        ("bchw,cd->bdhw", ((3, 4, 2), random((3, 5)))),
        ("bchw,c->bchw", ((3, 4, 2), random((3,)))),
        ("bchw,chwo->bo", ((3, 4, 2), random((3, 4, 2, 5)))),
        ("bti,bsi->bts", ((3, 5), (4, 5))),
        ("bqhd,bkhd->bhqk", ((3, 2, 4), (5, 2, 4))),
        ("bhqk,bkhd->bqhd", ((2, 3, 5), (5, 2, 4))),
        ("B...ij,B...jk->B...ik", ((2, 3, 4), (2, 4, 5))),
        ("bi,bi->bi", ((5,), (5,))),
        ("bi,bi->b", ((5,), (5,))),
        ("bi,bj->bij", ((3,), (4,))),
        ("bij,bk->bi", ((3, 4), (2,))),
        ("btij->bji", ((2, 3, 4),)),
        ("bij->bj", ((3, 4),)),
        ("bti,bsi->bts", ((1, 5), (4, 1))),
        ("bi,oij,bj->bo", ((3,), random((4, 3, 2)), (2,))),
        ("ij,bjk,kl->bil", (random((2, 3)), (3, 4), random((4, 5)))),
        ("bi,ij,jk->bk", ((3,), random((3, 4)), random((4, 2)))),
    ]
    return [Case("Einsum", inputs, {"equation": equation}, (12,)) for equation, inputs in forms]


def _elementwise() -> list[Case]:
    found = []
    for op in ("Add", "Sub", "Mul", "Div"):
        for c in (random((3, 1, 1)), random((1, 3, 4, 5)), np.array(1.7, F32), random((5,)), random((4, 1))):
            found.append(Case(op, ((3, 4, 5), c), opsets=(7, 13, 14)))
        found.append(Case(op, ((1, 5), random((4, 1))), opsets=(13,)))
        if op != "Div":
            found.append(Case(op, (random((3, 1, 1)), (3, 4, 5)), opsets=(13,)))
    for op in ("Add", "Sub"):
        found.append(Case(op, ((3, 4), (3, 4)), opsets=(7, 13, 14)))
        found.append(Case(op, ((3, 4), (1, 4)), opsets=(13,)))
        found.append(Case(op, ((3, 1), (1, 4)), opsets=(13,)))
    found += [
        Case("Sum", ((3, 4), random((4,)), (3, 1), random((1, 3, 4))), opsets=(8, 13)),
        Case("Sum", ((3, 4),), opsets=(8, 13)),
        Case("Neg", ((3, 4),), opsets=(7, 13)),
    ]
    for shape in ((3, 4, 5), (3,), (3, 4)):
        gamma, beta, mean = random((3,), 1), random((3,), 2), random((3,), 3)
        variance = np.abs(random((3,), 4)) + F32(0.1)
        found.append(Case("BatchNormalization", (shape, gamma, beta, mean, variance), {"epsilon": 1e-3}, (7, 9, 14, 15)))
    return found


def _activations() -> list[Case]:
    shape = (2, 3, 4)
    found = [Case(op, (shape,), opsets=ALL) for op in ("Relu", "Sigmoid", "Tanh", "Abs", "Softsign", "Softplus")]
    found += [Case("Elu", (shape,), a, (7, 22)) for a in ({}, {"alpha": 1.7}, {"alpha": -0.6}, {"alpha": 0.0})]
    found += [Case("Selu", (shape,), a, (7, 22)) for a in ({}, {"alpha": 1.2, "gamma": 0.7})]
    found += [Case("Celu", (shape,), a, (12,)) for a in ({}, {"alpha": 0.4}, {"alpha": 3.0})]
    found += [Case("HardSigmoid", (shape,), a, (7, 22)) for a in ({}, {"alpha": 0.3, "beta": -0.1}, {"alpha": -0.5})]
    found += [Case("Gelu", (shape,), a, (20,)) for a in ({}, {"approximate": "tanh"}, {"approximate": "none"})]
    found += [Case("Erf", (shape,), opsets=(9, 13)), Case("Mish", (shape,), opsets=(18, 22))]
    found += [Case("HardSwish", (shape,), opsets=(14, 22))]
    found += [Case("Round", (shape,), opsets=(11, 22))]
    found += [Case(op, (shape,), opsets=(7, 13)) for op in ("Floor", "Ceil")]
    found += [Case("Mod", (shape, c), {"fmod": 1}, (10, 13)) for c in (np.array(0.3, F32), np.array([-0.7, 0.2, 1.1, 5.0], F32))]
    found += [Case("QuantizeLinear", (shape, np.array(0.1, F32), np.array(3, np.int8)), opsets=(10, 13, 19, 21, 23))]
    found += [Case("Swish", (shape,), a, (24,)) for a in ({}, {"alpha": 1.7})]
    found += [Case("LeakyRelu", (shape,), {"alpha": a}, (7, 16)) for a in (0.1, 0.0, 1.0, 2.5, -0.5)]
    found += [Case("LeakyRelu", (shape,), opsets=(7, 16))]
    slopes = (random((2, 1, 1)), random((4,), 1, 2.0), random((1, 2, 3, 4), 2, 2.0), np.full((1,), 0.25, F32))
    found += [Case("PRelu", (shape, s), opsets=(7, 9, 16)) for s in slopes]
    found += [Case("Clip", (shape,), {"min": -0.5, "max": 0.75}, (7,), note="attributes")]
    found += [Case("Clip", (shape,), {"min": 0.0}, (7,), note="attributes")]
    for lo, hi in ((0.0, 6.0), (-0.5, 0.5), (None, 0.3), (-0.2, None), (0.5, 0.5), (1.0, -0.5), (-0.5, np.inf)):
        ends = tuple(None if v is None else np.array(v, F32) for v in (lo, hi))
        found.append(Case("Clip", (shape, *ends), opsets=(11, 13), note=f"{lo},{hi}"))
    return found


def _pooling() -> list[Case]:
    found = []
    for op in ("MaxPool", "AveragePool"):
        found += [
            Case(op, ((2, 6, 7),), {"kernel_shape": [2, 2], "strides": [2, 2]}, (7, 10, 12, 22)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, (11,)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 1]}, (11,)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, (10, 11, 19)),
            Case(op, ((2, 7, 8),), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, (11, 19)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (11,)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, (11,)),
            Case(op, ((2, 6, 7),), {"kernel_shape": [2, 3], "auto_pad": "VALID"}, (11,)),
            Case(op, ((2, 9),), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, (7, 11)),
            Case(op, ((1, 4, 5, 4),), {"kernel_shape": [2, 2, 2], "strides": [2, 1, 2]}, (11,)),
        ]
    found += [
        Case("MaxPool", ((2, 7, 8),), {"kernel_shape": [2, 2], "dilations": [2, 3]}, (10, 12)),
        Case("AveragePool", ((2, 7, 8),), {"kernel_shape": [2, 2], "dilations": [2, 3]}, (19, 22)),
        Case("AveragePool", ((2, 6, 7),), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, (7, 11, 22)),
        Case("AveragePool", ((2, 6, 7),), {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "count_include_pad": 1}, (11,)),
        Case(
            "AveragePool", ((2, 7, 8),),
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}, (19, 22),
        ),
        Case("GlobalAveragePool", ((3, 4, 5),), opsets=(7, 22)),
        Case("GlobalMaxPool", ((3, 4, 5),), opsets=(7, 22)),
        Case("GlobalAveragePool", ((3, 4),), opsets=(7,)),
        Case("GlobalLpPool", ((3, 4, 5),), opsets=(7, 13)),
        Case("GlobalLpPool", ((3, 4),), {"p": 1}, (7,)),
        Case("GlobalLpPool", ((3, 4, 5),), {"p": 4}, (7,)),
        Case("LpPool", ((2, 6, 7),), {"kernel_shape": [2, 3], "p": 4}, (18,)),
        Case("LpPool", ((2, 6, 7),), {"kernel_shape": [2, 2], "strides": [2, 2]}, (7, 11, 18, 22)),
        Case("LpPool", ((2, 6, 7),), {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "p": 1}, (11, 18)),
        Case("LpPool", ((2, 9),), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, (11,)),
    ]  # fmt: skip
    return found


def _movement() -> list[Case]:
    shape = (2, 3, 4)
    found = [
        Case("Flatten", (shape,), opsets=(7, 9, 13, 21)),
        Case("Flatten", (shape,), {"axis": -3}, (11, 13)),
        Case("Reshape", (shape, ints(0, -1)), opsets=(7, 13, 19)),
        Case("Reshape", (shape, ints(-1, 6, 4)), opsets=(7, 13)),
        Case("Reshape", (shape, ints(0, 0, 2, -1)), opsets=(13,)),
        Case("Reshape", (shape, ints(1, 24)), opsets=(13,), dynamic=False),
        Case("Transpose", (shape,), {"perm": [0, 2, 3, 1]}, (7, 13)),
        Case("Transpose", (shape,), {"perm": [0, 3, 1, 2]}, (7, 13)),
        Case("Squeeze", ((1, 3, 1),), {"axes": [1, 3]}, (7, 11)),
        Case("Squeeze", ((1, 3, 1), ints(1, -1)), opsets=(13, 21)),
        Case("Unsqueeze", ((3,),), {"axes": [1, 3]}, (7, 11)),
        Case("Unsqueeze", ((3,), ints(1, -1)), opsets=(13, 21)),
        Case("Slice", (shape,), {"starts": [1, 0], "ends": [3, -1], "axes": [2, 3]}, (7, 9)),
        Case("Slice", (shape,), {"starts": [0, 1], "ends": [100, 2]}, (7, 9)),
        Case("Slice", (shape, ints(1, 0), ints(3, -1), ints(2, 3)), opsets=(10, 11, 13)),
        Case("Slice", (shape, ints(0, 3), ints(3, -100), ints(2, 3), ints(2, -1)), opsets=(10, 13)),
        Case("Slice", (shape, ints(-1), ints(-4), ints(-1), ints(-2)), opsets=(11, 13)),
        Case("Slice", (shape, ints(1), ints(2**62), ints(2)), opsets=(13,)),
        Case("Gather", (shape, ints(2, 0, 2, -1)), {"axis": 3}, (7, 11, 13)),
        Case("Gather", (shape, np.array(1, np.int64)), {"axis": 1}, (11, 13)),
        Case("Gather", (shape, np.array([[0, 1], [1, 2]], np.int64)), {"axis": -2}, (11, 13)),
        Case("Pad", (shape,), {"pads": [0, 0, 1, 2, 0, 1, 0, 1], "value": 0.5}, (7,)),
        Case("Pad", (shape, ints(0, 0, 1, 2, 0, 1, 0, 1), np.array(-1.5, F32)), opsets=(11, 13, 18)),
        Case("Pad", (shape, ints(0, 0, 1, 2, 0, 1, 0, 1)), opsets=(11,)),
        Case("Pad", (shape, ints(0, 0, -1, 2, 0, 0, 1, -1)), opsets=(13,)),
        Case("Pad", (shape, ints(1, 2, 0, 1), None, ints(3, -2)), opsets=(18, 21)),
        Case("Identity", (shape,), opsets=(7, 13, 16)),
        Case("Dropout", (shape,), {"ratio": 0.4}, (7, 10)),
        Case("Dropout", (shape, np.array(0.4, F32), np.array(False)), opsets=(12, 13)),
        Case("Cast", (shape,), {"to": 1}, (7, 9, 13)),
        Case("Concat", (shape, (2, 1, 4)), {"axis": 2}, (7, 11, 13)),
        Case("Concat", (random((1, 2, 2, 4)), shape, random((1, 2, 1, 4), 1), (2, 1, 4)), {"axis": -2}, (11,), dynamic=False),
        Case("Concat", (shape, shape, shape), {"axis": 1}, (13,)),
        Case("ReduceMean", (shape,), {"axes": [2, 3]}, (7, 11, 13)),
        Case("ReduceMean", (shape,), {"axes": [-1], "keepdims": 0}, (11, 13)),
        Case("ReduceMean", (shape, ints(1, 3)), {"keepdims": 0}, (18,)),
        Case("ReduceSum", (shape,), {"axes": [1, 2], "keepdims": 0}, (7, 11)),
        Case("ReduceSum", (shape, ints(-2)), opsets=(13,)),
        Case("ReduceSum", (shape,), {"noop_with_empty_axes": 1}, (13,)),
        Case("Split", (shape,), {"axis": 2}, (7, 11), outputs=3),
        Case("Split", (shape,), {"axis": 3, "split": [1, 3]}, (7, 11), outputs=2),
        Case("Split", (shape, ints(3, 1)), {"axis": -1}, (13, 18), outputs=2),
        Case("Split", ((2, 7),), {"axis": 2, "num_outputs": 3}, (18,), outputs=3),
    ]
    for mode in ("reflect", "edge"):
        found.append(Case("Pad", (shape, ints(0, 0, 1, 2, 0, 1, 0, 3)), {"mode": mode}, (11, 13, 18)))
    found.append(Case("Pad", (shape, ints(0, 0, 1, 2, 0, 1, 0, 3)), {"mode": "wrap"}, (19,)))
    return found


def _arithmetic() -> list[Case]:
    shape = (2, 3, 4)
    found = []
    for op, positive in (("Mul", False), ("Div", True)):
        found += [
            Case(op, (shape, shape), opsets=(7, 13, 14), positive=positive),
            Case(op, ((2, 3, 1), (2, 1, 4)), opsets=(13,), positive=positive),
            Case(op, ((2, 1, 1), shape), opsets=(13,), positive=positive),
        ]
    found += [
        Case("Div", (np.array(1.7, F32), shape), opsets=(7, 13), positive=True),
        Case("Div", (random((3, 1)), shape), opsets=(13,), note="c", positive=True),
        Case("MatMul", ((3, 5), (5, 4)), opsets=(7, 9, 13)),
        Case("MatMul", ((2, 3, 5), (2, 5, 4)), opsets=(13,)),
        Case("MatMul", ((1, 3, 5), (2, 5, 4)), opsets=(13,)),
        Case("Exp", (shape,), opsets=(7, 13)),
    ]
    for op, version in (("Log", 7), ("Sqrt", 7), ("Reciprocal", 7)):
        found.append(Case(op, (shape,), opsets=(version, 13), positive=True))
    found += [
        Case("Pow", (shape, np.array([2.0, 1.0, 3.0, 0.0], F32)), opsets=(7, 13), note="vector"),
        Case("Pow", (shape, random((3, 1), 5)), opsets=(13,), note="row", positive=True),
        Case("Pow", ((3, 1), np.array([[2.0, 1.0, 2.0, 4.0]], F32)), opsets=(13,), note="wider"),
        Case("Pow", (np.abs(random((3, 4), 3)) + F32(0.3), shape), opsets=(7, 13)),
        Case("Pow", (shape, (2, 1, 4)), opsets=(13,), positive=True),
        Case("ReduceProd", (shape,), {"axes": [2]}, (7, 11, 13)),
        Case("ReduceProd", (shape, ints(1, -1)), {"keepdims": 0}, (18,)),
        Case("ReduceProd", ((5, 2), ints(1)), opsets=(18,)),
        Case("ReduceLogSum", (shape,), {"axes": [2, 3], "keepdims": 0}, (7, 11, 13), positive=True),
        Case("ReduceLogSum", (shape, ints(-1)), opsets=(18,), positive=True),
        Case("ReduceLogSum", (shape,), {"noop_with_empty_axes": 1}, (18,), positive=True),
        *(
            Case(op, (shape,), {"noop_with_empty_axes": 1}, (18,))
            for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd")
        ),
    ]
    for p in (2.0, 3.0, 4.0, 1.0, 0.0):
        found.append(Case("Pow", (shape, np.array(p, F32)), opsets=(7, 13, 15), note=f"{p}"))
    for p in (0.5, 1.5, -1.0, -2.0, -0.5):
        found.append(Case("Pow", (shape, np.array([p], F32)), opsets=(7, 13), note=f"{p}", positive=True))
    return found


def _normalisations() -> list[Case]:
    shape = (4, 3, 5)
    gamma, beta = random((4,), 1), random((4,), 2)
    found = [
        Case("LayerNormalization", ((3, 6), random((6,)), random((6,), 1)), opsets=(17,)),
        Case("LayerNormalization", ((3, 6), random((6,))), {"epsilon": 1e-2}, (17,)),
        Case("LayerNormalization", ((3, 6), random((3, 6)), random((3, 6), 1)), {"axis": 1}, (17,)),
        Case("LayerNormalization", ((3, 6), random((6,)), random((6,), 1)), {"axis": 2}, (17,), outputs=3),
        Case("LayerNormalization", ((3, 6), random((6,))), {"epsilon": 0.0}, (17,), note="0"),
        Case("RMSNormalization", ((3, 6), random((6,))), {"epsilon": 1e-3}, (23,)),
        Case("InstanceNormalization", (shape, gamma, beta), {"epsilon": 1e-3}, (7, 22)),
        Case("GroupNormalization", (shape, gamma, beta), {"num_groups": 2}, (21,)),
        Case("GroupNormalization", (shape, gamma[:2], beta[:2]), {"num_groups": 2, "epsilon": 1e-3}, (18,), note="groups"),
        Case("LpNormalization", (shape,), opsets=(7, 22)),
        Case("LpNormalization", (shape,), {"axis": 1, "p": 1}, (7, 22)),
        Case("LRN", (shape,), {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 1.5}, (7, 13)),
        Case("LRN", ((7, 2, 2),), {"size": 5, "alpha": 0.3}, (13,)),
    ]
    for op in ("Softmax", "LogSoftmax"):
        found += [
            Case(op, (shape,), opsets=(7, 11, 13)),
            Case(op, (shape,), {"axis": 2}, (7, 11, 13)),
            Case(op, (shape,), {"axis": -1}, (11, 13)),
        ]
    for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"):
        found += [
            Case(op, (shape,), {"axes": [2, 3], "keepdims": 0}, (7, 11, 13)),
            Case(op, (shape, ints(-1)), opsets=(18,)),
        ]
    return found


def _extremes() -> list[Case]:
    image, far = (2, 3, 4), random((1, 2, 3, 4), 7)
    found = [
        Case("Max", (image, (2, 3, 4)), opsets=(7, 8, 12, 13), dynamic=False),
        Case("Max", (image, (2, 1, 4), (1, 3, 1)), opsets=(8, 13), dynamic=False),
        Case("Max", ((5,), (5,), random((1, 5))), opsets=(7, 13), dynamic=False),
        Case("Max", ((2, 1, 4), random((3, 1), 3)), opsets=(13,), dynamic=False),
        Case("Max", ((5,), np.zeros((1, 5), F32)), opsets=(7, 13), dynamic=False),
        Case("Max", ((5,), np.full((1,), 0.25, F32)), opsets=(8, 13)),
        Case("Max", (image, far), opsets=(7, 13), dynamic=False),
        Case("Max", (image,), opsets=(7, 13)),
        Case("Min", (image, (2, 3, 4)), opsets=(7, 13), dynamic=False),
        Case("Min", ((5,), np.full((1,), 0.25, F32), np.full((5,), 0.5, F32)), opsets=(8, 13)),
        Case("Min", (image, far), opsets=(7, 13), dynamic=False),
        Case("Min", ((2, 1, 4), random((3, 1), 3)), opsets=(13,), dynamic=False),
    ]
    for op in ("ReduceMax", "ReduceMin"):
        found += [
            Case(op, (image,), {"axes": [2, 3]}, (7, 11, 13)),
            Case(op, (image,), {"axes": [-1, 1], "keepdims": 0}, (11, 12, 13)),
            Case(op, (image, ints(1, 3)), {"keepdims": 0}, (18, 20)),
            Case(op, ((7,), ints(1)), opsets=(18,)),
        ]
    return [*found, Case("ReduceMax", (image,), {"axes": [1], "keepdims": 0}, (7, 13))]


def _jumps() -> list[Case]:
    shape = (2, 3, 4)
    found = [Case("ThresholdedRelu", (shape,), {"alpha": a}, (10, 22)) for a in (0.5, -0.7, 0.0)]
    found += [Case("ThresholdedRelu", (shape,), {}, (10,)), Case("Sign", (shape,), {}, (9, 13))]
    old, new = (7, 9, 13), (12, 16)
    compared = {"Greater": old, "Less": old, "GreaterOrEqual": new, "LessOrEqual": new, "Equal": (11, 13, 19)}
    for op, opsets in compared.items():
        found += [
            Case(op, (shape, random((3, 1))), {}, opsets),
            Case(op, (np.array(0.3, F32), shape), {}, opsets[-1:]),
            Case(op, ((2, 1, 1), random((3, 4))), {}, opsets[-1:]),
            Case(op, (shape, (2, 1, 4)), {}, opsets[-1:]),
        ]
    found += [Case("Cast", (shape,), {"to": 9}, (9, 13)), Case("Not", (shape,), {}, (7,), truths=(0,))]
    for op in ("And", "Or", "Xor"):
        found += [
            Case(op, (shape, (1, 3, 4)), {}, (7,), truths=(0, 1)),
            Case(op, (shape, np.array([[True], [False], [True]])), {}, (7,), truths=(0,)),
        ]
    return [
        *found,
        Case("Where", (shape, (2, 1, 4), (1, 3, 4)), {}, (9, 16), truths=(0,), note="truth"),
        Case("Where", ((2, 3, 1), random((3, 4)), shape), {}, (16,), truths=(0,), note="truth"),
        Case("Where", (shape, np.array(1.5, F32), random((1, 2, 3, 4))), {}, (16,), truths=(0,), note="truth"),
    ]


CASES = [
    *_dense(), *_einsum(), *_conv(), *_conv_transpose(), *_elementwise(), *_activations(), *_pooling(), *_movement(),
    *_arithmetic(), *_normalisations(), *_extremes(), *_jumps(), *MOVEMENT,
]  # fmt: skip
