"""Marabou on substitutes in layout `chain`: right or wrong just below and just above the distance, and how long it takes.

    python -m benchmarks.marabou [--anchors 10]        wk17a, lin, gamma 0.99, radius 2 % below and above d_hat
    python -m benchmarks.marabou --original 120        the same questions about the network itself, 120 s each
    python -m benchmarks.marabou --queries 100         radii over several networks and methods: our answer and Marabou's

d_hat comes from our MILP. The seconds are those of the whole process, interpreter and reading of the file included. An answer
counts after its replay: a `sat` that onnxruntime does not confirm is no answer. ONNXSUB_MARABOU_PYTHON: an interpreter that has
maraboupy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.common import DATA, images_for, load_note, median, space_of
from onnxsub.instance import Instance
from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import substitute
from onnxsub.pruning.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.query import Query, analysis_network, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.external.marabou import Marabou
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.result import DistanceResult
from onnxsub.verifiers.verify import VerifyOptions, decide_ball

SIDE = 0.02
LIMITS = Limits(timeout=60.0, threads=1)
MIXED = ("wk17a", "kw_mnist_small", "salman_mnist_cnn_small_NOR", "mnist_2_50", "kw_fashion_small", "cifar_base_kw")


@dataclass(frozen=True, eq=False)
class Case:
    """A substitute of a network at an anchor."""

    name: str
    index: int
    query: Query
    file: Model
    found: DistanceResult


def case_of(name: str, index: int, method: str, gamma: float, rank: str) -> Case | None:
    """None where there is nothing to ask: a wrong prediction, no adversarial point, or no distance within a minute."""
    images, labels = images_for(name)
    query = make_query(DATA / "nets" / f"{name}.onnx", images[index], int(labels[index]), space=InputSpace(**space_of(name)))
    if query.misclassified:
        return None
    adversarial = Adversarial.of(attack(query, AttackOptions(threads=1)))
    if adversarial.x is None:
        return None
    g = build_substitute(query, PruneOptions(method, SelectOptions(gamma=gamma, rank=rank)), adversarial)
    context = LayoutContext.of(query.space, query.x0, g.eps, g.x_adv)
    file = load_model(LAYOUTS["chain"](query.model, substitute(lower(query.model), g.lines, g.selection.kept), context))
    instance = Instance(g.network, query.x0, query.label, query.space)
    found = measure(instance, ExactOptions(LIMITS), "milp", start=adversarial.x)
    return Case(name, index, query, file, found) if found.status == "exact" else None


def first_cases(count: int, rank: str, skip: int = 0) -> Iterator[Case]:
    index = skip
    while count:
        case = case_of("wk17a", index, "lin", 0.99, rank)
        index += 1
        if case is not None:
            count -= 1
            yield case


def both_sides(anchors: int, rank: str, tool: Marabou, limit: float, original: float | None, skip: int) -> None:
    right, times, ended = 0, [], []
    for case in first_cases(anchors, rank, skip):
        d, line = case.found.upper, f"  index {case.index:3d}  d_hat {case.found.upper:.6f}"
        for factor, wanted in ((1 - SIDE, "proved"), (1 + SIDE, "violated")):
            result = decide_external(case.file, case.query, d * factor, tool, limit)
            right += result.status == wanted
            times.append(result.time_s["tool"])
            line += f"  {factor:.2f}: {result.status:8} {result.time_s['tool']:5.2f} s"
            if result.original is not None and result.status == "violated":
                line += f" (margin {result.witness.margin if result.witness else 0:+.1e}, on f {result.original.margin:+.3f})"
            if result.status != wanted:
                line += f" WRONG: {result.reason}"
        if original is not None:
            for factor in (1 - SIDE, 1 + SIDE):
                result = decide_external(case.query.model, case.query, d * factor, tool, original)
                ended.append(result.status != "unknown")
                line += f"  f {factor:.2f}: {result.status} {result.time_s['tool']:.0f} s"
        print(line, flush=True)
    print(f"{right} of {len(times)} right, process median {median(times):.2f} s, worst {max(times):.2f} s")
    if ended:
        print(f"on the network itself {sum(ended)} of {len(ended)} ended within {original:g} s")


def against_ours(queries: int, rank: str, tool: Marabou, limit: float) -> None:
    rng = np.random.default_rng(0)
    asked, counts = 0, {"agree": 0, "open": 0, "disagree": 0}
    times, ours = [], []
    index = 0
    while asked < queries:
        for name in MIXED:
            method = ("lin", "act", "con")[(index + MIXED.index(name)) % 3]
            case = case_of(name, index, method, (0.99, 0.9)[index % 2] if name == "mnist_2_50" else 0.99, rank)
            if case is None:
                continue
            q = case.query
            for factor in np.sort(rng.choice([0.5, 0.8, 0.95, 0.99, 1.01, 1.05, 1.2, 1.5], 3, replace=False)):
                if asked == queries:
                    break
                asked += 1
                eps = float(case.found.upper * factor)
                theirs = decide_external(case.file, case.query, eps, tool, limit)
                began = time.perf_counter()
                # the network of the very file that Marabou reads, from un-normalised inputs
                same = analysis_network(case.file, q.space)
                own = decide_ball(Instance(same, q.x0, q.label, q.space), eps, VerifyOptions(LIMITS, verifier="milp"))
                ours.append(time.perf_counter() - began)
                times.append(theirs.time_s["tool"])
                words = {own.status, theirs.status}
                verdict = "open" if "unknown" in words else "agree" if len(words) == 1 else "disagree"
                counts[verdict] += 1
                why = "" if verdict == "agree" else f" ({theirs.reason})"
                what = f"{name} {case.index} {method} eps {eps:.6f}"
                print(f"  {verdict:8} {what}: ours {own.status}, Marabou {theirs.status}{why}", flush=True)
        index += 1
    print(f"{asked} queries: {counts}; Marabou median {median(times):.2f} s, ours {median(ours):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=10)
    parser.add_argument("--rank", default="influence")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per question")
    parser.add_argument("--original", type=float, metavar="SECONDS")
    parser.add_argument("--skip", type=int, default=0, help="images to leave out first")
    parser.add_argument("--queries", type=int, default=0)
    args = parser.parse_args()
    tool = Marabou()
    print(f"rank {args.rank}, {args.limit:g} s each; {load_note()}")
    if args.queries:
        against_ours(args.queries, args.rank, tool, args.limit)
    else:
        both_sides(args.anchors, args.rank, tool, args.limit, args.original, args.skip)


if __name__ == "__main__":
    main()
