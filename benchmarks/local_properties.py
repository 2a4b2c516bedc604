"""Answers about CR, SR, SCR, LR and confidence on random small networks, against dense samples and against each other.

    python -m benchmarks.local_properties --checks 5000 [--first 0]
    python -m benchmarks.local_properties --network mnist_2_50 --anchors 20 --eps 0.02 --delta 3 --timeout 10

The first form asks about networks of every kind (dense, convolutional, residual; piecewise linear and smooth activations; 1 to 4
outputs; with and without a head and a normalisation; anchors inside the domain and on its rim) with bounds just below, at and above
what 1,500 samples of the ball reach. A check holds an answer against the samples or its witness, or against another answer that
implies it. The bar: none fails. The second form says how often each property is decided on a network of the data folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import Counter

from onnxsub.metrics.local import LocalOptions, decide_local, make_property
from onnxsub.model import load_model
from onnxsub.query import make_query
from onnxsub.region import InputSpace


def random_networks(checks: int, first: int) -> int:
    from tests.metrics.local_checks import check_case

    began, done, wrong = time.perf_counter(), 0, 0
    statuses: Counter[str] = Counter()
    seed = first
    while done < checks:
        tally = check_case(seed)
        done, wrong, statuses, seed = done + tally.checks, wrong + len(tally.wrong), statuses + tally.statuses, seed + 1
        for line in tally.wrong:
            print(f"WRONG  {line}", flush=True)
        if seed % 10 == 0:
            print(f"  {seed - first} networks, {done} checks, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    for name in sorted({key.split()[0] for key in statuses}):
        print(f"{name:11}", {key.split()[1]: n for key, n in sorted(statuses.items()) if key.split()[0] == name})
    print(f"{done} checks on {seed - first} networks (seeds from {first}), {wrong} wrong, {time.perf_counter() - began:.0f} s")
    return 1 if wrong else 0


def network(args: argparse.Namespace) -> int:
    from benchmarks.common import DATA, images_for, space_of

    images, labels = images_for(args.network)
    model = load_model(DATA / "nets" / f"{args.network}.onnx")
    space = InputSpace(**space_of(args.network))  # type: ignore[arg-type]
    eps, delta = args.eps, args.delta
    asked = [
        make_property("cr", eps), make_property("sr", eps, delta=delta), make_property("sr", eps, delta=delta, norm="1"),
        make_property("sr", eps, delta=delta, norm="2"), *(make_property("scr", eps, eta=e) for e in (0.6, 0.9)),
        make_property("lr", eps, lipschitz=delta / eps), *(make_property("confidence", eps, gamma=g) for g in (0.1, 0.3)),
    ]  # fmt: skip
    for prop in asked:
        if args.property and prop.name not in args.property.split(","):
            continue
        found: Counter[str] = Counter()
        seconds = []
        for i in range(args.anchors):
            query = make_query(model, images[i].reshape(model.input_shape), int(labels[i]), space=space)
            verdict = decide_local(query, prop, LocalOptions(timeout=args.timeout))
            found[verdict.status] += 1
            seconds.append(verdict.time_s["total"])
        times = f"median {statistics.median(seconds):.2f} s, mean {statistics.fmean(seconds):.2f} s, most {max(seconds):.2f} s"
        print(f"{prop.parameters()}: {dict(sorted(found.items()))}; {times}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first network")
    parser.add_argument("--network", default="")
    parser.add_argument("--anchors", type=int, default=20)
    parser.add_argument("--eps", type=float, default=0.02)
    parser.add_argument("--delta", type=float, default=3.0)
    parser.add_argument("--property", default="", help="names, separated by commas; all by default")
    parser.add_argument("--timeout", type=float, default=10.0)
    args = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    return network(args) if args.network else random_networks(args.checks, args.first)


if __name__ == "__main__":
    sys.exit(main())
