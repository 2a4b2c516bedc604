"""The operator table: ONNX operator type -> reader. What is not here is refused by name; nothing is ever skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from onnxsub.ops import (
    average,
    clip,
    combine,
    conv,
    dense,
    elementwise,
    leaky,
    maxpool,
    read_functions,
    read_movement,
    read_quantize,
    reduce,
    relu,
    smooth,
)  # fmt: skip
from onnxsub.ops.base import Operator
from onnxsub.ops.node import Node

__all__ = ["READERS", "Reader"]

Reader = Callable[[Node], tuple[Operator, ...]]
"""Turns one node into the operators that write its outputs; raises `UnsupportedOperatorError` for what it cannot express."""

READERS: Mapping[str, Reader] = MappingProxyType({
    "Abs": leaky.read_abs,
    "Add": combine.read_add,
    "AveragePool": average.read_average_pool,
    "BatchNormalization": elementwise.read_batch_normalization,
    "Cast": read_movement.read_cast,
    "Celu": read_functions.read_celu,
    "Clip": clip.read_clip,
    "Concat": combine.read_concat,
    "Conv": conv.read_conv,
    "ConvInteger": read_quantize.read_conv_integer,
    "ConvTranspose": conv.read_conv_transpose,
    "DequantizeLinear": read_quantize.read_dequantize,
    "Div": elementwise.read_div,
    "Dropout": read_movement.read_dropout,
    "DynamicQuantizeLinear": read_quantize.read_dynamic_quantize,
    "Elu": read_functions.read_elu,
    "Erf": smooth.read_erf,
    "Flatten": read_movement.read_view,
    "Gather": read_movement.read_gather,
    "Gelu": read_functions.read_gelu,
    "Gemm": dense.read_gemm,
    "GlobalAveragePool": reduce.read_global_average,
    "GlobalMaxPool": maxpool.read_global_max_pool,
    "HardSigmoid": read_functions.read_hard_sigmoid,
    "HardSwish": read_functions.read_hard_swish,
    "Identity": read_movement.read_view,
    "LeakyRelu": leaky.read_leaky_relu,
    "MatMul": dense.read_matmul,
    "MatMulInteger": read_quantize.read_matmul_integer,
    "MaxPool": maxpool.read_max_pool,
    "Mish": read_functions.read_mish,
    "Mul": elementwise.read_mul,
    "Neg": elementwise.read_neg,
    "PRelu": leaky.read_prelu,
    "Pad": read_movement.read_pad,
    "QLinearConv": read_quantize.read_qlinear_conv,
    "QLinearMatMul": read_quantize.read_qlinear_matmul,
    "QuantizeLinear": read_quantize.read_quantize,
    "ReduceMean": reduce.read_reduce_mean,
    "ReduceSum": reduce.read_reduce_sum,
    "Relu": relu.read_relu,
    "Reshape": read_movement.read_view,
    "Round": read_quantize.read_round,
    "Selu": read_functions.read_selu,
    "Sigmoid": smooth.read_sigmoid,
    "Slice": read_movement.read_slice,
    "Softplus": read_functions.read_softplus,
    "Softsign": smooth.read_softsign,
    "Split": read_movement.read_split,
    "Squeeze": read_movement.read_squeeze,
    "Sub": combine.read_sub,
    "Sum": combine.read_sum,
    "Swish": read_functions.read_swish,
    "Tanh": smooth.read_tanh,
    "Transpose": read_movement.read_transpose,
    "Unsqueeze": read_movement.read_unsqueeze,
    "com.microsoft.QGemm": read_quantize.read_qgemm,
    "com.microsoft.QLinearAdd": read_quantize.read_qlinear_add,
    "com.microsoft.QLinearAveragePool": read_quantize.read_qlinear_average,
    "com.microsoft.QLinearGlobalAveragePool": read_quantize.read_qlinear_average,
})  # fmt: skip
