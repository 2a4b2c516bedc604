"""Anchors that an attack need not try: what bounds prove of them holds, and of the others the same is found as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxsub import make_query
from onnxsub.budget import Budget
from onnxsub.metrics.local import LocalOptions, decide_local, make_property
from onnxsub.metrics.local import batch as batches
from onnxsub.metrics.local.batch import BatchAttack, attack_batch, queries_of
from onnxsub.metrics.local.beyond_reach import proved_radii
from onnxsub.query import Query
from tests.evaluate_tools import make_files

RADII = (0.01, 0.03, 0.1, 0.3)


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> list[Query]:
    model, data = make_files(tmp_path_factory.mktemp("files"))
    with np.load(data) as archive:
        x = archive["x"].astype(np.float32)
    return queries_of(make_query(model, x[0], threads=1), x, None)


def test_what_is_proved_a_verifier_proves(queries: list[Query]) -> None:
    proved = proved_radii(queries, range(len(queries)), RADII, Budget())
    assert 0 < len(proved) <= len(queries)
    assert set(proved.values()) <= set(RADII)
    for i, radius in proved.items():
        verdict = decide_local(queries[i], make_property("cr", radius), LocalOptions(threads=1))
        assert verdict.status == "proved", (i, radius)


def test_the_attack_says_the_same_with_and_without(queries: list[Query], monkeypatch: pytest.MonkeyPatch) -> None:
    props = [make_property("cr", radius) for radius in RADII]
    tried: list[int] = []
    plain = batches._Search._ascend

    def counted(self: object, prop: object, chosen: list[int], *rest: object) -> object:
        tried.append(len(chosen))
        return plain(self, prop, chosen, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(batches._Search, "_ascend", counted)
    with_bounds = attack_batch(queries, props, BatchAttack(seed=3))
    few = sum(tried)
    tried.clear()
    monkeypatch.setattr(batches, "proved_radii", lambda *_: {})
    without = attack_batch(queries, props, BatchAttack(seed=3))
    assert few < sum(tried)
    assert [[(v.status, v.reason) for v in row] for row in with_bounds] == [[(v.status, v.reason) for v in row] for row in without]
    assert {v.status for row in without for v in row} == {"undecided", "violated"}


def test_what_cannot_be_bounded_is_not_left_out(queries: list[Query]) -> None:
    over = Budget(1e-9)
    while not over.over:
        pass
    assert proved_radii(queries, range(len(queries)), RADII, over) == {}
    assert proved_radii(queries, (), RADII, Budget()) == {}
    assert proved_radii(queries, (0,), (1e39,), Budget()) in ({}, {0: 1e39})  # the whole domain


def test_weights_that_give_no_number_prove_nothing(queries: list[Query], tmp_path: Path) -> None:
    network = queries[0].network
    broken = []
    for op in network.ops:
        huge = {k: v * 1e200 for k, v in vars(op).items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
        broken.append(replace(op, **huge) if huge else op)
    assert any(a is not b for a, b in zip(broken, network.ops, strict=True))
    wild = [replace(q, network=replace(network, ops=tuple(broken))) for q in queries[:2]]
    with torch.no_grad():
        assert not torch.isfinite(wild[0].network.forward(torch.as_tensor(wild[0].x0[None]).double() * 1e200)).all()
    assert proved_radii(wild, (0, 1), (0.3,), Budget()) == {}
