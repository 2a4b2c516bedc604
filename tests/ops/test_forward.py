"""Every operator x opset x shape: the value against onnxruntime, at batch 1 and, where the file allows it, at batch 3."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.ops import READERS
from tests.ops.cases import CASES
from tests.ops.tools import Case, run

TABLE = [pytest.param(case, opset, id=f"{case}@{opset}") for case in CASES for opset in case.opsets]


@pytest.mark.parametrize(("case", "opset"), TABLE)
def test_value_equals_onnxruntime(case: Case, opset: int) -> None:
    feeds = case.feeds(3)
    one = case.model(opset)
    samples = [run(one, {n: v[k : k + 1] for n, v in feeds.items()}) for k in range(3)]
    expected = [np.concatenate(parts) for parts in zip(*samples, strict=True)]
    if case.dynamic:
        whole = run(case.model(opset, "N"), feeds)
        for a, b in zip(whole, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    values = {n: torch.from_numpy(v) for n, v in feeds.items()}
    for op in case.ops(opset):
        values[op.output] = op.forward(*[values[n] for n in op.inputs])
        assert values[op.output].dtype == torch.float32
        assert values[op.output].shape == (3, *op.out_shape)
    for i, want in enumerate(expected):
        np.testing.assert_allclose(values[f"y{i}"].numpy(), want, rtol=1e-5, atol=1e-5)


def test_the_table_covers_every_operator() -> None:
    # what reads integers has tests of its own (test_quantize_integers.py)
    integer = {"ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
    assert {case.op for case in CASES} == {name for name in READERS if not name.startswith("com.microsoft.")} - integer
