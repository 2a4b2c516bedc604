"""Resize against onnxruntime over many lengths, scales and attributes: which neighbour is nearest hangs on the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.movement import Gather
from onnxsub.ops.resize import Interpolate
from onnxsub.ops.resize_axis import NEAREST
from onnxsub.runtime import Runtime
from tests.ops.tools import Case, ints, random, run

F32 = np.float32
PLACES = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel")


def _given(rng: np.random.Generator, mode: str) -> tuple[dict[str, Any], np.ndarray | None]:
    """Attributes, and the region where the place needs one."""
    places = (*PLACES, "half_pixel_symmetric", "tf_crop_and_resize")
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": str(rng.choice(places))}
    if mode != "nearest":
        given["antialias"] = int(rng.integers(2))
    if mode == "nearest":
        given["nearest_mode"] = str(rng.choice(NEAREST[:-1]))
    if mode == "cubic":
        given |= {"exclude_outside": int(rng.integers(2)), "cubic_coeff_a": float(rng.choice([-0.5, -0.75]))}
    if given["coordinate_transformation_mode"] != "tf_crop_and_resize":
        return given, None
    given["extrapolation_value"] = 0.7
    return given, np.array([0, 0, *rng.uniform(-0.3, 0.5, 2), 1, 1, *rng.uniform(0.5, 1.3, 2)], F32)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_random_resizes(mode: str) -> None:
    rng = np.random.default_rng(len(mode))
    compared, kinds, refused = 0, set(), list[str]()
    for k in range(400):
        given, roi = _given(rng, mode)
        shape = (int(rng.integers(1, 3)), *(int(n) for n in rng.integers(1, 9, 2)))
        if rng.random() < 0.5:
            last: tuple[Any, ...] = (None, ints(1, shape[0], *rng.integers(1, 17, 2)))
        else:
            scales = [float(rng.choice([0.5, 0.6, 2, 3, 1.5, 1, 0.35, 2.3, 1 / 3])) for _ in range(2)]
            last = (np.array([1, 1, *scales], F32),)
            if min(np.floor(np.array(shape[1:]) * last[0][2:])) < 1:
                continue
        case = Case("Resize", (shape, roi, *last), given, (19,))
        x = random((1, *shape), k)
        try:
            ops = case.ops(19)
        except UnsupportedOperatorError as error:
            refused.append(str(error))
            continue
        (want,) = run(case.model(19), {"x0": x})
        assert [type(op) in (Gather, Interpolate) for op in ops] == [True]
        found = ops[0].forward(torch.from_numpy(x.astype(np.float64))).numpy()
        # weights come from places in float32, and cubic ones are of the order of one
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=2e-5, err_msg=str(case))
        compared += 1
        kinds.add((given["coordinate_transformation_mode"], type(ops[0]).__name__))
    assert compared > 250
    assert all("the last bit decides" in line or "export sizes" in line for line in refused)
    assert len(refused) < 0.2 * compared
    assert ("half_pixel", "Gather" if mode == "nearest" else "Interpolate") in kinds


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(("shape", "sizes"), [((2, 9, 7, 8), (1, 2, 4, 9, 3)), ((2, 11), (1, 2, 4)), ((2, 3, 12), (1, 2, 3, 5))])
def test_antialias_along_one_to_three_axes(mode: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    case = Case("Resize", (shape, None, None, ints(*sizes)), {"mode": mode, "antialias": 1}, (18, 19))
    x = random((1, *shape))
    compared = 0
    for opset in case.opsets:
        try:
            (want,) = run(case.model(opset), {"x0": x})
        except Exception as error:
            if "Resize" not in str(error):  # onnxruntime has none for some numbers of axes
                raise
            continue
        (op,) = case.ops(opset)
        np.testing.assert_allclose(op.forward(torch.from_numpy(x.astype(np.float64))).numpy(), want, rtol=1e-5, atol=2e-5)
        compared += 1
    assert compared or len(shape) != 3


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales_that_keep_every_length_are_refused(mode: str) -> None:
    """onnxruntime copies the tensor, where ONNX has interpolation by 1.2."""
    scales = np.array([1.0, 1.0, 1.2, 1.0], dtype=np.float32)
    with pytest.raises(UnsupportedOperatorError, match="keep every length"):
        Case("Resize", ((2, 4, 5), None, scales), {"mode": mode}, (13,)).ops(13)


def test_antialias_of_the_nearest_neighbour_is_refused() -> None:
    """onnxruntime does not run it either."""
    case = Case("Resize", ((2, 6, 6), None, None, ints(1, 2, 3, 3)), {"mode": "nearest", "antialias": 1}, (19,))
    with pytest.raises(Exception, match=r"[Aa]nti-?alias"):
        run(case.model(19), {"x0": random((1, 2, 6, 6))})
    with pytest.raises(UnsupportedOperatorError, match="antialias with mode nearest"):
        case.ops(19)


@pytest.mark.parametrize("place", PLACES)
def test_every_nearest_neighbour(place: str) -> None:
    """The numbers of the neighbours themselves, for every pair of lengths."""
    refused = []
    for near in NEAREST[:-1]:
        for n in range(1, 8):
            for m in range(1, 13):
                given = {"coordinate_transformation_mode": place, "nearest_mode": near}
                case = Case("Resize", ((1, n, m), None, None, ints(1, 1, m, n)), given, (13,))
                x = np.arange(n * m, dtype=F32).reshape(1, 1, n, m)
                try:
                    op = case.op1()
                except UnsupportedOperatorError as error:
                    refused.append(str(error))
                    continue
                (want,) = run(case.model(13), {"x0": x})
                np.testing.assert_array_equal(op.forward(torch.from_numpy(x)).numpy(), want, err_msg=f"{near}, {n} to {m}")
    assert len(refused) < 30, refused


@pytest.mark.parametrize(
    ("place", "near", "n", "m"),
    # onnxruntime takes another neighbour than places in float32 say, one way or the other
    [("half_pixel_symmetric", "floor", 3, 1), ("asymmetric", "round_prefer_ceil", 7, 2)],
)
def test_a_neighbour_that_hangs_on_the_last_bit_is_refused(place: str, near: str, n: int, m: int) -> None:
    given = {"coordinate_transformation_mode": place, "nearest_mode": near}
    with pytest.raises(UnsupportedOperatorError, match="border of two neighbours, so that the last bit decides"):
        Case("Resize", ((1, n, 3), None, None, ints(1, 1, m, 3)), given, (19,)).ops(19)


@pytest.mark.parametrize("name", ["upsample_nearest", "cnn_upsample_swish", "input_resize_bilinear"])
def test_real_exports(name: str, data_dir: Path) -> None:
    model = load_model(data_dir / "models" / f"{name}.onnx")
    x = np.random.default_rng(0).random((4, *model.input_shape)).astype(np.float32)
    want = Runtime(model).logits(x)
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * (1 + np.abs(want).max()))
