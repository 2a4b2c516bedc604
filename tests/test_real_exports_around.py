"""Files as they are exported: several outputs, classes and maps at the end, tables, bytes, half precision, open lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import Query, make_query
from onnxsub.reading import Reading
from onnxsub.runtime import Runtime
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import verify

TABLES = ("logreg_default", "mlp_default", "ort_logreg_iris", "pipeline_scaler_mlp_default", "multihead_tuple")
IMAGES = ("head_argmax", "head_sigmoid10", "input_uint8", "fp16_keepio")
READINGS = {"multihead_tuple": Reading("linear_1"), "rapidocr_cls": Reading(input_shape=(3, 48, 192))}


def model_of(data_dir: Path, name: str) -> Model:
    path = data_dir / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return load_model(path, READINGS.get(name))


def inputs(model: Model, n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    x = np.random.default_rng(0).random((n, *model.input_shape))
    return (np.rint(255 * x) if model.whole else x).astype(np.float32)


def said(model: Model, query: Query, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    """The class of one point by the file itself, run without any code of the package."""
    session = onnxruntime.InferenceSession(model.source.SerializeToString(), providers=["CPUExecutionProvider"])
    row = np.repeat(x[None], model.feed.copies, axis=0).astype(model.feed.dtype)
    (y,) = session.run([model.own_output], {model.input: row})
    if isinstance(y, list):  # maps, by label
        return int(np.argmax([y[0][k] for k in sorted(y[0])]))
    return int(y[0]) if model.own.is_class else int(np.argmax(y[0]))


@pytest.mark.parametrize("name", TABLES + IMAGES)
def test_the_network_computes_the_file(data_dir: Path, name: str) -> None:
    model = model_of(data_dir, name)
    x = inputs(model, 4)
    want = Runtime(model).logits(x)
    with torch.no_grad():
        found = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    size = 1 + np.abs(want).max()
    np.testing.assert_allclose(found, want, atol=(2e-3 if name.startswith("fp16") else 1e-4) * size)
    query = make_query(model, x[0])
    assert query.predicted == said(model, query, x[0])


@pytest.mark.parametrize("name", TABLES)
def test_every_step(data_dir: Path, name: str) -> None:
    model = model_of(data_dir, name)
    query = make_query(model, inputs(model, 1)[0])
    found = attack(query, AttackOptions(steps=20, restarts=4))
    assert found.x_adv is not None
    assert said(model, query, found.x_adv) != query.label
    assert verify(query, found.d_adv / 20).status == "proved"
    assert verify(query, found.d_adv * 1.001).status == "violated"
    made = prune(query, PruneOptions(select=SelectOptions(gamma=0.9), attack=AttackOptions(steps=20, restarts=4)))
    assert max(made.preserves.values()) <= 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))
    exact = distance(query, DistanceOptions(limits=Limits(timeout=30)))
    assert exact.status == "exact"
    assert exact.lower <= found.d_adv
    assert exact.witness is not None
    assert exact.witness.kind == "tie" or said(model, query, exact.witness.x) != query.label


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_images(data_dir: Path, name: str) -> None:
    model = model_of(data_dir, name)
    query = make_query(model, inputs(model, 1)[0])
    found = attack(query, AttackOptions(steps=20, restarts=4))
    assert found.x_adv is not None
    assert said(model, query, found.x_adv) != query.label
    assert verify(query, found.d_adv / 50).status == "proved"
    assert verify(query, found.d_adv * 1.01).status == "violated"
    made = prune(query, PruneOptions(select=SelectOptions(gamma=0.9), layout="inplace", attack=AttackOptions(steps=20, restarts=4)))
    assert max(made.preserves.values()) <= 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))


def test_what_is_refused(data_dir: Path) -> None:
    with pytest.raises(ModelError, match=r"'linear_1', 'linear_2'.*--output NAME"):
        load_model(data_dir / "models" / "multihead_tuple.onnx")
    with pytest.raises(UnsupportedOperatorError, match="trees have no bounds here"):
        lower(model_of(data_dir, "forest_probs"))
    with pytest.raises(ModelError, match="--input-shape"):
        load_model(data_dir / "models" / "rapidocr_cls.onnx")
    assert model_of(data_dir, "rapidocr_cls").input_shape == (3, 48, 192)
