"""Infinite ends of intervals, which are valid bounds, make answers weaker and never wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from benchmarks.differential_bench import Bench
from benchmarks.random_questions import loosened, random_setting
from onnxsub.ops.encoding import LinExpr
from onnxsub.verifiers.box.halfspaces import no_sliver
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import BabOptions, Limits
from tests.verifiers.nets import random_network


def test_slivers_are_told_from_infinite_ends() -> None:
    before = torch.tensor([-1.0, -torch.inf, -torch.inf, 0.0]), torch.tensor([1.0, 1.0, torch.inf, torch.inf])
    ends = torch.tensor([0.5, 0.0, -torch.inf, 2.0]), torch.tensor([0.5, 0.5, torch.inf, torch.inf])
    lower, upper = no_sliver(ends, before)
    assert lower[0] < 0.5 < upper[0]
    assert torch.equal(lower[1:], ends[0][1:])
    assert torch.equal(upper[1:], ends[1][1:])


def test_an_end_that_is_no_number_is_none() -> None:
    network = random_network(1, kind="dense", activations=("Relu",))
    x0 = np.full(network.input_shape, 0.5)
    box = Box(x0, x0 - 0.4, x0 + 0.4, 0.4)
    model = BoxModel.over(Rows(network, 0, {1: (1,)}), box, Building(tight=False, fold="never")).clause(1)
    assert model is not None
    nan = {n: (np.full_like(l, np.nan), np.full_like(u, np.nan)) for n, (l, u) in model.intervals.items()}
    blind = replace(model, intervals=nan)
    assert all((l == -np.inf).all() and (u == np.inf).all() for l, u in blind.intervals.values())
    assert not blind.relaxed()[0].ordinary  # no solver is asked


def test_zero_times_infinity_is_zero() -> None:
    found = LinExpr(sp.csr_array(np.array([[0.0, 2.0]])), np.array([0.0])).scale(np.array([np.inf]))
    assert found.matrix.toarray().tolist() == [[0.0, np.inf]]
    assert found.constant.tolist() == [0.0]


@pytest.mark.parametrize("dive", [0, BabOptions().dive])
@pytest.mark.parametrize(("seed", "loose"), [(77000113, range(10, 16)), (12000008, range(10, 14))])
def test_questions_that_were_answered_wrongly(seed: int, loose: range, dive: int) -> None:
    bench = Bench(random_setting(seed))
    assert bench.truth.by == "enumeration"
    options = DistanceOptions(Limits(timeout=20, threads=1, tol=1e-5 * bench.at.width), bab=BabOptions(dive=dive))
    for k in loose:
        with loosened(k):
            found = distance(bench.query, options)
        assert found.lower <= bench.truth.upper * (1 + 1e-6)
