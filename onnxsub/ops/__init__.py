"""The operator table: ONNX operator type -> reader. What is not here is refused by name; nothing is ever skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from onnxsub.ops import (
    average,
    choose,
    clip,
    combine,
    conv,
    dense,
    elementwise,
    leaky,
    maxpool,
    read_functions,
    read_movement,
    read_selections,
    reduce,
    relu,
    resize,
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
    "DepthToSpace": read_selections.read_depth_to_space,
    "Div": elementwise.read_div,
    "Dropout": read_movement.read_dropout,
    "Elu": read_functions.read_elu,
    "Erf": smooth.read_erf,
    "Expand": choose.read_expand,
    "Flatten": read_movement.read_view,
    "Gather": read_movement.read_gather,
    "GatherElements": read_selections.read_gather_elements,
    "GatherND": read_selections.read_gather_nd,
    "Gelu": read_functions.read_gelu,
    "Gemm": dense.read_gemm,
    "GlobalAveragePool": reduce.read_global_average,
    "GlobalMaxPool": maxpool.read_global_max_pool,
    "HardSigmoid": read_functions.read_hard_sigmoid,
    "HardSwish": read_functions.read_hard_swish,
    "Identity": read_movement.read_view,
    "LeakyRelu": leaky.read_leaky_relu,
    "MatMul": dense.read_matmul,
    "MaxPool": maxpool.read_max_pool,
    "Mish": read_functions.read_mish,
    "Mul": elementwise.read_mul,
    "Neg": elementwise.read_neg,
    "PRelu": leaky.read_prelu,
    "Pad": read_movement.read_pad,
    "ReduceMean": reduce.read_reduce_mean,
    "ReduceSum": reduce.read_reduce_sum,
    "Relu": relu.read_relu,
    "Reshape": read_movement.read_view,
    "Resize": resize.read_resize,
    "ScatterElements": read_selections.read_scatter_elements,
    "ScatterND": read_selections.read_scatter_nd,
    "Selu": read_functions.read_selu,
    "Sigmoid": smooth.read_sigmoid,
    "Slice": read_movement.read_slice,
    "Softplus": read_functions.read_softplus,
    "Softsign": smooth.read_softsign,
    "SpaceToDepth": read_selections.read_space_to_depth,
    "Split": read_movement.read_split,
    "Squeeze": read_movement.read_squeeze,
    "Sub": combine.read_sub,
    "Sum": combine.read_sum,
    "Swish": read_functions.read_swish,
    "Tanh": smooth.read_tanh,
    "Tile": read_selections.read_tile,
    "Transpose": read_movement.read_transpose,
    "Trilu": choose.read_trilu,
    "Unsqueeze": read_movement.read_unsqueeze,
    "Upsample": resize.read_upsample,
    "Where": choose.read_where,
})  # fmt: skip
