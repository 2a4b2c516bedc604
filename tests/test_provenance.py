"""What a substitute says of its origin, and the warning where it meets another anchor."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxsub.errors import ModelError
from onnxsub.layouts import LAYOUTS
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.provenance import Provenance, read_provenance, warn_if_other_anchor
from onnxsub.pruning.prune import PruneOptions, PruneResult, prune
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import VERSION
from tests.random_models import random_model

QUICK = AttackOptions(steps=20, threads=1)
SPACE = InputSpace(-0.5, 1.5, (0.4,), (0.25,))


def question(seed: int = 4, space: InputSpace = SPACE) -> Query:
    model = load_model(random_model(seed, kind="conv", classes=3))
    x0 = np.random.default_rng(seed).random(model.input_shape).astype(np.float32)
    return make_query(model, x0, space=space)


def built(query: Query, layout: str = "chain", select: SelectOptions | None = None) -> PruneResult:
    return prune(query, PruneOptions("con", select or SelectOptions(gamma=0.9), layout, eps=0.05, attack=QUICK))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_where_it_comes_from(layout: str) -> None:
    query = question()
    result = built(query, layout)
    found = read_provenance(load_model(result.proto.SerializeToString()))
    assert found == read_provenance(result.proto)
    assert found == Provenance(
        method="con",
        gamma=0.9,
        keep=sum(result.substitute.selection.kept_per_layer),
        rank=SelectOptions().rank,
        bounds=SelectOptions().bounds_for(query.network.units_and_windows),
        anchor_sha256=query.anchor_sha256,
        model_sha256=query.model.sha256,
        d_adv=result.substitute.d_adv,
        label=query.label,
        domain=(-0.5, 1.5),
        mean=(0.4,),
        std=(0.25,),
        radius=0.05,
        version=VERSION,
        layout=layout,
    )
    assert set(found.to_json()) >= {"method", "gamma", "keep", "anchor", "model", "d_adv", "domain", "radius", "layout"}


def test_a_number_to_keep_is_stated_as_a_share_too() -> None:
    query = question(space=InputSpace())
    found = read_provenance(built(query, select=SelectOptions(gamma=None, keep=5)).proto)
    assert found is not None
    assert found.keep == 5
    assert found.gamma == 1 - 5 / query.network.units
    assert (found.mean, found.std) == ((), ())
    assert found.to_json()["mean"] is None


def test_the_weights_are_those_of_the_file_without_metadata() -> None:
    query = question()
    with_notes, again = built(query).proto, built(query).proto
    assert with_notes.SerializeToString() == again.SerializeToString()
    assert with_notes.ir_version == 8
    assert all(np.isfinite(numpy_helper.to_array(w)).all() for w in with_notes.graph.initializer)


def test_another_anchor_is_warned_of() -> None:
    query, other = question(), question(5)
    proto = built(query).proto
    assert warn_if_other_anchor(proto, query.anchor_sha256) is None
    warning = warn_if_other_anchor(load_model(proto), other.anchor_sha256)
    assert warning is not None
    assert "built for another anchor" in warning
    assert "\n" not in warning
    assert warn_if_other_anchor(query.model, other.anchor_sha256) is None


def test_a_model_that_is_no_substitute_has_none() -> None:
    assert read_provenance(random_model(1)) is None
    assert read_provenance(load_model(random_model(1))) is None


def changed(proto: ModelProto, key: str, value: str | None) -> ModelProto:
    kept = [p for p in proto.metadata_props if p.key != key]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    if value is not None:
        proto.metadata_props.add(key=key, value=value)
    return proto


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("onnxsub.label", "seven", r"metadata onnxsub\.label is 'seven', which cannot be read"),
        ("onnxsub.label", "1.5", r"onnxsub\.label is '1\.5', which cannot be read"),
        ("onnxsub.domain", "0", r"onnxsub\.domain is '0', which cannot be read"),
        ("onnxsub.radius", "nan", r"onnxsub\.radius is 'nan', which cannot be read"),
        ("onnxsub.keep", "inf", r"onnxsub\.keep is 'inf', which cannot be read"),
        ("onnxsub.anchor.sha256", None, r"without the metadata onnxsub\.anchor\.sha256; write it again"),
    ],
)
def test_spoiled_metadata_is_refused(key: str, value: str | None, message: str) -> None:
    proto = changed(built(question()).proto, key, value)
    with pytest.raises(ModelError, match=message):
        read_provenance(proto)


def test_reading_needs_no_torch() -> None:
    code = "import sys, onnxsub.provenance; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
