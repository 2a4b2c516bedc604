"""Exact distances and decisions on given networks and anchors: time, nodes and bracket per anchor, all engines in one run.

    python -m benchmarks.exact --network wk17a --exact-rows --rtol 1e-3           against the published distances
    python -m benchmarks.exact --network mnist-net_256x2 --anchors 5 --rtol 1e-3
    python -m benchmarks.exact --network salman_mnist_cnn_small_NOR --anchors 10 --timeout 60
    python -m benchmarks.exact --network wk17a --anchors 50 --eps 0.1 --timeout 60            decisions
    python -m benchmarks.exact --network wk17a --anchors 10 --via lin:0.99,act:0.99 --engines bab,milp
    python -m benchmarks.exact --network wk17a --anchors 10 --device cuda                     on a GPU
    ... --engines bab,milp,marabou:PYTHON,nnenum:"run_instance.sh",command:"run_instance.sh"  other tools, by bisection

The seconds are those of the engine with the attack's witness at hand; the attack stands in a column of its own. Anchors are the
first test images that the network classifies rightly (`--indices` names others). Timings of one run are comparable; the load
average at its beginning is printed.
"""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from benchmarks.common import DATA, exact_rows, images_for, load_note, median, space_of
from onnxsub.device import check_device
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.prune import PruneOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.bab.options import BabOptions
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.verify import VerifyOptions, verify


@dataclass(frozen=True)
class Line:
    """One answer."""

    engine: str
    status: str
    lower: float
    upper: float
    seconds: float
    nodes: int

    @property
    def ratio(self) -> float:
        return self.upper / self.lower if self.lower > 0 else float("inf")

    def text(self, truth: float | None) -> str:
        bracket = f"[{self.lower:.7f}, {self.upper:.7f}] ratio {self.ratio:.4f}"
        off = "" if truth is None else f"  published {truth:.7f}, off {self.upper / truth - 1:+.1e}"
        return f"{self.engine:8.8} {self.status:8} {bracket} {pace(self.nodes, self.seconds)}{off}"


def pace(nodes: int, seconds: float) -> str:
    """Seconds, nodes and nodes per second."""
    return f"{seconds:7.2f} s {nodes:7d} nodes {nodes / max(seconds, 1e-9):6.0f}/s"


def measured(query: Query, engine: str, found: AttackResult, args: argparse.Namespace, via: str | None) -> Line:
    """The distance by one engine, the attack's result given."""
    tol = args.tol if args.rtol is None else args.rtol * found.d_adv
    milp = MilpOptions(timeout=args.timeout, tol=tol, threads=args.threads)
    search, bab = AttackOptions(device=args.device), BabOptions(device=args.device)
    options = DistanceOptions(milp=milp, attack=search, verifier=engine, bab=bab)
    if via is not None:
        method, gamma = via.split(":")
        options = replace(options, via=PruneOptions(method=method, select=SelectOptions(gamma=float(gamma), rank=args.rank)))
    result = distance(query, options, found=found)
    seconds = result.time_s["verify"] if via is not None else result.time_s["total"] - result.time_s.get("attack", 0.0)
    return Line(engine, result.status, result.lower, result.upper, seconds, result.nodes)


def decided(query: Query, engine: str, args: argparse.Namespace) -> tuple[str, float, int]:
    milp = MilpOptions(timeout=args.timeout, threads=args.threads)
    start = time.perf_counter()
    search, bab = AttackOptions(device=args.device), BabOptions(device=args.device)
    result = verify(query, args.eps, VerifyOptions(milp=milp, attack=search, verifier=engine, bab=bab))
    return result.status, time.perf_counter() - start, result.nodes


def chosen(args: argparse.Namespace, network: str) -> list[int]:
    if args.exact_rows:
        return [i for i, _ in exact_rows()]
    if args.indices:
        return [int(i) for i in args.indices.split(",")]
    return list(range(len(images_for(network)[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="wk17a", help="by commas")
    parser.add_argument("--indices", default="", help="test images, by commas")
    parser.add_argument("--anchors", type=int, default=10)
    parser.add_argument("--exact-rows", action="store_true", help="the images of wk17a whose distance is published")
    parser.add_argument("--engines", default="bab", help="by commas, as --verifier takes them")
    parser.add_argument("--via", default="", help="substitutes, by commas")
    parser.add_argument("--rank", default="influence")
    parser.add_argument("--eps", type=float, default=None)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--rtol", type=float, default=None, help="tolerance as a share of the attack's distance")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N: where the attack and bab compute")
    args = parser.parse_args()
    print(load_note())
    check_device(args.device, "benchmark")
    if args.device != "cpu":
        print(f"on {torch.cuda.get_device_name(args.device)}")
    engines = shlex.split(args.engines.replace(",", " "))
    for network in args.network.split(","):
        for via in args.via.split(",") if args.via else [None]:
            run(network, via, engines, args)


def run(network: str, via: str | None, engines: list[str], args: argparse.Namespace) -> None:
    images, labels = images_for(network)
    known = dict(exact_rows()) if network == "wk17a" and via is None else {}
    space = InputSpace(**space_of(network))
    lines: dict[str, list[Line]] = {e: [] for e in engines}
    words: dict[str, list[tuple[str, float, int]]] = {e: [] for e in engines}
    name = f"{network} via {via}" if via else network
    count = 0
    print(f"== {name}")
    for index in chosen(args, network):
        query = make_query(DATA / "nets" / f"{network}.onnx", images[index], int(labels[index]), space=space)
        if query.misclassified:
            print(f"{index:4d} misclassified")
            if args.eps is None:
                continue
        count += 1
        if args.eps is not None:
            for e in engines:
                words[e].append(decided(query, e, args))
                word, seconds, nodes = words[e][-1]
                print(f"{index:4d} {e:8.8} {word:9} {pace(nodes, seconds)}", flush=True)
        else:
            start = time.perf_counter()
            found = attack(query, AttackOptions(device=args.device))
            print(f"{index:4d} attack   {found.d_adv:.7f} {time.perf_counter() - start:.2f} s")
            for e in engines:
                lines[e].append(measured(query, e, found, args, via))
                print(f"{index:4d} {lines[e][-1].text(known.get(index))}", flush=True)
        if count == args.anchors and not args.exact_rows and not args.indices:
            break
    for e in engines:
        summary(name, e, words[e], lines[e])
    for a, b in pairwise(engines):
        both = [(x, y) for x, y in zip(lines[a], lines[b], strict=True) if x.status == y.status == "exact"]
        if both:
            worst = max(abs(x.upper - y.upper) for x, y in both)
            print(f"-- {a} against {b}: {len(both)} both exact, largest difference {worst:.1e}")


def summary(name: str, engine: str, words: list[tuple[str, float, int]], lines: list[Line]) -> None:
    if words:
        times, nodes = [s for _, s, _ in words], sum(n for _, _, n in words)
        tally = {w: sum(x == w for x, _, _ in words) for w in ("proved", "violated", "unknown")}
        rate = f"{nodes / sum(times):.0f} nodes per second"
        print(f"-- {name} {engine}: {tally}, median {median(times):.2f} s, worst {max(times):.2f} s, {rate}")
    if lines:
        times, ratios = [x.seconds for x in lines], [x.ratio for x in lines]
        exact = sum(x.status in ("exact", "none") for x in lines)
        print(
            f"-- {name} {engine}: {exact} of {len(times)} exact, median {median(times):.2f} s, worst {max(times):.2f} s, "
            f"median ratio {median(ratios):.4f}, worst {max(ratios):.4f}, "
            f"{sum(x.nodes for x in lines) / max(sum(times), 1e-9):.0f} nodes per second"
        )


if __name__ == "__main__":
    main()
