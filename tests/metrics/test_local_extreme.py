"""The extreme of a property's quantity: against dense samples, another optimiser, and the mixed-integer program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy.optimize import brute

import onnxsub
from onnxsub.budget import Budget
from onnxsub.errors import ContradictionError, InputError
from onnxsub.metrics.local import LocalOptions, LocalVerdict, attack_local, decide_local, extreme, extreme_local, make_property
from onnxsub.query import Query
from tests.handmade import Net
from tests.random_models import random_model

EPS, TOL = 0.15, 1e-3


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Query:
    """Two inputs, three classes, seven units."""
    path = tmp_path_factory.mktemp("extreme") / "net.onnx"
    onnx.save(random_model(11, kind="dense", classes=3), path)
    return onnxsub.make_query(path, np.array([0.4, 0.6], dtype=np.float32), threads=1)


CASES = {
    "confidence": {"gamma": 0.5},
    "sr": {"delta": 1.0},
    "sr-1": {"delta": 1.0, "norm": "1"},
    "scr": {"eta": 0.5},
    "lr": {"lipschitz": 1.0},
}


@pytest.mark.parametrize("verifier", ["bab", pytest.param("milp", marks=pytest.mark.slow)])
def test_a_limit_of_nodes_ends_a_decision(verifier: str, data_dir: Path) -> None:
    """The limit of the options alone, and under a clock without one: neither the tree nor the root of a program goes on."""
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        x0 = archive["x_test"][0].astype(np.float32) / np.float32(255)
    query = onnxsub.make_query(data_dir / "nets" / "mnist-net_256x2.onnx", x0, threads=1)
    prop, options = make_property("sr", 0.1, delta=2.0), LocalOptions(verifier=verifier, nodes=1)
    found = [decide_local(query, prop, options, budget=budget) for budget in (None, Budget())]
    assert {v.status for v in found} == {"undecided"}
    assert all("the limit of 1 nodes ended it" in v.reason for v in found)


@pytest.mark.parametrize("case", list(CASES))
def test_the_bracket_holds_the_extreme(case: str, query: Query) -> None:
    prop = make_property(case.partition("-")[0], EPS, **CASES[case])
    found = extreme_local(query, prop, TOL, LocalOptions(timeout=30))
    sign = -1.0 if prop.smallest else 1.0
    low, high = query.space.ball(query.x0, EPS)
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 201) for a, b in zip(low, high, strict=True))), axis=-1).reshape(-1, 2)
    values = sign * prop.measure(query, grid.astype(np.float32)).quantity
    ends = sorted((sign * found.lower, sign * found.upper))
    # near the anchor a ratio of two float32 differences is noise
    slack = 1e-3 * (1 + abs(ends[1])) if case == "lr" else 1e-5
    far = np.abs(grid - query.x0).max(axis=1) > (0.02 if case == "lr" else -1)
    assert values[far].max() <= ends[1] + slack
    assert found.witness is not None
    assert float(prop.measure(query, found.witness[None]).quantity[0]) == found.value
    assert ((low <= found.witness) & (found.witness <= high)).all()
    if case != "lr":
        best = brute(
            lambda x: -sign * float(prop.measure(query, np.clip(x, low, high)[None].astype(np.float32)).quantity[0]),
            tuple(zip(low, high, strict=True)), Ns=41, full_output=True,
        )  # fmt: skip
        assert found.status == "exact", found.reason
        assert found.upper - found.lower <= TOL
        assert ends[0] - 1e-5 <= max(-best[1], values.max()) <= ends[1] + 1e-5
        assert values.max() >= ends[1] - TOL - 0.02  # so fine is the grid


def test_an_attack_that_the_time_limit_ended_says_so(query: Query) -> None:
    found = attack_local(query, make_property("sr", EPS, delta=1e6), budget=Budget(1e-9))
    assert (found.status, "time limit" in (found.reason or "")) == ("undecided", True)


def test_rounding_does_not_pass_for_a_larger_ratio(tmp_path: Path) -> None:
    """`f = (x_1 + 10, 0.3 x_2 + 10)`: the largest ratio is 1, and float32 says more."""
    net = Net(2)
    y = net.node("Gemm", ["x", net.weight(np.diag([1.0, 0.3])), net.weight([10.0, 10.01])])
    onnx.save(net.model(y, 2), tmp_path / "net.onnx")
    query = onnxsub.make_query(tmp_path / "net.onnx", np.array([0.41, 0.63], dtype=np.float32), threads=1)
    found = extreme_local(query, make_property("lr", 0.05, lipschitz=1.0), 1e-5, LocalOptions(timeout=10))
    assert 0.99 <= found.lower <= 1.0 <= found.upper
    assert found.upper <= 1.01
    assert found.lower <= found.value


def test_programs_agree_with_branch_and_bound(query: Query) -> None:
    prop = make_property("sr", EPS, delta=1.0)
    one, other = (extreme_local(query, prop, TOL, LocalOptions(verifier=v, timeout=30)) for v in ("bab", "milp"))
    assert one.status == other.status == "exact"
    assert max(one.lower, other.lower) <= min(one.upper, other.upper) + 1e-6


def test_the_attack_alone_gives_one_end(query: Query) -> None:
    prop = make_property("confidence", EPS, gamma=0.9)
    whole, attack = extreme_local(query, prop, TOL), extreme_local(query, prop, TOL, proves=False)
    assert attack.status == "bracket"
    assert attack.upper == 1.0
    assert 0 < attack.lower <= whole.upper + 1e-6


def test_a_threshold_of_the_property_changes_nothing(query: Query) -> None:
    ends = {(x.lower, x.upper) for x in (extreme_local(query, make_property("scr", EPS, eta=e), TOL) for e in (0.01, 0.99))}
    assert len(ends) == 1


def test_a_ball_of_no_size_has_the_value_of_the_anchor(query: Query) -> None:
    found = extreme_local(query, make_property("sr", 0.0, delta=1.0), TOL)
    assert (found.status, found.lower) == ("exact", 0.0)


def test_classes_have_distances_instead(query: Query) -> None:
    with pytest.raises(InputError, match="its value is the distance"):
        extreme_local(query, make_property("cr", EPS), TOL)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Query:
    """`f = (x_1 + 1000, 0.3 x_2 + 1000)`: float32 rounds a change of the logits to sixteenths of a thousandth."""
    net = Net(2)
    y = net.node("Gemm", ["x", net.weight(np.diag([1.0, 0.3])), net.weight([1000.0, 1000.01])])
    path = tmp_path_factory.mktemp("shifted") / "net.onnx"
    onnx.save(net.model(y, 2), path)
    return onnxsub.make_query(path, np.array([0.41, 0.63], dtype=np.float32), threads=1)


@pytest.mark.parametrize("case", [*CASES, "cr"])
def test_reached_is_beyond_neither_the_file_nor_the_network_over_the_reals(case: str, shifted: Query) -> None:
    prop = make_property(case.partition("-")[0], EPS, **CASES.get(case, {}))
    x = (shifted.x0 + np.random.default_rng(1).uniform(-EPS, EPS, (500, 2))).astype(np.float32)
    change = (x.astype(np.float64) - shifted.x0) * np.float32([1.0, 0.3]).astype(np.float64)
    f0 = shifted.x0 * np.float32([1.0, 0.3]).astype(np.float64) + np.float32([1000.0, 1000.01]).astype(np.float64)
    p0, p = (np.exp(f - f.max(axis=-1, keepdims=True)) for f in (f0, f0 + change))
    p0, p = p0 / p0.sum(), p / p.sum(axis=1, keepdims=True)
    y = shifted.label
    real = {
        "cr": (f0 + change)[:, y] - (f0 + change)[:, 1 - y],
        "sr": np.abs(change).max(axis=1),
        "sr-1": np.abs(change).sum(axis=1),
        "scr": p[:, y],
        "lr": np.abs(change).max(axis=1) / np.abs(x.astype(np.float64) - shifted.x0).max(axis=1),
        "confidence": np.abs(p - p0).max(axis=1),
    }[case]
    seen, reached = prop.measure(shifted, x).quantity, prop.reached(shifted, x)
    sign = -1.0 if prop.smallest else 1.0
    assert (sign * reached <= sign * real + 1e-12).all()
    assert (sign * reached <= sign * seen).all()
    assert (sign * seen > sign * real + 1e-7).any(), "float32 never says more, so this is no test"
    if case != "lr":  # which keeps room for rounding besides
        assert np.abs(reached - np.where(sign * seen < sign * real, seen, real)).max() <= 1e-12


def test_rounding_is_no_contradiction(shifted: Query) -> None:
    """The largest change is exactly the radius, and float32 says 5e-5 more: the bracket holds both, and says why it stays open."""
    prop = make_property("sr", 0.05, delta=1.0)
    found = extreme_local(shifted, prop, 1e-6, LocalOptions(timeout=10))
    low, high = shifted.space.ball(shifted.x0, 0.05)
    most = float(max(high[0] - shifted.x0[0], shifted.x0[0] - low[0]))
    assert most - 1e-6 <= found.lower <= most + 1e-12
    assert most < found.value <= found.upper <= most + 1e-4
    assert (found.status, "rounding of float32" in found.reason) == ("bracket", True)


@pytest.mark.parametrize("below", [1e-2, 1e-6, 1e-12])
def test_a_point_beyond_what_is_proved_is_an_error_by_however_little(below: float, query: Query) -> None:
    prop = make_property("sr", EPS, delta=1.0)
    found = extreme_local(query, prop, TOL, proves=False)
    assert found.witness is not None
    search = extreme._Search(query, prop, 1.0, LocalOptions(), Budget())
    search.high = found.lower - below
    with pytest.raises(ContradictionError, match=r"a point has .* but .* is proved"):
        search._take(found.witness)


def test_points_that_owe_their_value_to_rounding_end_the_search(query: Query, monkeypatch: pytest.MonkeyPatch) -> None:
    prop = make_property("sr", EPS, delta=1.0)
    witness = extreme_local(query, prop, TOL, proves=False).witness
    asked = []

    def again(query: Query, near: object, options: LocalOptions, *, budget: Budget) -> LocalVerdict:
        asked.append(near)
        bound = make_property("sr", EPS, delta=1e-3)
        return LocalVerdict.of(query, bound, "violated", "a point", verifier="bab", time_s={"total": 0.0}, witness=witness)

    monkeypatch.setattr(extreme, "decide_local", again)
    search = extreme._Search(query, prop, TOL, LocalOptions(), Budget())
    search.high, _ = 10.0, search._take(witness)
    while search.running:
        search.ask()
        assert len(asked) < 100
    assert "rounding of float32" in search.reason
    assert search.bracket[1] == 10.0  # nothing was proved
