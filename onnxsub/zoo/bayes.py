r"""Bayesian networks: samples of the posterior of all weights by Hamiltonian Monte Carlo, in chains that go on where they ended.

    U(z) = sum_i CE(f_w(x_i), y_i) + |z|^2 / 2,    w = prior * s * z,    s = 1 / sqrt(inputs of the layer)

The posterior is that of a Gaussian prior with standard deviation `prior * s` on every weight and bias (Neal 1996, chapter 2) and of
the categorical likelihood, without tempering. `z` has the identity as its mass. The sampler is Pyro's (`pyro.infer.HMC`: leapfrog
steps, Metropolis correction, step size by dual averaging while the chain warms up). Energies are summed in float64, the network
runs in float32.

A chain's state is its position, since every trajectory draws new momenta: after the warm-up it is written in blocks, each of which
begins where the one before ended with random numbers of its own. A kill loses one block and changes nothing, and more samples or
chains go on from those that are there.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxsub.errors import InputError, MissingDependencyError, OptionError
from onnxsub.files import make_folder, one_line, write_atomic
from onnxsub.limits import check_regular
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.build import build
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.train import on_unit_scale

__all__ = ["BayesRecipe", "Chain", "hamiltonian", "member", "sample_chains"]

BLOCK = 10
"""Samples between two writes."""

_SCHEMA = "onnxsub.chain/1"
_LONGER = ("samples", "chains")  # may grow
_FEWEST = 4  # samples per chain of which R-hat can be had: two halves of two

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class BayesRecipe:
    """All that decides the samples, beside the images.

    Attributes:
        data: name of the data set. architecture: as `architecture` takes it.
        prior: standard deviation of a weight, in units of `1 / sqrt(inputs of its layer)`.
        step, steps: a trajectory has the length `step * steps`, in units of `z`. adapt: the warm-up changes the step, but not the
            length, until eight of ten trajectories are accepted.
        warm_up: trajectories that are thrown away. samples: trajectories per chain after them. chains: each from first weights of
            its own. seed: of these, and of everything random.
    """

    data: str
    architecture: str
    prior: float = 1.0
    step: float = 0.05
    steps: int = 30
    adapt: bool = True
    warm_up: int = 50
    samples: int = 100
    chains: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", architecture(self.architecture).name)
        for name, value in (("prior", self.prior), ("step", self.step)):
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"--{name} {value:g} is not possible; give a positive number")
        for name, low in (("steps", 1), ("warm_up", 0), ("samples", _FEWEST), ("chains", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)} is not possible; give {low} or more")
        if self.adapt and not self.warm_up:
            raise OptionError("a step that is adapted needs a warm-up; give --warm-up, or --no-adapt")

    @property
    def budget(self) -> float:
        """Of attacked images in training: none."""
        return 0.0

    @property
    def model_name(self) -> str:
        """The stem of its files."""
        return f"{self.data}-{self.architecture.lower().replace(':', '-')}-hmc"

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Chain:
    """One chain after its warm-up.

    Attributes:
        weights: `(samples, parameters)` float32, in the order of the network's parameters.
        step: of the leapfrog. accepted: share of the trajectories. divergent: of them, those whose energy was lost.
        seconds: spent, the warm-up included.
    """

    weights: Tensor = field(repr=False)
    step: float
    accepted: float
    divergent: int
    seconds: float


def hamiltonian() -> Any:
    """Pyro's HMC class. Raises MissingDependencyError."""
    try:
        from pyro.infer import HMC
    except ImportError as error:
        raise MissingDependencyError('Hamiltonian Monte Carlo needs Pyro; run pip install "onnxsub[bayes]"') from error
    return HMC


def sample_chains(recipe: BayesRecipe, data: ImageSet, folder: Path, *, progress: Report | None = None) -> tuple[Chain, ...]:
    """All chains of a recipe; what `folder` holds of them is not done again.

    Raises:
        MissingDependencyError: Pyro is not installed, and something is left to be sampled.
        InputError: the folder holds chains of another recipe or of other images, or a damaged file. OutputError.
    """
    target = _Target(recipe, data)
    total = recipe.chains * (recipe.warm_up + recipe.samples)
    chains = []
    for number in range(recipe.chains):

        def say(done: int, text: str, number: int = number) -> None:
            if progress is not None:
                progress((number * (recipe.warm_up + recipe.samples) + done) / total, f"chain {number + 1}: {text}")

        chains.append(_chain(target, folder / f"chain-{number}", number, say))
    return tuple(chains)


def member(recipe: BayesRecipe, data: ImageSet, weights: Tensor) -> nn.Sequential:
    """The network with one sample's weights `(parameters,)`."""
    net = build(architecture(recipe.architecture), data.shape, data.classes).eval()
    nn.utils.vector_to_parameters(weights.clone(), net.parameters())
    return net.requires_grad_(False)


class _Target:
    """The energy of a posterior, and what identifies it."""

    def __init__(self, recipe: BayesRecipe, data: ImageSet) -> None:
        self.recipe = recipe
        self.identity: Mapping[str, Any] = {"recipe": recipe.to_json(), "train_sha256": data.train.sha256}
        self._data = data
        self._net = self.start(0)
        self._x, self._y = on_unit_scale(torch.from_numpy(data.train.x)), torch.from_numpy(data.train.y)
        self._shapes = {name: p.shape for name, p in self._net.named_parameters()}
        self.scale = recipe.prior * torch.cat(
            [torch.full((shape.numel(),), _share(self._shapes, name)) for name, shape in self._shapes.items()]
        )

    def start(self, chain: int) -> nn.Sequential:
        """The network with the first weights of a chain."""
        seed = int(np.random.SeedSequence((self.recipe.seed, chain)).generate_state(1)[0])
        return build(architecture(self.recipe.architecture), self._data.shape, self._data.classes, seed)

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """`U` at `values["z"]` `(parameters,)` float64."""
        z = values["z"]
        flat = z.float() * self.scale
        parts = torch.split(flat, [shape.numel() for shape in self._shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        logits = torch.func.functional_call(self._net, weights, (self._x,))
        return nn.functional.cross_entropy(logits.double(), self._y, reduction="sum") + z.square().sum() / 2


def _share(shapes: Mapping[str, torch.Size], name: str) -> float:
    """`1 / sqrt(inputs)` of the layer that a parameter belongs to."""
    return float(1 / math.sqrt(shapes[f"{name.rpartition('.')[0]}.weight"][1:].numel()))


def _chain(target: _Target, folder: Path, number: int, say: Callable[[int, str], None]) -> Chain:
    """Warm-up, then blocks; block 0 is the warm-up's end."""
    recipe = target.recipe
    first = folder / "block-000.pt"
    blocks = [_read(first, target) if first.exists() else _write(first, target, _warm(target, number, say))]
    for b, begin in enumerate(range(0, recipe.samples, BLOCK), start=1):
        path = folder / f"block-{b:03d}.pt"
        count = min(BLOCK, recipe.samples - begin)

        def told(done: int, begin: int = begin) -> None:
            say(recipe.warm_up + begin + done, f"sample {begin + done + 1} of {recipe.samples}")

        block = _read(path, target) if path.exists() else None
        if block is None or len(block["weights"]) != count:  # the last block of fewer samples
            block = _write(path, target, _sampled(target, (number, b), blocks[-1]["last"], blocks[0]["step"], count, told))
        blocks.append(block)
    return Chain(
        torch.cat([block["weights"] for block in blocks[1:]]), blocks[0]["step"],
        sum(block["accepted"] for block in blocks[1:]) / recipe.samples,
        sum(block["divergent"] for block in blocks[1:]), sum(block["seconds"] for block in blocks),
    )  # fmt: skip


def _warm(target: _Target, number: int, say: Callable[[int, str], None]) -> dict[str, Any]:
    """Block 0: where the chain begins, and with which step."""
    recipe = target.recipe
    z = nn.utils.parameters_to_vector(target.start(number).parameters()).detach() / target.scale

    def told(done: int) -> None:
        say(done, f"warm-up, trajectory {done + 1} of {recipe.warm_up}")

    block = _sampled(target, (number, 0), z.double(), recipe.step, recipe.warm_up, told, warm=True)
    return {**block, "weights": block["weights"][:0]}


def _sampled(
    target: _Target, stream: tuple[int, int], z: Tensor, step: float, count: int, say: Callable[[int], None], *, warm: bool = False
) -> dict[str, Any]:
    """`count` trajectories from `z`, with random numbers of the stream's own; the caller's stay as they are."""
    recipe, since = target.recipe, time.monotonic()
    adapt = warm and recipe.adapt
    kernel = hamiltonian()(
        potential_fn=target, step_size=step, trajectory_length=recipe.step * recipe.steps, adapt_step_size=adapt,
        adapt_mass_matrix=False,
    )  # fmt: skip
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((recipe.seed, *stream)).generate_state(1)[0]))
        point = {"z": z.clone()}
        kernel.initial_params = point
        kernel.setup(count if warm else 0)
        for i in range(count):
            say(i)
            point = kernel.sample(point)
            found.append((point["z"].float() * target.scale).detach())
        after: Mapping[str, Any] = {"acceptance rate": 0.0, "divergences": []} if warm else kernel.diagnostics()
    none = torch.zeros((0, len(z)))
    return {
        "weights": torch.stack(found) if found else none, "last": point["z"].detach().clone(), "step": float(kernel.step_size),
        "accepted": round(float(after["acceptance rate"]) * count), "divergent": len(after["divergences"]),
        "seconds": time.monotonic() - since,
    }  # fmt: skip


def _write(path: Path, target: _Target, block: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save({"schema": _SCHEMA, **target.identity, **block}, buffer)
    make_folder(path.parent, "choose another --run")
    write_atomic(path, buffer.getvalue())
    return block


def _read(path: Path, target: _Target) -> dict[str, Any]:
    what = f"chain file {str(path)!r}"
    check_regular(path, what)
    try:
        block = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, OSError and more on other files
        raise InputError(f"{what} is damaged ({one_line(error, 80)}); delete it, and the same command samples it again") from error
    if not isinstance(block, dict) or block.get("schema") != _SCHEMA:
        raise InputError(f"{what} is none of this version of onnxsub; choose another --run")
    theirs, ours = {**block["recipe"], "images": block["train_sha256"]}, {**target.recipe.to_json()}
    ours["images"] = target.identity["train_sha256"]
    for key, value in ours.items():
        if key not in _LONGER and theirs.get(key) != value:
            raise InputError(
                f"{what} is of another posterior: {key} is {theirs.get(key)} there and {value} here; choose another --run"
            )
    return dict(block)
