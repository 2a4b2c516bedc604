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
    read_extremes,
    read_functions,
    read_movement,
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
    "ConvTranspose": conv.read_conv_transpose,
    "Div": elementwise.read_div,
    "Dropout": read_movement.read_dropout,
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
    "Max": read_extremes.read_max,
    "MaxPool": maxpool.read_max_pool,
    "Min": read_extremes.read_min,
    "Mish": read_functions.read_mish,
    "Mul": elementwise.read_mul,
    "Neg": elementwise.read_neg,
    "PRelu": leaky.read_prelu,
    "Pad": read_movement.read_pad,
    "ReduceMax": read_extremes.read_reduce_max,
    "ReduceMean": reduce.read_reduce_mean,
    "ReduceMin": read_extremes.read_reduce_min,
    "ReduceSum": reduce.read_reduce_sum,
    "Relu": relu.read_relu,
    "Reshape": read_movement.read_view,
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
})  # fmt: skip
