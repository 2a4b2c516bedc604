"""Resize, Upsample, Tile, Expand, DepthToSpace, SpaceToDepth, Where, Trilu, gathers and scatters: the table of these operators."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tests.ops.tools import Array, Case, ints, random

__all__ = ["MOVEMENT"]

F32 = np.float32
SHAPE = (2, 3, 4)
NONE = np.zeros(0, F32)


def _scales(*values: float) -> Array:
    return np.array((1, 1, *values), F32)


def _resize() -> list[Case]:
    found = [Case("Upsample", (SHAPE,), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": m}, (7,)) for m in ("nearest", "linear")]
    found += [Case("Upsample", (SHAPE, _scales(2, 1.5)), {"mode": m}, (9,)) for m in ("nearest", "linear")]
    found += [Case("Resize", (SHAPE, _scales(2, 0.7)), {"mode": m}, (10,)) for m in ("nearest", "linear")]
    places = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn")
    rounds = ("ceil", "floor", "round_prefer_ceil", "round_prefer_floor")
    for place, near in itertools.product(places, rounds):
        given = {"coordinate_transformation_mode": place, "nearest_mode": near}
        # lengths at which no element lies on the border of two neighbours
        lengths = (7, 3) if place == "asymmetric" else (8, 8)
        found.append(Case("Resize", (SHAPE, NONE, _scales(2.3, 0.7)), given, (11,)))
        found.append(Case("Resize", (SHAPE, NONE, NONE, ints(1, 2, *lengths)), given, (11,), dynamic=False))
    for place in (*places[:4], "half_pixel_symmetric"):
        opsets = (19,) if place == "half_pixel_symmetric" else (11, 13, 18, 19)
        for mode in ("linear", "cubic"):
            given = {"coordinate_transformation_mode": place, "mode": mode}
            found.append(Case("Resize", ((2, 5, 4), NONE, _scales(2.4, 0.6)), given, opsets))
            found.append(Case("Resize", ((2, 5, 4), NONE, NONE, ints(1, 2, 3, 9)), given, opsets, dynamic=False))
    cubic: dict[str, Any] = {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}
    found.append(Case("Resize", ((2, 5, 4), NONE, _scales(2.4, 1.6)), cubic, (11, 19)))
    roi = np.array([0, 0, -0.1, 0.2, 1, 1, 0.8, 1.2], F32)
    for mode in ("nearest", "linear", "cubic"):
        given = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode, "extrapolation_value": 0.75}
        found.append(Case("Resize", ((2, 5, 4), roi, _scales(1.5, 2)), given, (11, 13, 19)))
    found += [
        Case("Resize", (SHAPE, None, _scales(1, 1)), {"mode": "linear"}, (13,)),
        Case("Resize", (SHAPE, None, np.array([2, 3], F32)), {"axes": [2, 3], "mode": "linear"}, (18,)),
        Case("Resize", (SHAPE, None, None, ints(7, 9)), {"axes": [3, 2], "keep_aspect_ratio_policy": "not_larger"}, (18,)),
        Case("Resize", (SHAPE, None, None, ints(7, 9)), {"axes": [2, 3], "keep_aspect_ratio_policy": "not_smaller"}, (18,)),
        Case("Resize", ((2, 7), None, np.array([1, 1, 0.4], F32)), {"mode": "linear"}, (13,)),
    ]
    return found


def _chosen() -> list[Case]:
    mask = np.arange(12).reshape(3, 4) % 3 == 0
    minus = np.where(mask, np.float32(-np.inf), np.float32(0.5))
    opsets = (9, 16)
    return [
        Case("Where", (mask, SHAPE, SHAPE), opsets=opsets),
        Case("Where", (mask, SHAPE, np.array(0.7, F32)), opsets=opsets),
        Case("Where", (mask, random((1, 3, 1)), SHAPE), opsets=opsets),
        Case("Where", (mask[None, None], (2, 1, 4), (1, 3, 4)), opsets=opsets),
        Case("Where", (mask[:, :1], random((2, 3, 4)), (1, 1, 4)), opsets=opsets),
        Case("Where", (mask, SHAPE, minus), opsets=opsets, note="infinite where it is not chosen"),
        Case("Where", (np.array(True), SHAPE, random((4,))), opsets=opsets),
        Case("Trilu", (SHAPE,), {}, (14,)),
        Case("Trilu", (SHAPE, np.array(1)), {"upper": 1}, (14,)),
        Case("Trilu", (SHAPE, np.array(-1)), {"upper": 0}, (14,)),
        Case("Expand", ((1, 3, 1), ints(1, 2, 3, 4)), opsets=(8, 13)),
        Case("Expand", ((1, 3, 1), ints(5, 1, 2)), opsets=(13,)),
        Case("Expand", ((1, 3, 1), ints(1)), opsets=(13,)),
    ]


def _reduced() -> list[Case]:
    """Places that are written once, twice and three times; data and updates constant or not."""
    found = []
    along, whole = ints(1, 0, 1, 1).reshape(1, 1, 1, 4), ints(0, 1, 0, 1, 0, 0).reshape(3, 2)
    for reduction in ("add", "mul", "max", "min"):
        late = reduction in ("max", "min")
        given = {"reduction": reduction}
        opsets = (18,) if late else (16, 18)
        for data, updates in ((SHAPE, random((1, 1, 1, 4))), (SHAPE, (1, 1, 4)), (random((1, *SHAPE)), (1, 1, 4))):
            found.append(Case("ScatterElements", (data, along, updates), {"axis": 3, **given}, opsets, dynamic=False))
        found.append(Case("ScatterND", (SHAPE, whole, random((3, 3, 4))), given, opsets, dynamic=False))
    return found


def _selected() -> list[Case]:
    rng = np.random.default_rng(0)
    three = ints(1, 0, 2).reshape(1, 1, 1, 3)
    every = np.stack([np.zeros(4, np.int64), ints(0, 1, 1, 0), ints(2, 0, 1, -2)], axis=-1)
    found = [
        Case("Tile", (SHAPE, ints(1, 2, 1, 3)), opsets=(7, 13)),
        Case("Tile", ((3,), ints(1, 1)), opsets=(13,)),
        Case("GatherND", (SHAPE, ints(1, 2, 0, -1).reshape(1, 2, 2)), {"batch_dims": 1}, (12, 13), dynamic=False),
        Case("GatherND", (SHAPE, ints(1, 0).reshape(1, 2, 1, 1)), {"batch_dims": 2}, (12, 13), dynamic=False),
        Case("GatherElements", (SHAPE, rng.integers(-3, 3, (1, 2, 5, 4))), {"axis": 2}, (11, 13), dynamic=False),
        Case("GatherElements", (SHAPE, rng.integers(0, 4, (1, 1, 2, 6))), {"axis": -1}, (11, 13), dynamic=False),
        Case("ScatterElements", (SHAPE, three, random((1, 1, 1, 3))), {"axis": 3}, (11, 13, 16, 18), dynamic=False),
        Case("ScatterElements", (SHAPE, three, (1, 1, 3)), {"axis": -1}, (11, 13, 16, 18), dynamic=False),
        Case("ScatterElements", (random((1, 2, 4)), ints(1, 0).reshape(1, 2, 1), (2, 1)), {"axis": 2}, (13,), dynamic=False),
        Case("ScatterND", (SHAPE, every[:, :3], random((4, 4))), opsets=(11, 13, 16, 18), dynamic=False),
        Case("ScatterND", (SHAPE, ints(0, 1).reshape(1, 2), (3, 4)), opsets=(11, 13, 16, 18), dynamic=False),
        *_reduced(),
        Case("SpaceToDepth", ((3, 4, 6),), {"blocksize": 2}, (7, 13)),
        Case("DepthToSpace", ((8, 2, 3),), {"blocksize": 2}, (7, 11, 13)),
    ]  # fmt: skip
    found += [Case("DepthToSpace", ((8, 2, 3),), {"blocksize": 2, "mode": m}, (11, 13)) for m in ("DCR", "CRD")]
    return found


MOVEMENT = [*_resize(), *_chosen(), *_selected()]
