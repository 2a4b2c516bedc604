"""Branch and bound about properties: what it says agrees with the programs and with samples, and limits are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.model import Model, load_model
from onnxsub.properties import Case, Clause, Property, load_property
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from tests.random_models import random_model

LIMITS = Limits(threads=1, timeout=60)
QUIET = VerifyOptions(LIMITS, MilpOptions(attack=False))


def clause(*rows: tuple[list[float], float]) -> Clause:
    return Clause(np.array([a for a, _ in rows]), np.array([b for _, b in rows]), np.zeros(len(rows), dtype=bool))


def around(model: Model, radius: float, clauses: tuple[Clause, ...], seed: int = 0) -> Property:
    centre = np.random.default_rng(seed).uniform(0.3, 0.7, int(np.prod(model.input_shape)))
    return Property((Case(centre - radius, centre + radius, clauses),), (centre.size,), (model.outputs,))


def sampled(model: Model, question: Property, count: int = 3000) -> np.ndarray:
    """Outputs at points of the box, corners among them."""
    case, rng = question.cases[0], np.random.default_rng(1)
    points = rng.uniform(case.lower, case.upper, (count, question.inputs))
    points[::2] = np.where(rng.random(points[::2].shape) < 0.5, case.lower, case.upper)
    return Runtime(model).logits(points.astype(np.float32).reshape(-1, *model.input_shape)).astype(np.float64)


@pytest.mark.parametrize("kind", ["dense", "conv", "residual", "pool"])
@pytest.mark.parametrize("seed", range(3))
def test_it_agrees_with_the_programs_and_with_samples(seed: int, kind: str) -> None:
    model = load_model(random_model(seed, kind=kind, activations=("Relu", "LeakyRelu"), classes=3))
    radius = 0.04
    question = around(model, radius, (clause(([0, 0, 0], 0.0)),), seed)
    y = sampled(model, question)
    both = np.minimum(y[:, 0] - y[:, 1], y[:, 2] - y[:, 1])
    one = y[:, 0] - y[:, 2]
    spread = 0.05 * float(np.ptp(one) + np.ptp(both))
    for shift, reached in ((-spread, True), (4 * spread, None)):
        clauses = (
            clause(([-1, 1, 0], -(both.max() + shift)), ([0, 1, -1], -(both.max() + shift))),
            clause(([-1, 0, 1], -(one.max() + shift))),
        )
        asked = around(model, radius, clauses, seed)
        found = {v: decide_property(model, asked, replace(QUIET, verifier=v)) for v in ("bab", "milp")}
        words = {r.status for r in found.values()}
        assert len(words - {"unknown"}) == 1, [r.reason for r in found.values()]
        assert found["bab"].status != "unknown"
        assert found["bab"].verifier == "bab"
        if reached:
            assert found["bab"].status == "violated"
        for result in found.values():
            if result.status == "violated":
                assert result.witness is not None
                fed = result.witness.x.astype(np.float32).reshape(1, *model.input_shape)
                assert asked.satisfied_by(result.witness.x, Runtime(model).logits(fed))


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
def test_smooth_networks_need_no_program(activation: str) -> None:
    model = load_model(random_model(2, kind="dense", activations=(activation,), classes=3))
    question = around(model, 0.05, (clause(([0, 0, 0], 0.0)),))
    y = sampled(model, question)
    margin = y[:, 0] - y[:, 1]
    room = float(np.ptp(margin))
    for shift, status in ((-0.05 * room, "violated"), (0.2 * room, "proved")):
        asked = around(model, 0.05, (clause(([-1, 1, 0], -(margin.max() + shift))),))
        found = decide_property(model, asked, QUIET)
        assert found.status == status, found.reason
        assert found.runs == 0


@pytest.mark.parametrize("attack", [False, True])
def test_several_boxes_share_the_time(attack: bool) -> None:
    model = load_model(random_model(4, kind="dense", activations=("Relu",), classes=3))
    question = around(model, 0.1, (clause(([0, 0, 0], 0.0)),))
    y = sampled(model, question)
    top = y.max(0)
    never = clause(([-1, 0, 0], -(top[0] + 5.0)))
    reached = clause(([0, -1, 0], -(top[1] - 1e-3)))
    (case,) = question.cases
    boxes = tuple(Case(case.lower, case.upper, c) for c in ((never,), (never, reached), (never,)))
    asked = Property(boxes, question.input_shape, question.output_shape)
    options = VerifyOptions(Limits(threads=1), MilpOptions(attack=attack))
    found = decide_property(model, asked, options)
    assert found.status == "violated"
    assert found.witness is not None
    assert found.witness.case == 1
    assert found.clauses[1][1] == "violated"
    proved = decide_property(model, Property(boxes[::2], asked.input_shape, asked.output_shape), options)
    assert (proved.status, proved.clauses) == ("proved", (("proved",), ("proved",)))


def test_boxes_of_one_point() -> None:
    model = load_model(random_model(5, kind="dense", activations=("Relu",), classes=3))
    point = np.full(int(np.prod(model.input_shape)), 0.5)
    y = Runtime(model).logits(point.astype(np.float32).reshape(1, *model.input_shape)).astype(np.float64)[0]
    for shift, status in ((-1e-2, "violated"), (1e-2, "proved")):
        case = Case(point, point, (clause(([-1, 0, 0], -(y[0] + shift)), ([0, -1, 0], -(y[1] - 1.0))),))
        found = decide_property(model, Property((case,), (point.size,), (3,)), QUIET)
        assert found.status == status, found.reason


def test_without_programs_and_with_little_memory() -> None:
    """Depth-first with next to no room, and no solver at all but for what nothing is left to split of."""
    model = load_model(random_model(1, kind="dense", activations=("Relu",), classes=3))
    question = around(model, 0.15, (clause(([0, 0, 0], 0.0)),))
    y = sampled(model, question)
    margin = y[:, 0] - y[:, 1]
    asked = around(model, 0.15, (clause(([-1, 1, 0], -(margin.max() + 0.02 * np.ptp(margin)))),))
    whole = decide_property(model, asked, QUIET)
    small = decide_property(model, asked, replace(QUIET, bab=BabOptions(memory=2**26, leaf=0, batch=2)))
    assert whole.status == small.status
    assert whole.status in ("proved", "violated")


def test_settings_and_verifier_stand_in_the_answer(data_dir: Path) -> None:
    model = load_model(data_dir / "nets" / "mnist-net_256x2.onnx")
    question = load_property(data_dir / "vnnlib" / "mnistfc21" / "prop_2_0.03.vnnlib.gz", model)
    for verifier in ("bab", "milp"):
        document = decide_property(model, question, replace(QUIET, verifier=verifier)).to_json()
        assert (document["verifier"], document["status"], document["solver"]) == (verifier, "proved", "highs")
        assert ("bab" in document["settings"]) == (verifier == "bab")
    with pytest.raises(InputError, match="--verifier 'nobody' is unknown"):
        VerifyOptions(verifier="nobody")


def test_a_time_limit_ends_the_tree(data_dir: Path) -> None:
    model = load_model(data_dir / "nets" / "cifar_base_kw.onnx")
    (path,) = (data_dir / "vnnlib" / "oval21_2021").glob("*img4631*")
    question = load_property(path, model)
    result = decide_property(model, question, VerifyOptions(Limits(timeout=3.0, threads=1)))
    assert (result.status, result.timed_out, result.interrupted) == ("unknown", True, False)
    assert "the time limit ended it" in result.reason
    # what was proved until then stands
    assert any(mark == "proved" for mark in result.clauses[0])


def test_an_interruption_ends_it_with_what_is_known(data_dir: Path) -> None:
    model = load_model(data_dir / "nets" / "cifar_base_kw.onnx")
    (path,) = (data_dir / "vnnlib" / "oval21_2021").glob("*img4631*")
    question = load_property(path, model)
    said: list[str] = []

    def tell(text: str) -> None:
        said.append(text)
        if "nodes" in text:
            raise KeyboardInterrupt

    result = decide_property(model, question, VerifyOptions(Limits(threads=1, timeout=300)), tell=tell)
    assert (result.status, result.interrupted) == ("unknown", True)
    assert "interrupted" in result.reason
    assert said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "pattern", "nodes"),
    [
        # nine rows that one clause compares: 385 nodes, and 6,635 where each row has a unit of its own
        ("cifar10_small", "marabou21/networkcifar10_small_index9409_eps0.012_target0*", 1500),
        # a program settles what nodes with cuts leave open: 336 nodes, and 1,104 where these count like cheap ones
        ("cifar_base_kw", "oval21_2021/*img4631*", 700),
    ],
)
def test_hard_questions_take_few_nodes(data_dir: Path, network: str, pattern: str, nodes: int) -> None:
    model = load_model(data_dir / "nets" / f"{network}.onnx")
    (path,) = (data_dir / "vnnlib").glob(pattern)
    result = decide_property(model, load_property(path, model), VerifyOptions(Limits(timeout=300, nodes=nodes, threads=1)))
    assert result.status == "proved"
    assert result.nodes <= nodes
