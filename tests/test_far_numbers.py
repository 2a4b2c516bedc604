"""Radii beyond the domain, domains, means and deviations of any size: an answer, or one line that says why not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxsub.cli.main import run
from onnxsub.errors import InputError
from onnxsub.metrics.local import attack_local, decide_local, make_property
from onnxsub.metrics.margin import MarginOptions, smallest_margin
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.bounds import BoundsOptions, bounds
from onnxsub.passes.compare import CompareOptions, compare
from onnxsub.properties import fed_box, parse_property, robustness_property, write_property
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.random_models import random_model

_FAR = [1.5, 1e39, 1.7e308]


def _query(seed: int = 3, space: InputSpace | None = None) -> Query:
    model = load_model(random_model(seed, kind="dense", classes=3))
    x0 = np.random.default_rng(seed).random(model.input_shape)
    x0 = x0 if space is None else space.lower + (space.upper - space.lower) * x0
    return make_query(model, x0.astype(np.float32), space=space)


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("eps", _FAR)
def test_a_radius_beyond_the_domain_asks_about_the_domain(eps: float, verifier: str) -> None:
    query = _query()
    reach = query.space.reach(query.x0)
    near, far = (verify(query, r, VerifyOptions(verifier=verifier)) for r in (reach, eps))
    assert far.status == near.status == "violated"
    assert far.eps == eps
    assert far.to_json()["eps"] == eps
    l, u = query.space.ball(query.x0, eps)
    assert (l == 0).all()
    assert (u == 1).all()
    found = attack(query, AttackOptions(upper=eps))
    assert found.d_adv == attack(query).d_adv


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_a_whole_domain_is_proved(verifier: str) -> None:
    proto = random_model(3, kind="dense", classes=3)
    query = make_query(load_model(proto), np.full(load_model(proto).input_shape, 0.5, dtype=np.float32))
    bias = next(t for t in reversed(proto.graph.initializer) if list(t.dims) == [3])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[query.label] += 1000.0
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    safe = make_query(load_model(proto), query.x0)
    result = verify(safe, 1e39, VerifyOptions(verifier=verifier))
    assert (result.status, result.eps) == ("proved", 1e39)


@pytest.mark.parametrize(
    "asked", [{"name": "cr"}, {"name": "sr", "delta": 0.1}, {"name": "scr", "eta": 0.9}, {"name": "lr", "lipschitz": 0.5},
              {"name": "confidence", "gamma": 0.05}], ids=lambda a: str(a["name"]),
)  # fmt: skip
def test_properties_and_margins(asked: dict[str, object]) -> None:
    query = _query()
    given = {k: v for k, v in asked.items() if k != "name"}
    far, near = (make_property(str(asked["name"]), eps, **given) for eps in (1e39, query.space.reach(query.x0)))  # type: ignore[arg-type]
    answer = decide_local(query, far)
    assert answer.status == decide_local(query, near).status
    assert answer.prop.eps == 1e39
    assert attack_local(query, far).status == attack_local(query, near).status
    target = query.targets[0]
    margins = [smallest_margin(query, target, eps, MarginOptions()) for eps in (1e39, 1.0)]
    assert margins[0].eps == 1e39
    assert margins[0].lower == pytest.approx(margins[1].lower, abs=margins[1].tol)


def test_bounds_compare_and_text() -> None:
    query = _query()
    whole = bounds(query, BoundsOptions(eps=1.0))
    far = bounds(query, BoundsOptions(eps=1e39))
    np.testing.assert_array_equal(far.output[0], whole.output[0])
    assert far.to_json()["eps"] == 1e39
    assert compare(query, query.model, CompareOptions(eps=1e39)).certified == 0
    assert write_property(robustness_property(query, 1e39)) == write_property(robustness_property(query, 1.0))


@pytest.mark.parametrize(
    "space",
    [
        InputSpace(0.0, 255.0, (238.18851229546357,), (407.2866164344325,)),
        InputSpace(0.0, 1.0, (0.0,), (1e-30,)),
        InputSpace(0.0, 1.0, (0.3,), (1e30,)),
        InputSpace(0.0, 1.0, (1e30,), (1e30,)),
        InputSpace(-1e6, 1e6),
        InputSpace(-1e38, 1e38),
        InputSpace(0.1, 0.7),
        InputSpace(-1 / 3, 1.0000001),
    ],
    ids=str,
)
def test_the_fed_box_holds_what_is_fed(space: InputSpace) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        query = _query(4, space)
        for eps in (0.0, 0.01 * (space.upper - space.lower), 1e39):
            lower, upper = fed_box(query, eps)
            assert np.isfinite(lower).all()
            assert np.isfinite(upper).all()
            low, high = space.ball(query.x0, eps)
            x = np.random.default_rng(0).uniform(low, high, (100, *query.x0.shape))
            x = np.concatenate([x, low[None], high[None]])
            x = space.inside(np.clip(x, low, high))
            inside = ((x >= low) & (x <= high)).reshape(len(x), -1).all(axis=1)  # rounding may leave the ball
            fed = space.normalise(x[inside]).reshape(int(inside.sum()), -1).astype(np.float64)
            assert len(fed) > 0
            assert ((lower <= fed) & (fed <= upper)).all()
            assert write_property(robustness_property(query, eps))
        assert attack(query, AttackOptions(timeout=5)).evaluations > 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((-1e39, 1e39), "reaches beyond"),
        ((0.0, 1e300), "reaches beyond"),
        ((-3e38, 3e38), "reaches beyond"),
        ((-1.7e308, 1.7e308), "reaches beyond"),
        ((0.0, 1.0, (1e300,), (1.0,)), "is beyond"),
        ((0.0, 1.0, (0.0,), (1e-320,)), "is beyond"),
        ((0.0, 255.0, (0.0, 0.0, 1.0), (1.0, 1e-37, 1.0)), "is beyond"),
    ],
)
def test_what_no_model_can_be_fed_is_refused(given: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        InputSpace(*given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_half_precision_has_a_smaller_range() -> None:
    space = InputSpace(0.0, 255.0, (0.0,), (1e-3,))
    space.check_fed(np.dtype(np.float32))
    with pytest.raises(InputError, match="float16"):
        space.check_fed(np.dtype(np.float16))


def test_the_command_keeps_the_radius(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = _query()
    onnx.save(query.model.source, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", query.x0)
    where = [str(tmp_path / "m.onnx"), "--x0", str(tmp_path / "x.npy"), "--eps", "1e39", "--json"]
    assert run(["verify", *where]) == 1
    assert json.loads(capsys.readouterr().out)["eps"] == 1e39
    assert run(["bounds", *where]) == 0
    assert json.loads(capsys.readouterr().out)["eps"] == 1e39


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize(("low", "high"), [("0", "1e300"), ("-3.5e38", "3.5e38"), ("0", "3e38")])
def test_a_box_beyond_float32_is_answered(low: str, high: str, verifier: str) -> None:
    model = load_model(random_model(3, kind="dense", classes=3))
    inputs = [f"X_{i}" for i in range(model.input_shape[0])]
    lines = [f"(declare-const {name} Real)" for name in (*inputs, "Y_0", "Y_1", "Y_2")]
    lines += [f"(assert (>= {x} {low}))(assert (<= {x} {high}))" for x in inputs]
    question = parse_property("\n".join([*lines, "(assert (<= Y_0 Y_1))"]))
    result = decide_property(model, question, VerifyOptions(verifier=verifier))
    assert result.status in ("violated", "unknown")  # onnxruntime says what the far points are worth, no proof does
    assert (result.witness is not None and result.witness.confirmed) == (result.status == "violated")
