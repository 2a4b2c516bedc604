"""One question: a model, an anchor, the class to defend. Everything that a command with an anchor needs, checked once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.anchors import fit_shape
from onnxsub.errors import InputError, ModelError
from onnxsub.model import Model, load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.shown import Shown

if TYPE_CHECKING:
    import os

__all__ = ["Query", "analysis_network", "check_execution", "make_query"]


_ROUNDING = 1e-2  # of the largest logit: what the arithmetic of half precision may change


@dataclass(frozen=True, eq=False, repr=False)
class Query(Shown):
    """A model and an anchor, in un-normalised input units.

    Attributes:
        model: the file.
        space: domain and normalisation; with units, everything here is in those of the scale (`InputSpace.measured`).
        x0: the anchor, float32, per-sample shape of the model's input; 0 in a space with units.
        label: the class y to defend.
        predicted: the class that onnxruntime gives at `x0`: that of the file's own output, its Softmax or Sigmoid included.
        network: f as analysed: from un-normalised inputs to at least two logits.
        runtime: onnxruntime on the original file; its word decides what a witness is.
        target: the one class t whose margin `f_t - f_y` is asked about; None: every other class is.
    """

    model: Model
    space: InputSpace
    x0: Array
    label: int
    predicted: int
    network: Network
    runtime: Runtime = field(repr=False)
    target: int | None = None

    @property
    def line(self) -> str:
        against = "" if self.target is None else f" against class {self.target}"
        return f"{self.model.where}, class {self.label} of {self.classes}{against}, predicted {self.predicted}"

    @cached_property
    def misclassified(self) -> bool:
        """Whether the anchor is not of class `label` to begin with: its distance is 0. With a target: whether that is ahead."""
        if self.target is None:
            return self.predicted != self.label
        margin = float(self.margins(self.x0[None])[0][0])
        # of two equal logits the first one is the predicted class
        return margin > 0 or (margin == 0 and self.target < self.label)

    @property
    def wrong(self) -> str:
        """What is wrong with an anchor that is misclassified."""
        if self.target is None:
            return f"the anchor is predicted as class {self.predicted}, not {self.label}"
        return f"at the anchor class {self.target} is ahead of class {self.label}"

    @property
    def classes(self) -> int:
        return self.network.classes

    @property
    def targets(self) -> tuple[int, ...]:
        """The classes asked about: the other ones, or the one target."""
        return other_classes(self.classes, self.label, self.target)

    def logits(self, x: Array) -> Array:
        """`f(x)` by onnxruntime: `(N, *shape)` in un-normalised units to `(N, classes)`."""
        return two_classes(self.runtime.logits(self.space.normalise(x)))

    def judged(self, x: Array) -> Array:
        """The logits by which a witness is judged: `(N, *shape)` in un-normalised units to `(N, classes)`.

        They are `logits(x)`, except where the file ends in a head that was left out and its own output does not have another class
        strictly in front: a Softmax in float32 gives one value for logits that differ in the last place. Such a point is a tie: the
        leading class gets `f_y`, the others less.
        """
        logits = self.logits(x)
        if self.model.whole:
            fractions = (np.rint(x) != x).reshape(len(x), -1).any(axis=1)
            logits = np.array(logits)
            # no input of the file, hence no witness whatever the form says there
            logits[fractions, self.label] = 1.0 + 2.0 * np.abs(logits[fractions]).max(initial=0.0)
        if not self.model.stripped:
            return logits
        margins, leaders = worst_margin(logits, self.label, self.target)
        ahead = np.flatnonzero(margins > 0)
        if len(ahead) == 0:
            return logits
        # row by row: that is what anybody gets who runs the file on the point alone
        raw = self.runtime.raw(self.space.normalise(x[ahead]), one_by_one=True)
        said = worst_margin(own_scores(raw, self.model.outputs), self.label, self.target)[0]
        logits = logits.copy()
        for i, word in zip(ahead, said, strict=True):
            if word > 0:
                continue
            own = logits[i, self.label]
            logits[i] = np.minimum(logits[i], np.nextafter(own, -np.inf, dtype=logits.dtype))
            # the file has the class itself in front: what the logits claim counts against it by as much
            logits[i, [self.label, leaders[i]]] = own, own if word == 0 else own - margins[i]
        return logits

    def margins(self, x: Array) -> tuple[Array, Array]:
        """`max_t f_t - f_y` over the targets, and the class t that attains it, by onnxruntime: `(N,)` each.

        Positive: strictly adversarial, in the file's own output too. Zero: a tie, which is on the decision boundary.
        """
        return worst_margin(self.judged(x), self.label, self.target)

    def radius(self, x: Array) -> Array:
        """`|x - x0|_inf` in float64: `(N, *shape)` to `(N,)`."""
        difference = np.abs(np.asarray(x, dtype=np.float64) - self.x0.astype(np.float64))
        return np.asarray(difference.reshape(len(x), -1).max(axis=1))

    def refuse_whole(self, what: str) -> None:
        """Raises InputError where the file takes whole numbers only, and `what` looks for points between them."""
        if self.space.whole:
            raise InputError(
                f"{self.model.where} takes whole numbers, and {what} looks for points between them; use distance or verify, "
                "or export the model with a float input"
            )

    @cached_property
    def anchor_sha256(self) -> str:
        """Hash of the float32 bytes of the anchor as an input."""
        return hashlib.sha256(np.ascontiguousarray(self.space.original(self.x0), dtype="<f4").tobytes()).hexdigest()

    def json_head(self) -> dict[str, Any]:
        """The keys `model` and `anchor` that every result of an anchor carries."""
        return {
            "model": {"path": None if self.model.path is None else str(self.model.path), "sha256": self.model.sha256},
            "input": self.space.to_json(),
            "anchor": {
                "sha256": self.anchor_sha256, "label": self.label, "predicted": self.predicted, "target": self.target,
            },
        }


def other_classes(classes: int, label: int, target: int | None = None) -> tuple[int, ...]:
    """The classes that a question about `label` is about: the target, or all others."""
    return tuple(t for t in range(classes) if t != label) if target is None else (target,)


def worst_margin(logits: Array, label: int, target: int | None = None) -> tuple[Array, Array]:
    """`max_t f_t - f_label` and its t for logits `(N, classes)`, over all t or for the target alone."""
    others = logits.astype(np.float64)
    if target is not None:
        return others[:, target] - others[:, label], np.full(len(others), target)
    own = others[:, label].copy()
    others[:, label] = -np.inf
    best = others.argmax(axis=1)
    return others[np.arange(len(others)), best] - own, best


def _check_word(model: Model, logits: Array, predicted: int) -> None:
    """Raises ModelError where the class that the file gives at the anchor is not the one that was read, by more than rounding."""
    margin, leader = worst_margin(logits, predicted)
    if model.form is not model.source and margin[0] > _ROUNDING * (1.0 + np.abs(logits).max()):
        raise ModelError(
            f"{model.where}: at the anchor the file says class {predicted}, the scores that were read say {int(leader[0])}; "
            "export the model so that it ends in its scores"
        )


def check_execution(model: Model, network: Network, x: Array, logits: Array, point: str = "the anchor") -> None:
    """Raises ModelError where onnxruntime computes something else at the anchor than the operators of the file mean.

    Its optimiser has such faults: 1.31 leaves the Transpose out of a matrix that a vector is multiplied by. Rounding is no such
    difference, however much of it cancellation leaves over (`quantised.off_by`, 16 times); nor are steps of functions that jump.

    Args:
        x: the anchor, or what `point` says, `(*shape)`. logits: of onnxruntime there, `(1, classes)`.
    """
    import torch

    from onnxsub.quantised import jumps, off_by

    with torch.no_grad():
        real = network.forward(torch.as_tensor(np.asarray(x, dtype=np.float64))[None]).numpy()
    far = np.abs(real - logits)
    if float(far.max()) <= _ROUNDING * float(np.abs(logits).max()) or model.half:
        return
    if not jumps(network) and bool((far > 16 * off_by(network, x)).any()):
        k = int(far.argmax())
        raise ModelError(
            f"{model.where}: at {point} onnxruntime gives output {k} the score {float(logits[0, k]):.6g}, the operators of the "
            f"file mean {float(real[0, k]):.6g}: it runs another network than the file states, of which nothing can be told; "
            "export the model in another way, or take another version of onnxruntime"
        )


def own_scores(raw: Array, outputs: int) -> Array:
    """The own output `(N, ...)` of a file that ends in a head, as one score per class, float64: `(N, classes)`.

    A single score s of a Sigmoid is class 1 where `s > 1/2`; it becomes `(0, s - 1/2)`.
    """
    scores = raw.reshape(len(raw), outputs).astype(np.float64)
    return scores if outputs > 1 else two_classes(scores - 0.5)


def two_classes(logits: Array) -> Array:
    """A single logit z as the two logits (0, z): class 1 where z > 0."""
    if logits.shape[1] > 1:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=1)


def analysis_network(model: Model, space: InputSpace) -> Network:
    """f from un-normalised inputs to at least two logits: the file's network with `(x - mean) / std` in front of it where
    the space has a normalisation, and with (0, z) behind it where the file has a single logit z."""
    from onnxsub.lower import lower
    from onnxsub.ops.dense import Dense
    from onnxsub.ops.elementwise import Scale
    from onnxsub.quantised import with_room

    network = lower(model)
    taken = set(network.shapes)
    shape = network.input_shape
    ms = space.mean_std(shape)
    if ms is not None:
        mean, std = ms
        name = _fresh("onnxsub:input", taken)
        prefix = Scale(
            op_type="Normalise", node="(x - mean) / std", inputs=(name,), output=network.input, in_shapes=(shape,), out_shape=shape,
            scale=1.0 / std, shift=-mean / std,
        )  # fmt: skip
        network = network.before((prefix,), name, shape)
    if network.classes == 1:
        from onnxsub.ops.movement import flatten

        flat = flatten(network.output, network.output_shape, _fresh("onnxsub:flat", taken))
        two = Dense(
            op_type="TwoClasses", node="(0, z)", inputs=(flat.output,), output=_fresh("onnxsub:logits", taken), in_shapes=((1,),),
            out_shape=(2,), weight=np.array([[0.0], [1.0]]), bias=np.zeros(2),
        )  # fmt: skip
        network = network.then((flat, two))
    return with_room(network, *space.ends(shape))


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def make_query(
    model: Model | str | os.PathLike[str],
    x0: Any,
    label: int | None = None,
    *,
    space: InputSpace | None = None,
    threads: int | None = None,
    target: int | None = None,
    scale: Any = None,
) -> Query:
    """Checks model, anchor, classes and domain against each other.

    Args:
        model: a loaded model or the path of an `.onnx` file.
        x0: the anchor as an array (a path is read by `onnxsub.anchors.read_anchor`).
        label: the class to defend; default: the predicted one.
        space: domain and normalisation; default: `[0, 1]`, of a model of bytes the range of its type; none.
        threads: of onnxruntime; default: all cores.
        target: the one other class to ask about; default: all of them.
        scale: weights w of the input's shape (or one per channel), 0 for a fixed feature: distances and radii are then
            `min t such that |x_i - x0_i| <= t w_i`, and the query's points `u = (x - x0) / w`; `space.original` gives inputs.

    Raises:
        InputError: wrong shape, type, NaN, values outside the domain, a class out of range, a target that is the label.
    """
    if not isinstance(model, Model):
        model = load_model(model)
    space = (space or InputSpace()).over(model.feed.dtype, stated=space is not None)
    try:
        data = np.asarray(x0)
    except (TypeError, ValueError, RuntimeError) as e:  # rows of different lengths, a tensor that needs gradients, ...
        raise InputError(f"the anchor is no array ({str(e).splitlines()[0].rstrip('.')}); give a NumPy array of floats") from e
    if not (np.issubdtype(data.dtype, np.floating) or np.issubdtype(data.dtype, np.integer)):
        raise InputError(f"the anchor holds {data.dtype} values; give floats")
    data = fit_shape(data, model.input_shape, "the anchor")
    space = space.fitted(model.input_shape)
    space.check_fed(model.input_dtype, model.input_shape)
    space.check(data, "the anchor")
    x = np.ascontiguousarray(space.inside(data))
    x.setflags(write=False)
    network = analysis_network(model, space)  # what is not supported is refused before onnxruntime runs it
    runtime = Runtime(model, threads=threads)
    logits = two_classes(runtime.logits(space.normalise(x[None])))
    if not np.isfinite(logits).all():
        raise InputError("the model's logits at the anchor are not finite; check the model's weights and its --mean and --std")
    classes = logits.shape[1]
    said = own_scores(runtime.raw(space.normalise(x[None])), model.outputs) if model.stripped else logits
    predicted = int(said[0].argmax())
    _check_word(model, logits, predicted)
    check_execution(model, network, x, logits)
    if label is None:
        label = predicted
    label = _class(label, classes, "--label")
    if target is not None:
        target = _class(target, classes, "--target")
        if target == label:
            raise InputError(f"--target {target} is the class to defend; give another one (0 to {classes - 1}), or another --label")
    if scale is not None:
        space = space.measured(x, scale)
        x = np.zeros_like(x)
        x.setflags(write=False)
        network = analysis_network(model, space)
    return Query(model, space, x, label, predicted, network, runtime, target)


def _class(value: Any, classes: int, option: str) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise InputError(f"{option} {value!r} is not a class; give its number (0 to {classes - 1})")
    if not 0 <= value < classes:
        raise InputError(f"{option} {value} is out of range: the model has {classes} classes (0 to {classes - 1})")
    return int(value)
