"""A posterior as a file: how well its chains agree, and the mean of the softmaxes of some of its networks as one ONNX model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.compose import add_prefix_graph
from torch import Tensor, nn

from onnxsub.errors import ModelError, OptionError
from onnxsub.ops.base import Array
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.bayes import BayesRecipe, Chain, member, sample_chains
from onnxsub.zoo.card import LICENCE, SCHEMA, Card, facts, file_facts, measure
from onnxsub.zoo.export import TOLERANCE, layers_onnx, zoo_model
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.train import on_unit_scale

__all__ = ["MIXED", "Mean", "Mixing", "Posterior", "check_mean", "mean_onnx", "mixing", "posterior"]

MIXED = 1.1
"""Chains agree where R-hat is at most this."""

_PROBES = 500  # images on which chains are compared

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Mixing:
    """How well chains agree on what they predict: split R-hat (Gelman et al. 2013, section 11.4) of every class of every image.

    Attributes:
        images: that were predicted. largest, most, median: of all R-hats; `most` bounds 99 of 100. share: of those above `MIXED`.
    """

    images: int
    largest: float
    most: float
    median: float
    share: float

    @property
    def mixed(self) -> bool:
        """Whether no R-hat is above `MIXED`."""
        return self.largest <= MIXED

    def to_json(self) -> dict[str, Any]:
        """Plain values; an R-hat without bound, of chains that stand still, is None."""
        numbers = {key: getattr(self, key) for key in ("largest", "most", "median")}
        known = {key: value if np.isfinite(value) else None for key, value in numbers.items()}
        return {"images": self.images, "limit": MIXED, **known, "above": self.share, "mixed": self.mixed}


class Mean(nn.Module):
    """The logarithm of the mean of the softmaxes of some networks, so that its own softmax is that mean."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, ...)` to `(N, classes)`."""
        logs = torch.stack([net(x).log_softmax(1) for net in self.nets])
        return torch.logsumexp(logs, dim=0) - float(np.log(len(self.nets)))


@dataclass(frozen=True, eq=False)
class Posterior:
    """What sampling came to.

    Attributes:
        recipe: what was sampled. chains: all samples. mixing: how well they agree. nets: the members of the file.
        proto, card: the file.
    """

    recipe: BayesRecipe
    chains: tuple[Chain, ...] = field(repr=False)
    mixing: Mixing
    nets: tuple[nn.Sequential, ...] = field(repr=False)
    proto: ModelProto = field(repr=False)
    card: Card


def posterior(
    recipe: BayesRecipe,
    data: ImageSet,
    folder: Path,
    *,
    members: int = 20,
    attacked: int | None = None,
    command: str = "",
    progress: Report | None = None,
) -> Posterior:
    """Sample, compare the chains, and write the mean of `members` networks, evenly out of all chains, as a file with a card.

    Args:
        folder: of the chains; what is there is not done again.
        attacked: test images that are attacked for the card; None: all.

    Raises:
        OptionError: more members than samples. InputError, OutputError, MissingDependencyError: as `sample_chains` says.
        ModelError: the file and the average of its members differ.
    """
    total = recipe.chains * recipe.samples
    if not 1 <= members <= total:
        raise OptionError(f"--members {members} is not possible; give 1 to {total}, the number of samples of all chains")
    chains = sample_chains(recipe, data, folder, progress=progress)
    shown = data.train if data.test is None else data.test
    x = on_unit_scale(torch.from_numpy(shown.x[:_PROBES]))
    found = mixing(torch.stack([_predicted(recipe, data, chain.weights, x) for chain in chains]))
    pooled = torch.cat([chain.weights for chain in chains])
    # the middle of as many equal parts of all samples
    picked = [(2 * i + 1) * total // (2 * members) for i in range(members)]
    nets = tuple(member(recipe, data, pooled[i]) for i in picked)
    proto = mean_onnx(nets, data.shape, recipe.model_name, recipe.to_json())
    check_mean(proto, nets, x.numpy())
    figures = measure(Mean(nets), recipe, data, attacked=attacked, progress=progress)
    return Posterior(recipe, chains, found, nets, proto, _card(proto, recipe, data, chains, found, members, figures, command))


def mixing(predicted: Tensor) -> Mixing:
    """Of probabilities `(chains, samples, images, classes)`, at least four samples."""
    from pyro.ops.stats import split_gelman_rubin

    rhat = split_gelman_rubin(predicted.double(), chain_dim=0, sample_dim=1).flatten()
    rhat = rhat.nan_to_num(nan=torch.inf, posinf=torch.inf)  # 0/0: chains that stand still agree on nothing
    return Mixing(
        predicted.shape[2], float(rhat.max()), float(np.quantile(rhat.numpy(), 0.99, method="higher")), float(rhat.median()),
        float((rhat > MIXED).double().mean()),
    )  # fmt: skip


def mean_onnx(nets: Sequence[nn.Sequential], shape: tuple[int, ...], name: str, recipe: Mapping[str, Any]) -> ModelProto:
    """`p(x) = (1/K) sum_k softmax(f_k(x))` as ordinary nodes: input `image`, output `probabilities`."""
    nodes, initializers = [], []
    for k, net in enumerate(nets):
        one = add_prefix_graph(layers_onnx(net, shape, name), f"m{k}.", rename_inputs=False)
        nodes += [*one.node, helper.make_node("Softmax", [one.output[0].name], [f"m{k}.p"], f"m{k}.softmax", axis=1)]
        initializers += one.initializer
        output = one.output[0]
    nodes.append(helper.make_node("Sum", [f"m{k}.p" for k in range(len(nets))], ["sum"], "sum"))
    nodes.append(helper.make_node("Mul", ["sum", "share"], ["probabilities"], "mean"))
    initializers.append(numpy_helper.from_array(np.array(1 / len(nets), dtype=np.float32), "share"))
    classes = output.type.tensor_type.shape.dim[1].dim_value
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *shape])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])
    return zoo_model(helper.make_graph(nodes, name, [image], [probabilities], initializers), recipe)


def check_mean(proto: ModelProto, nets: Sequence[nn.Module], x: Array) -> float:
    """Largest difference of the file under onnxruntime from the average of its members, in float64, on images `x`.

    Raises:
        ModelError: it is above `TOLERANCE`.
    """
    with torch.no_grad():
        wanted = torch.stack([net(torch.from_numpy(x)).double().softmax(1) for net in nets]).mean(0).numpy()
    difference = float(np.abs(Runtime(proto).logits(x) - wanted).max())
    if not difference <= TOLERANCE:
        raise ModelError(f"the file and the average of its members differ by {difference:.2g}; please report this")
    return difference


@torch.no_grad()
def _predicted(recipe: BayesRecipe, data: ImageSet, weights: Tensor, x: Tensor) -> Tensor:
    """Probabilities `(samples, images, classes)`."""
    return torch.stack([member(recipe, data, w)(x).double().softmax(1) for w in weights])


def _card(
    proto: ModelProto, recipe: BayesRecipe, data: ImageSet, chains: Sequence[Chain], found: Mixing, members: int,
    figures: Mapping[str, Any] | None, command: str,
) -> Card:  # fmt: skip
    arch, known = architecture(recipe.architecture), facts(data, figures, "cpu", command)
    notes = [*known["notes"], "the outputs are probabilities: a change of the softmax is a change of the outputs (property sr)"]
    if not found.mixed:
        notes.append(f"the chains do not agree: {100 * found.share:.1f} % of the predictions have an R-hat above {MIXED:g}")
    return Card({
        "schema": SCHEMA,
        "version": VERSION,
        "name": recipe.model_name,
        "file": file_facts(proto),
        "input": {"name": "image", "shape": ["N", *data.shape], "range": [0, 1], "normalisation": None},
        "output": {"name": "probabilities", "classes": data.classes},
        "architecture": {
            "name": arch.name,
            "layers": arch.summary,
            "parameters": members * arch.parameters(data.shape, data.classes),
            "units": members * arch.units(data.shape),
        },
        "recipe": {"kind": "hmc", **recipe.to_json()},
        "posterior": {
            "members": members,
            "steps": [chain.step for chain in chains],
            "accepted": [chain.accepted for chain in chains],
            "divergent": [chain.divergent for chain in chains],
            "rhat": found.to_json(),
        },
        "data": {"name": recipe.data, **known["images"], "train_sha256": data.train.sha256, "sources": known["sources"]},
        "figures": figures,
        "training": {"seconds": round(sum(chain.seconds for chain in chains), 1), **known["machine"]},
        "command": command,
        "notes": notes,
        "licence": LICENCE,
    })  # fmt: skip
