"""Which input a region is halved along, and what is searched for where few inputs vary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import onnxsub.verifiers.ascend as ascend_module
import onnxsub.verifiers.bab.inputs.halves as halves_module
from onnxsub.model import load_model
from onnxsub.properties import load_property
from onnxsub.verifiers.ascend import AttackPlan, ascend
from onnxsub.verifiers.bab.inputs.halves import Regions, halved, promises
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from onnxsub.verifiers.witness import Judge, Witness
from tests.verifiers.nets import dense


def regions(count: int, n: int, seed: int) -> Regions:
    rng = np.random.default_rng(seed)
    lower = torch.as_tensor(rng.normal(size=(count, n)))
    upper = lower + torch.as_tensor(rng.choice([0.0, 0.5, 3.0], (count, n)))
    within = {"z": (torch.arange(float(count))[:, None], torch.arange(float(count))[:, None] + 1)}
    return Regions(lower, upper, torch.arange(count), within)


def test_halves_cover_their_region_and_nothing_else() -> None:
    whole, axes = regions(6, 4, 0), torch.tensor([[0, 2], [1, 3], [3, 0], [2, 1], [0, 1], [2, 3]])
    parts = whole.halves(axes)
    assert len(parts) == 6 * 4
    for i in range(6):
        for k, axis in enumerate(axes[i].tolist()):
            low, high = 4 * i + 2 * k, 4 * i + 2 * k + 1
            assert int(parts.clause[low]) == int(parts.clause[high]) == i
            assert float(parts.within["z"][0][low]) == i
            assert torch.equal(parts.lower[low], whole.lower[i])
            assert torch.equal(parts.upper[high], whole.upper[i])
            assert float(parts.upper[low, axis]) == float(parts.lower[high, axis])
            others = [j for j in range(4) if j != axis]
            assert torch.equal(parts.upper[low, others], whole.upper[i, others])
            assert torch.equal(parts.lower[high, others], whole.lower[i, others])


def asked(bound: dict[int, tuple[float, float]], whole: Regions) -> Regions:
    """Halves of one region where the halves of each input have the tops given, and 1 where none are."""

    def tops(parts: Regions) -> Tensor:
        found = []
        for low, high in zip(parts.lower, parts.upper, strict=True):
            (axis,) = torch.nonzero((low != whole.lower[0]) | (high != whole.upper[0]))[:, 0].tolist()
            found.append(bound.get(axis, (1.0, 1.0))[int(low[axis] != whole.lower[0, axis])])
        return torch.tensor(found, dtype=torch.float64)

    promise = promises(whole, torch.ones(1, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    found, of = halved(whole, promise, torch.ones(1, dtype=torch.float64), tops)
    assert of.tolist() == [0] * len(found)
    return found


def test_the_input_with_the_lowest_halves_is_taken() -> None:
    whole = Regions(torch.zeros(1, 3).double(), torch.tensor([[4.0, 2.0, 1.0]]).double(), torch.zeros(1, dtype=torch.long), {})
    taken = asked({0: (0.9, 0.9), 2: (0.1, 0.9)}, whole)
    assert taken.lower[:, 2].tolist() == [0.0, 0.5]
    # a half below zero is refuted, and its input is the best one
    taken = asked({0: (0.3, 0.3), 1: (0.5, -2.0)}, whole)
    assert taken.upper.tolist() == [[4.0, 1.0, 1.0]]
    assert len(asked({1: (-1.0, -1.0)}, whole)) == 0
    # where nothing is known nothing is refuted, and the promise decides
    taken = asked({k: (float("nan"), float("inf")) for k in range(3)}, whole)
    assert taken.upper[:, 0].tolist() == [2.0, 4.0]


def test_sides_too_short_are_never_halved() -> None:
    whole = Regions(torch.zeros(1, 3).double(), torch.tensor([[0.0, 1e-15, 1.0]]).double(), torch.zeros(1, dtype=torch.long), {})
    whole.lower[0, 1] = 1.0
    whole.upper[0, 1] = 1.0 + 1e-15
    taken = asked({}, whole)
    assert taken.upper[:, 2].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("tried", [halves_module.TRIED, 1])
def test_halves_that_are_bounded_first_close_what_slopes_do_not(
    data_dir: Path, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data_dir / "lowdim" / "acasxu_2023"
    monkeypatch.setattr(halves_module, "TRIED", tried)
    model = load_model(folder / "ACASXU_run2a_2_8_batch_2000.onnx")
    question = load_property(folder / "prop_1.vnnlib.gz", model)
    found = decide_property(model, question, VerifyOptions(Limits(nodes=3000, threads=1)))
    assert found.status == ("proved" if tried > 1 else "unknown")


class _Positive(Judge):
    """Whether the first output is positive in float64."""

    def __init__(self, value: object, n: int) -> None:
        self.lower, self.upper = np.zeros(n, dtype=np.float32), np.ones(n, dtype=np.float32)
        self._value = value

    def judge(self, point: np.ndarray) -> Witness:
        value = float(self._value(torch.as_tensor(point)[None].double())[0, 0])  # type: ignore[operator]
        return Witness(point, np.nan, -1, value, "strict" if value > 0 else "rejected")


@pytest.mark.parametrize("seed", range(3))
def test_a_small_bump_far_from_every_slope_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`relu(0.03 - |x_0 - c_0| - |x_1 - c_1|) - 0.005`: flat but on a thousandth of the square."""
    c = np.random.default_rng(seed).uniform(0.1, 0.9, 2)
    rows = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    network = dense((rows, -rows @ c), (-np.ones((1, 4)), np.array([0.03])), (np.array([[1.0], [0.0]]), np.array([-0.005, 0.0])))
    judge = _Positive(network.forward, 2)
    plan = AttackPlan(growth=(0.0,), noise=(0.0,), seed=seed)
    found = ascend(network, ((0,),), judge, plan)
    assert found is not None
    assert found.confirmed
    monkeypatch.setattr(ascend_module, "_FEW", 1)
    assert ascend(network, ((0,),), judge, plan) is None
