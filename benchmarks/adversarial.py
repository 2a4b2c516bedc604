"""Adversarial examples of `mnist_2_50` and `mnist2x10` with the smallest margin; confusion and transfer tables.

    python -m benchmarks.adversarial [--networks A B] [--anchors N] [--eps E] [--timeout S] [--jobs N]

The bar: 180 (anchor, target) pairs, complete, and every listed example replays under onnxruntime. The first N test images that
both networks classify rightly are the anchors, so that every wrong class is an example's doing. The replay is a session of its own
on the file, apart from the code that found the examples.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.common import DATA, images_for, load_note, space_of  # first: it sets the environment

import numpy as np  # isort: skip
import onnxruntime

from onnxsub.anchors import fit_shape
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor
from onnxsub.metrics.adversarial_pairs import Pairs, find_pairs
from onnxsub.metrics.adversarial_result import matrix, objective, verdicts
from onnxsub.metrics.margin import MarginOptions
from onnxsub.metrics.tables import spread, try_examples
from onnxsub.model import load_model
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import Limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs=2, default=["mnist_2_50", "mnist2x10"])
    parser.add_argument("--anchors", type=int, default=20)
    parser.add_argument("--eps", type=float, default=0.05)
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--verifier", default="bab")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    paths = [DATA / "nets" / f"{name}.onnx" for name in given.networks]
    space = InputSpace(**space_of(given.networks[0]))  # type: ignore[arg-type]
    margin = MarginOptions(Limits(timeout=given.timeout, threads=1), verifier=given.verifier)
    options = AdversarialOptions(given.eps, margin=margin, space=space)
    anchors = chosen(paths, given.anchors)
    began = time.perf_counter()
    found = [find_pairs(p, a, options, jobs=given.jobs) for p, a in zip(paths, anchors, strict=True)]
    print(f"{' against '.join(given.networks)}, eps {given.eps:g}, {given.anchors} anchors, all targets; {load_note()}")
    for pairs in found:
        show(pairs)
    print("\ntransfer          examples  fooled  to target  margin beyond")
    for source in found:
        for path, own in zip(paths, anchors, strict=True):
            t = try_examples(source, str(path), own, space, path.stem)
            print(f"  {t.made_on} on {t.tried_on}: {t.examples}, {t.fooled}, {t.to_target}, {t.beyond}")
    bad = sum(replay(pairs, options) for pairs in found)
    complete = all(len(p.found) == p.planned and not p.misclassified for p in found)
    print(f"\ncomplete: {complete}; examples that do not replay: {bad}; total {time.perf_counter() - began:.0f} s")
    return 0 if complete and not bad else 1


def chosen(paths: list[Path], count: int) -> list[list[Anchor]]:
    """The first test images that every network classifies rightly, in the shape of each."""
    models = [load_model(p) for p in paths]
    data = [images_for(p.stem) for p in paths]
    right = np.ones(500, dtype=bool)
    for model, (x, y) in zip(models, data, strict=True):
        rows = np.stack([fit_shape(row, model.input_shape, "image") for row in x[:500]])
        right &= Runtime(model).logits(rows).argmax(1) == y[:500]
    index = np.flatnonzero(right)[:count].tolist()
    return [
        [Anchor(i, np.ascontiguousarray(fit_shape(x[i], m.input_shape, "image")), int(y[i])) for i in index]
        for m, (x, y) in zip(models, data, strict=True)
    ]


def show(pairs: Pairs) -> None:
    """Counts, confusion matrices and statistics of one network."""
    status = [p.status for p in pairs.pairs]
    print(f"\n{pairs.name}: {len(pairs.found)} of {pairs.planned} pairs, {status.count('exact')} exact; {verdicts(pairs)}")
    for what, s in (
        ("f_y - f_t, all", objective(pairs)),
        ("f_y - f_t, examples", objective(pairs, examples=True)),
        ("gap of those not exact", spread(p.upper - p.lower for p in pairs.pairs if p.status != "exact")),
        ("seconds", spread(p.seconds for p in pairs.pairs)),
    ):
        values = zip(("min", "median", "mean", "max", "std"), (s.least, s.median, s.mean, s.most, s.deviation), strict=True)
        print(f"  {what}: n {s.count}, " + ", ".join(f"{k} {v:.4g}" for k, v in values))
    c = matrix(pairs)
    for what, rows in (("towards class", c.targeted), ("seen as class", c.predicted)):
        print(f"  examples from (row) {what} (column):")
        print("       " + " ".join(f"{k:3d}" for k in range(c.classes)))
        for y, row in enumerate(rows):
            print(f"    {y:2d} " + " ".join(f"{n:3d}" if n else "  ." for n in row))


def replay(pairs: Pairs, options: AdversarialOptions) -> int:
    """How many examples a fresh onnxruntime session on the file does not confirm."""
    session = onnxruntime.InferenceSession(pairs.path, providers=["CPUExecutionProvider"])
    name, bad = session.get_inputs()[0].name, 0
    for f in pairs.examples:
        x = options.space.normalise(f.x[None])
        logits = np.asarray(session.run(None, {name: x})[0]).reshape(-1)
        bad += not (logits[f.pair.target] > logits[f.pair.label] and f.pair.distance <= options.eps)
    return bad


if __name__ == "__main__":
    sys.exit(main())
