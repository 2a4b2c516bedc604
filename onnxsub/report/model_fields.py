"""What is known of a network beside its robustness: fields of its card, of its recipe, and of the file itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx.numpy_helper

from onnxsub.documents import parse_json, read_json
from onnxsub.errors import InputError, OnnxsubError, OptionError
from onnxsub.model import Model, load_model
from onnxsub.model_info import info
from onnxsub.reading import Reading

__all__ = ["FIELDS", "fields_of", "grouped"]

FIELDS = ("depth", "width", "parameters", "sparsity", "epochs", "training")
"""Names that every network may have; others are paths into its card, such as `architecture.name`."""

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearConv", "QLinearMatMul", "ConvInteger")
_RECIPE = "onnxsub.zoo"
_MOST = 8  # groups of numbers; more distinct ones are joined
_CARD = 2**22  # bytes
_LARGEST = 1e300  # whole numbers of a card may be beyond floats, and then they are names


def fields_of(entry: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """Field -> value of a network, as far as its file and the card beside it are still there and still those of the run.

    `depth`: layers with weights. `width`: units of the widest activation. `parameters`. `sparsity`: share of the weights of these
    layers that are 0. `epochs`, `training`: of its recipe. Fields of the card by their paths.

    Args:
        entry: of the network in `run.toml`.
    """
    path = Path(entry["path"])
    found: dict[str, Any] = {"training": entry.get("training") or None}
    try:
        model = load_model(path, reading)
    except OnnxsubError:
        return {k: v for k, v in found.items() if v is not None}
    if model.sha256 != entry["sha256"]:
        return {k: v for k, v in found.items() if v is not None}
    card = _card(path.with_suffix(".json"), entry["sha256"])
    recipe = _mapping(card.get("recipe")) or _recipe(model)
    found |= _flat(card) | _of_file(model)
    phases = recipe.get("phases")
    if isinstance(phases, list) and all(isinstance(p, Mapping) and isinstance(p.get("epochs"), int) for p in phases):
        found["epochs"] = sum(p["epochs"] for p in phases)
    regime = _mapping(recipe.get("regime")).get("name")
    if isinstance(regime, str):
        found["training"] = regime
    return {k: v for k, v in found.items() if v is not None}


def grouped(field: str, values: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Group -> its networks, in ascending order; numbers of many values are joined to ranges with about as many networks each.

    Args:
        values: network -> its fields.

    Raises:
        OptionError: no network has the field.
    """
    known = {name: own[field] for name, own in values.items() if field in own}
    if not known:
        there = sorted({key for own in values.values() for key in own if "." not in key})
        raise OptionError(f"--group {field}: no network has it; of these networks are known: {', '.join(there) or 'nothing'}")
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < _LARGEST for v in known.values())
    distinct: list[Any] = sorted(set(known.values())) if numbers else sorted({str(v) for v in known.values()})
    if numbers and len(distinct) > _MOST:
        edges = np.quantile(sorted(known.values()), (0.25, 0.5, 0.75))
        parts: list[list[str]] = [[] for _ in range(4)]
        for name in sorted(known, key=lambda n: known[n]):
            parts[int((known[name] > edges).sum())].append(name)
        named = [(f"{known[p[0]]:.4g} to {known[p[-1]]:.4g}", p) for p in parts if p]
    else:
        named = [
            (f"{v:.4g}" if isinstance(v, float) else str(v), [n for n, own in known.items() if (own if numbers else str(own)) == v])
            for v in distinct
        ]
    found: dict[str, list[str]] = {}
    for label, names in named:
        found.setdefault(label, []).extend(names)  # numbers that are written alike are one group
    if left := [name for name in values if name not in known]:
        found.setdefault("not known", []).extend(left)
    return found


def _of_file(model: Model) -> dict[str, Any]:
    facts = info(model)
    stored = {t.name: t for t in model.form.graph.initializer}
    layers = [node for node in model.form.graph.node if node.op_type in _WEIGHTED]
    weights = {name: stored[name] for node in layers for name in node.input if name in stored and len(stored[name].dims) > 1}
    arrays = [onnx.numpy_helper.to_array(t) for t in weights.values()]
    total = sum(a.size for a in arrays)
    return {
        "depth": len(layers) or None,
        "width": max((a.units for a in facts.activations), default=None),
        "parameters": facts.parameters,
        "sparsity": sum(int((a == 0).sum()) for a in arrays) / total if total else None,
    }


def _card(path: Path, sha256: str) -> Mapping[str, Any]:
    """The card of a network; nothing where it is not there, or another network's."""
    try:
        if not path.is_file() or path.stat().st_size > _CARD:
            return {}
        card = _mapping(read_json(path))
    except (OSError, ValueError, InputError):
        return {}
    return card if _mapping(card.get("file")).get("sha256") == sha256 else {}


def _recipe(model: Model) -> Mapping[str, Any]:
    try:
        return _mapping(parse_json(model.metadata.get(_RECIPE, "{}")))
    except ValueError:
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= _flat(inner, f"{prefix}{key}.")
        elif isinstance(inner, str | int) or (isinstance(inner, float) and math.isfinite(inner)):
            found[f"{prefix}{key}"] = inner
    return found
