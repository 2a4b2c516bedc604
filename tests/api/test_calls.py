"""The calls about anchors: every form of model, one anchor or a batch, old forms and new ones, errors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onnxsub
from tests.api.tools import QUICK, batch, module

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"
SEVEN = np.load(DIGITS.with_name("digits_seven.npy"))


@pytest.fixture(scope="module")
def query() -> onnxsub.Query:
    return onnxsub.make_query(module(), batch()[0], threads=1)


def test_every_form_of_the_model_gives_the_same_answer(tmp_path: Path) -> None:
    x = batch()[0]
    proto = onnxsub.load(module(), example=x).source
    onnxsub.save_model(proto, tmp_path / "net.onnx")
    forms = (module(), proto, proto.SerializeToString(), tmp_path / "net.onnx", str(tmp_path / "net.onnx"), onnxsub.load(proto))
    found = {onnxsub.verify(form, x, eps=0.01, threads=1).status for form in forms}
    assert found == {"proved"}


def test_anchors_are_arrays_tensors_lists_bytes_and_files(tmp_path: Path) -> None:
    x = batch()[0]
    net = onnxsub.load(module(), example=x)
    np.save(tmp_path / "x.npy", x)
    images = np.rint(255 * x).astype(np.uint8)
    for given in (x, x[None], torch.from_numpy(x).requires_grad_(), x.tolist(), tmp_path / "x.npy"):
        assert np.array_equal(onnxsub.make_query(net, given, threads=1).x0, x)
    np.testing.assert_allclose(onnxsub.make_query(net, images, threads=1).x0, images / 255, atol=1e-6)
    wide = onnxsub.make_query(net, images, lower=-1, upper=1, threads=1)
    np.testing.assert_allclose(wide.x0, images / 255 * 2 - 1, atol=1e-6)


def test_old_forms_still_work(query: onnxsub.Query) -> None:
    told: list[tuple[float, float, str]] = []
    options = onnxsub.DistanceOptions(onnxsub.Limits(timeout=20, threads=1), attack=onnxsub.AttackOptions(restarts=2))
    result = onnxsub.distance(query, options, progress=lambda lower, upper, text: told.append((lower, upper, text)))
    assert result.status == "exact"
    assert all(lower <= upper for lower, upper, _ in told)
    assert onnxsub.distance(query, options=options).upper == pytest.approx(result.upper, abs=1e-5)
    eps = 0.5 * result.lower
    for answer in (onnxsub.verify(query, eps), onnxsub.verify(query, eps, onnxsub.VerifyOptions()), onnxsub.verify(query, eps=eps)):
        assert (answer.status, answer.eps) == ("proved", eps)
    bounds = onnxsub.bounds(query, onnxsub.BoundsOptions(eps))
    assert bounds.line == onnxsub.bounds(query, eps).line
    assert onnxsub.annotate(query.model, bounds).metadata_props
    found = onnxsub.attack(query, onnxsub.AttackOptions(restarts=2), progress=lambda share, text: None)
    assert found.d_adv >= result.lower
    pruned = onnxsub.prune(query, onnxsub.PruneOptions(select=onnxsub.SelectOptions(gamma=None, keep=3)))
    assert sum(pruned.substitute.selection.kept_per_layer) == 3
    assert onnxsub.compare(query, pruned.proto, onnxsub.CompareOptions(eps)).certified >= 0


BESIDE: list[Any] = [
    lambda q, x: onnxsub.distance(q, x),
    lambda q, x: onnxsub.distance(q, x, onnxsub.DistanceOptions()),
    lambda q, x: onnxsub.distance(q, onnxsub.DistanceOptions(), onnxsub.DistanceOptions()),
    lambda q, x: onnxsub.verify(q, x, 0.01),
    lambda q, x: onnxsub.verify(q, x, eps=0.01),
    lambda q, x: onnxsub.verify(q, x, 0.01, onnxsub.VerifyOptions()),
    lambda q, x: onnxsub.attack(q, x),
    lambda q, x: onnxsub.prune(q, x, keep=3),
    lambda q, x: onnxsub.bounds(q, x, 0.01),
    lambda q, x: onnxsub.compare(q, q.model, x, 0.01),
    lambda q, x: onnxsub.make_query(q, x),
]


@pytest.mark.parametrize("call", BESIDE)
def test_an_anchor_beside_a_query_is_refused(call: Any, query: onnxsub.Query) -> None:
    """The answer would be about the query's own anchor."""
    with pytest.raises(onnxsub.InputError, match=r"a query has its anchor; leave x out, or give query\.model"):
        call(query, batch()[1])


def test_options_follow_a_query_and_its_radius(query: onnxsub.Query) -> None:
    options = onnxsub.VerifyOptions(limits=onnxsub.Limits(timeout=7, threads=1))
    for answer in (onnxsub.verify(query, 0.01, options), onnxsub.verify(query, None, 0.01, options)):
        assert (answer.status, answer.eps, answer.settings["timeout"]) == ("proved", 0.01, 7)


def test_index_and_array_choose_an_anchor_of_a_file(tmp_path: Path) -> None:
    net = onnxsub.load(module(), example=batch()[0])
    np.savez(tmp_path / "x.npz", a=batch(), b=batch() / 2)
    assert np.array_equal(onnxsub.make_query(net, tmp_path / "x.npz", index=2, array="b", threads=1).x0, batch()[2] / 2)


def test_keywords_do_what_options_do(query: onnxsub.Query) -> None:
    x = batch()[0]
    by_keyword = onnxsub.distance(module(), x, keep=3, method="act", timeout=20, **QUICK)
    assert by_keyword.substitute is not None
    assert (by_keyword.substitute["method"], by_keyword.substitute["keep"]) == ("act", 3)
    assert by_keyword.settings["timeout"] == 20
    assert onnxsub.distance(query, nodes=1, **QUICK).settings["nodes"] == 1
    assert onnxsub.verify(module(), x, 0.01, verifier="milp").verifier == "milp"


def test_the_data_space_is_said_by_keywords() -> None:
    x = batch()[0]
    q = onnxsub.make_query(module(), x, label=1, target=2, lower=-1, upper=2, mean=0.5, std=[2.0], threads=1)
    assert q.space == onnxsub.InputSpace(-1.0, 2.0, (0.5,), (2.0,))
    assert (q.label, q.target) == (1, 2)
    assert onnxsub.make_query(module(), x, space=q.space, threads=1).space == q.space
    each = onnxsub.make_query(module(), x, lower=np.zeros((1, 4, 4)), upper=np.full((1, 4, 4), 2.0), threads=1)
    assert each.space.per_feature


def test_a_radius_per_feature_is_a_scale() -> None:
    eps = np.full((1, 4, 4), 0.01)
    result = onnxsub.verify(module(), batch()[0], eps)
    assert (result.status, result.eps) == ("proved", 1.0)
    with pytest.raises(onnxsub.InputError, match="eps has 3 values"):
        onnxsub.verify(module(), batch()[0], np.full(3, 0.01))
    with pytest.raises(onnxsub.InputError, match="scale has 3 values"):
        onnxsub.attack(module(), batch()[0], scale=np.full(3, 0.01))


def test_a_property_in_place_of_an_anchor(query: onnxsub.Query, tmp_path: Path) -> None:
    from onnxsub.properties import robustness_property, write_property

    path = tmp_path / "p.vnnlib"
    path.write_text(write_property(robustness_property(query, 0.01)))
    assert onnxsub.verify(query.model, property=path).status == "proved"
    with pytest.raises(onnxsub.InputError, match="give model and property alone"):
        onnxsub.verify(query.model, eps=0.1, property=path)


def test_a_module_of_several_calls_keeps_its_mode() -> None:
    net = module().train()
    onnxsub.verify(net, batch()[0], 0.01)
    assert net.training
    assert onnxsub.info(net, batch()[0]).units == 7


WRONG: list[tuple[Any, str]] = [
    (lambda x: onnxsub.distance(module(), x, timout=3), "is timeout meant"),
    (lambda x: onnxsub.distance(module(), x, timeout="3"), "timeout is '3'; give a number"),
    (lambda x: onnxsub.distance(module(), x, timeout=-3), "positive"),
    (lambda x: onnxsub.distance(3, x), "a model is given as int"),
    (lambda x: onnxsub.distance(module()), "there is no anchor"),
    (lambda x: onnxsub.distance(module(), x[:, :3]), "does not take"),
    (lambda x: onnxsub.distance(onnxsub.load(module(), example=x), x[:, :3]), r"shape \[1, 3, 4\], the model wants \[1, 4, 4\]"),
    (lambda x: onnxsub.distance(module(), x + 5), "outside the domain .*lower and upper"),
    (lambda x: onnxsub.distance(module(), np.stack([x, x + 5])), "anchor 1"),
    (lambda x: onnxsub.distance(module(), np.stack([x, x]), label=[0, 7]), "label 7 of anchor 1"),
    (lambda x: onnxsub.distance(module(), np.stack([x, x]), label=[0, 1, 2]), "one for each anchor"),
    (lambda x: onnxsub.distance(module(), x, rank="width"), "say which one with method= and gamma="),
    (lambda x: onnxsub.distance(module(), x, gamma=0.9, keep=3), "not both"),
    (lambda x: onnxsub.distance(module(), x, tighten="lp"), "of verifier milp"),
    (lambda x: onnxsub.distance(module(), x, space=onnxsub.InputSpace(), lower=0), "give either"),
    (lambda x: onnxsub.distance(module(), x, progress=3), "progress is 3"),
    (lambda x: onnxsub.distance(onnxsub.load(module(), example=x), x, run="r"), "is no batch"),
    (lambda x: onnxsub.distance(module(), np.stack([x, x]), run="r", scale=x), "scale is not possible with run"),
    (lambda x: onnxsub.verify(module(), x), "eps is missing"),
    (lambda x: onnxsub.verify(module(), x, "a"), "eps is 'a'; give a number"),
    (lambda x: onnxsub.bounds(module(), np.stack([x, x]), 0.1), "takes one anchor, not a batch of 2"),
    (lambda x: onnxsub.compare(module(), module(), x), "eps is missing"),
    (lambda x: onnxsub.verify(onnxsub.make_query(module(), x), 0.1, label=2), "a query says that already"),
    (lambda x: onnxsub.prune(module(), np.stack([x, x]), path="a.onnx"), "of one substitute"),
    (lambda x: onnxsub.load("none.onnx"), "does not exist"),
    (lambda x: onnxsub.distance(module(), np.stack([x, x]), onnxsub.DistanceOptions(), run="r"), "options is not possible"),
    (lambda x: onnxsub.verify(module(), np.stack([x, x]), 0.1, onnxsub.VerifyOptions(), run="r"), "options is not possible"),
    (lambda x: onnxsub.evaluate(module(), run="r"), "needs data"),
    (lambda x: onnxsub.evaluate(timeout=3, run="r"), "about a new run"),
    (lambda x: onnxsub.robustness(module(), x, run="r"), "eps is missing"),
    (lambda x: onnxsub.gate(module(), data=x), "eps is missing"),
    (lambda x: onnxsub.gate(module(), data=x[None], eps=0.1, array="a"), "array names an array of an .npz file"),
    (lambda x: onnxsub.gate(module(), data=x[None], labels=["a"], eps=0.1), "labels is an array of <U1"),
    (lambda x: onnxsub.gate(module(), data=x[None], labels=[0.5], eps=0.1), "labels hold float64 values"),
    (lambda x: onnxsub.gate(module(), data=x[None], labels="y.npy", eps=0.1), "give an array of labels, or 'predicted'"),
    (lambda x: onnxsub.gate(module(), data=x[None], labels=[5], classes="3,4", eps=0.1), "the class name '5'"),
    (lambda x: onnxsub.evaluate(module(), x[None], run="r", array="a"), "array names an array of an .npz file"),
    (lambda x: onnxsub.robustness(module(), x[None], eps=0.1, run="r", array="a"), "array names an array of an .npz file"),
    (lambda x: onnxsub.report("no-run"), "is no run folder"),
    *((call, "index and array belong to a file; give x") for call in (
        lambda x: onnxsub.verify(module(), np.stack([x, x]), 0.02, index=1),
        lambda x: onnxsub.distance(module(), x, array="foo"),
        lambda x: onnxsub.make_query(module(), x, index=0),
        lambda x: onnxsub.bounds(module(), x, 0.1, array="foo"),
        lambda x: onnxsub.verify(module(), np.stack([x, x]), 0.02, index=1, run="r"),
    )),
]


@pytest.mark.parametrize(("call", "match"), WRONG, ids=[match for _, match in WRONG])
def test_what_is_wrong_is_an_error_of_one_line(call: Any, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(onnxsub.OnnxsubError, match=match) as raised:
        call(batch()[0])
    assert "\n" not in str(raised.value)
    assert "--" not in str(raised.value)
    assert not list(tmp_path.iterdir()), "nothing is written for a question that cannot be asked"


def test_time_that_ends_is_an_error_where_nothing_is_known() -> None:
    with pytest.raises(onnxsub.OutOfTimeError, match="the time limit ended bounds"):
        onnxsub.bounds(DIGITS, SEVEN, 0.1, method="alpha-crown", timeout=1e-6)
    assert issubclass(onnxsub.OutOfTimeError, TimeoutError)


def test_results_are_one_line_and_can_be_pickled(query: onnxsub.Query, tmp_path: Path) -> None:
    x = batch()[0]
    results = [
        query, query.model, onnxsub.info(query.model), onnxsub.distance(query, gamma=0.5, timeout=10, **QUICK),
        onnxsub.verify(query, 0.01), onnxsub.attack(query, restarts=2), onnxsub.bounds(query, 0.01),
        onnxsub.prune(query, keep=3, restarts=2), onnxsub.compare(query, query.model, 0.01, samples=10),
        onnxsub.verify(module(), batch(), 0.01),
        onnxsub.smallest_margin(query, (query.label + 1) % 3, 0.01, onnxsub.MarginOptions()),
        onnxsub.decide_local(query, onnxsub.make_property("cr", 0.01)),
    ]  # fmt: skip
    for result in results:
        line = repr(result)
        assert line.startswith(type(result).__name__ + "(")
        assert "\n" not in line
        assert len(line) < 200
        again = pickle.loads(pickle.dumps(result))
        assert repr(again) == line
        assert line.split("(")[0] in result._repr_html_()
    again = pickle.loads(pickle.dumps(query))
    assert np.array_equal(again.logits(x[None]), query.logits(x[None]))


def test_a_notebook_shows_anchor_point_and_difference(query: onnxsub.Query) -> None:
    html = onnxsub.attack(query, restarts=2)._repr_html_()
    assert html.count("data:image/png;base64,") == 3
    assert "difference" in html
    proved = onnxsub.verify(query, 0.001)._repr_html_()
    assert proved.count("data:image/png;base64,") == 1


def test_features_that_are_no_image_are_listed() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    html = onnxsub.attack(net, np.full(5, 0.5), restarts=2, lower=-2, upper=3)._repr_html_()
    assert "<td>4</td>" in html
    assert "image/png" not in html


def test_the_picture_is_of_the_input_where_distances_count_units_of_a_scale() -> None:
    x = batch()[0]
    result = onnxsub.attack(module(), x, scale=np.full((1, 4, 4), 0.5), restarts=2)
    assert result.sight is not None
    np.testing.assert_allclose(result.sight.x0, x)
    assert result.sight.point is not None
    np.testing.assert_allclose(np.abs(result.sight.point - x).max(), 0.5 * result.d_adv, rtol=1e-4)
