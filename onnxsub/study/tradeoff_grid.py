"""The grid of the study of accuracy against robustness: a TOML file whose lists span the networks.

`docs/studies/tradeoff.md` describes the keys. A table says one family; each list in it is an axis, and `pick` takes so many of its
points at random (without replacement, by the seed), so that a small study is a part of the full one.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from onnxsub.checked import checked
from onnxsub.documents import read_toml
from onnxsub.errors import InputError, OptionError
from onnxsub.files import one_line
from onnxsub.metrics.intervals import check_confidence, hoeffding_samples
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.bayes import BayesRecipe
from onnxsub.zoo.iterative import Pruning
from onnxsub.zoo.recipe import Phase, Recipe

__all__ = ["ATTACKS", "KINDS", "Grid", "Member", "read_grid"]

KINDS = ("sgd", "pruned", "bayes")
"""Networks by stochastic gradients; such networks with weights taken away; means of samples of a posterior."""

ATTACKS = ("batch", "fast")
"""How shares are found: a run of `robustness`, or some ascents."""

_SHAPE = ("width", "filters", "kernel", "depth", "activation")
_TRAINING = ("rate", "epochs")
_PRUNING = ("share", "rounds", "retrain")
_SAMPLING = ("prior", "step", "steps", "warm_up", "samples", "chains", "members")
_OF: Mapping[str, tuple[str, ...]] = {
    "sgd": _SHAPE + _TRAINING, "pruned": _SHAPE + _TRAINING + _PRUNING, "bayes": _SHAPE + _SAMPLING,
}  # fmt: skip
_USUAL: Mapping[str, Any] = {
    "kernel": 3, "depth": 1, "activation": "relu", "rate": 1e-3, "epochs": 5, "share": 0.9, "rounds": 1, "retrain": 2,
    "members": 20,
    **{f.name: f.default for f in fields(BayesRecipe) if f.name in _SAMPLING},
}  # fmt: skip
_NUMBERS = {"activation": str, "rate": float, "share": float, "prior": float, "step": float}
_MOST = 100_000


@dataclass(frozen=True)
class Member:
    """A network of the grid.

    Attributes:
        kind: one of `KINDS`. values: of every axis that the kind has.
    """

    kind: str
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its files: all that tells it from the others."""
        v = self.values
        size = f"cnn{v['filters']}x{v['depth']}k{v['kernel']}" if "filters" in v else f"mlp{v['width']}x{v['depth']}"
        words = [self.kind, size, v["activation"]]
        if "rate" in v:
            words += [f"r{v['rate']:g}", f"e{v['epochs']}"]
        if "share" in v:
            words += [f"p{100 * v['share']:g}x{v['rounds']}", f"t{v['retrain']}"]
        if self.kind == "bayes":
            words.append("-".join(f"{key.replace('_', '')}{v[key]:g}" for key in _SAMPLING if v[key] != _USUAL[key]))
        return "-".join(w for w in words if w)

    @property
    def architecture(self) -> str:
        """As `onnxsub.zoo.architectures.architecture` takes it."""
        v = self.values
        if "filters" in v:
            return f"cnn:{v['filters']}x{v['depth']}:k{v['kernel']}:{v['activation']}"
        return f"mlp:{v['width']}x{v['depth']}:{v['activation']}"

    def recipe(self, data: str, seed: int) -> Recipe:
        """Of the training, of the one before pruning."""
        phases = (Phase(self.values["epochs"]),)
        return Recipe(data, self.architecture, 0.0, phases, batch=100, rate=self.values["rate"], climb=0.1, seed=seed)

    def base(self) -> Member:
        """Of a pruned network: the one that it was."""
        return Member("sgd", {key: value for key, value in self.values.items() if key not in _PRUNING})

    @property
    def pruning(self) -> Pruning:
        """Of a pruned network."""
        v = self.values
        return Pruning(v["share"], v["rounds"], v["retrain"], v["rate"])

    def posterior(self, data: str, seed: int) -> BayesRecipe:
        """Of a Bayesian network."""
        chosen = {key: self.values[key] for key in _SAMPLING if key != "members"}
        return BayesRecipe(data, self.architecture, seed=seed, **chosen)


@dataclass(frozen=True)
class Grid:
    """The networks, and what is asked of each.

    Attributes:
        members: in the order of the file, each once. eps: radius of the attacks. error, confidence: of every share that is
            reported, which say how many test images are attacked. train: training images, the first ones; None: all. seed: of
            everything random. least: accuracy from which on a network counts in a correlation. attack: one of `ATTACKS`.
    """

    members: tuple[Member, ...]
    eps: float = 0.05
    error: float = 0.05
    confidence: float = 0.95
    train: int | None = None
    seed: int = 0
    least: float = 0.5
    attack: str = "batch"

    @property
    def images(self) -> int:
        """Test images that the error takes."""
        return hoeffding_samples(self.error, self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Plain values; members as their names."""
        keys = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "members"}
        return {**keys, "members": [m.name for m in self.members]}


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid of a file.

    Raises:
        InputError: it is no TOML, a key is unknown or missing, a value is of another kind or impossible, nothing is left.
    """
    what = f"grid {os.fspath(path)!r}"
    try:
        return _grid(path, what)
    except OptionError as error:  # what is impossible of an option stands in a file here
        raise InputError(f"{what}: {error}") from error


def _grid(path: str | os.PathLike[str], what: str) -> Grid:
    try:
        keys = read_toml(path)
    except FileNotFoundError:
        raise InputError(f"{what} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{what} cannot be read as TOML ({one_line(error, 80)}); correct it") from error
    plain = {f.name: f.type for f in fields(Grid) if f.name != "members"}
    for key in keys:
        if key not in plain and key not in KINDS:
            raise InputError(f"{what} has an unknown key {key}; it may have {', '.join((*plain, *KINDS))}")
    kinds = {key: {"s": str, "i": int}.get(str(kind)[0], float) for key, kind in plain.items()}
    chosen = {key: _checked(keys[key], kinds[key], f"{what}: {key}") for key in plain if key in keys}
    seed = chosen.get("seed", 0)
    if not 0 <= seed < 2**63 or chosen.get("train", 1) < 1:
        raise InputError(f"{what}: seed must be 0 or more and below 2^63, and train 1 or more; change it")
    found: dict[str, Member] = {}
    for kind in KINDS:
        tables = keys.get(kind, [])
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise InputError(f"{what}: {kind} must be tables; write [[{kind}]]")
        for number, table in enumerate(tables):
            for member in _family(kind, table, seed, f"{what}, [[{kind}]] {number + 1}"):
                found.setdefault(member.name, member)
    if not found:
        raise InputError(f"{what} has no network; add a table [[sgd]] with a width")
    grid = Grid(tuple(found.values()), **chosen)
    check_confidence(grid.confidence)
    _ = grid.images
    if grid.attack not in ATTACKS:
        raise InputError(f"{what}: attack is {grid.attack!r}; choose {' or '.join(ATTACKS)}")
    if not 0 < grid.eps <= 1 or not 0 <= grid.least <= 1:
        raise InputError(f"{what}: eps must lie in (0, 1] and least in [0, 1]; change it")
    return grid


def _family(kind: str, table: Mapping[str, Any], seed: int, what: str) -> Iterator[Member]:
    """The networks of a table, in the order of its axes."""
    rest = dict(table)
    pick = rest.pop("pick", None)
    for key in rest:
        if key not in _OF[kind]:
            raise InputError(f"{what} has an unknown key {key}; it may have {', '.join(_OF[kind])} and pick")
    if ("width" in rest) == ("filters" in rest) or ("kernel" in rest and "width" in rest):
        raise InputError(f"{what} needs width (dense layers), or filters and kernel (convolutions); give one of the two")
    used = [key for key in _OF[kind] if key in rest or (key in _USUAL and not (key == "kernel" and "width" in rest))]
    axes = [_axis(rest.get(key, _USUAL.get(key)), key, what) for key in used]
    total = int(np.prod([len(axis) for axis in axes], dtype=object))
    if total > _MOST:
        raise InputError(f"{what} spans {total:,} networks, more than {_MOST:,}; make its lists shorter")
    chosen = range(total)
    if pick is not None:
        count = _checked(pick, int, f"{what}: pick")
        if not 1 <= count <= total:
            raise InputError(f"{what}: pick is {count}, and the lists span {total} networks; give 1 to {total}")
        chosen = sorted(np.random.default_rng((seed, KINDS.index(kind))).permutation(total)[:count])  # type: ignore[assignment]
    points = list(itertools.product(*axes))
    for i in chosen:
        member = Member(kind, dict(zip(used, points[i], strict=True)))
        _ = architecture(member.architecture)  # refuses what is impossible before anything is trained
        _ = member.posterior("", seed) if kind == "bayes" else member.recipe("", seed)
        _ = member.pruning if kind == "pruned" else None
        if kind == "bayes" and not 1 <= member.values["members"] <= member.values["chains"] * member.values["samples"]:
            raise InputError(f"{what}: members must be 1 to chains times samples; change it")
        yield member


def _axis(value: Any, key: str, what: str) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InputError(f"{what}: {key} is an empty list; give at least one value")
    checked = tuple(_checked(v, _NUMBERS.get(key, int), f"{what}: {key}") for v in values)
    if len(set(checked)) < len(checked):
        raise InputError(f"{what}: {key} names a value twice; give each once")
    return checked


def _checked(value: Any, kind: type, what: str) -> Any:
    """The value as a number or text of the kind."""
    found = checked(what, value, kind)
    if kind is float and not math.isfinite(found):
        raise InputError(f"{what} is {found:g}; give a finite number")
    return found
