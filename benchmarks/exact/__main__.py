"""Exact distances and decisions on given networks and anchors: time, nodes and bracket per anchor, all engines in one run.

    python -m benchmarks.exact --network wk17a --exact-rows --rtol 1e-3           against the published distances
    python -m benchmarks.exact --network mnist-net_256x2 --anchors 5 --rtol 1e-3
    python -m benchmarks.exact --network salman_mnist_cnn_small_NOR --anchors 10 --timeout 60
    python -m benchmarks.exact --network digits --timeout 60 --threads 2                      the ten bundled anchors
    python -m benchmarks.exact --network wk17a --anchors 50 --eps 0.1 --timeout 60            decisions
    python -m benchmarks.exact --network wk17a --anchors 10 --via lin:0.99,act:0.99 --engines bab,milp
    python -m benchmarks.exact --network wk17a --anchors 10 --device cuda                     on a GPU
    ... --engines 'bab,milp,marabou:PYTHON,nnenum:"PYTHON tool.py",command:run_instance.sh'   other tools, by bisection

The seconds are those of the engine with the attack's witness at hand; the attack stands in a column of its own. Anchors are the
first test images that the network classifies rightly (`--indices` names others). Timings of one run are comparable; the load
average at its beginning is printed. Of other tools the runs are counted, ours count nodes. Where such a tool gives no answer, the
bracket is that of our bounds and the attack; the line says so and why. A network that an engine refuses is in no median of its.
"""

from __future__ import annotations

import argparse
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.common import exact_rows, images_for, load_note, median, network_path, space_of
from onnxsub.device import check_device
from onnxsub.errors import OnnxsubError, UnsupportedOperatorError
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.external.search import unanswered
from onnxsub.verifiers.options import BabOptions, Limits
from onnxsub.verifiers.registry import engine_of, external_tool
from onnxsub.verifiers.verify import VerifyOptions, verify


@dataclass(frozen=True)
class Line:
    """One answer.

    Attributes:
        status: as the result says it; `refused`: the engine does not take the network, and `reason` says why.
        effort: nodes, or how often another tool was run.
        lower, upper: of a distance; a decision has none.
        ours: an open bracket to which another tool contributed nothing.
    """

    status: str
    seconds: float = 0.0
    effort: int = 0
    reason: str | None = None
    lower: float = math.nan
    upper: float = math.nan
    ours: bool = False

    @property
    def ratio(self) -> float:
        return self.upper / self.lower if self.lower > 0 else math.inf

    def text(self, unit: str, truth: float | None) -> str:
        if self.status == "refused":
            return f"refused: {self.reason}"
        words = [f"{self.status:8}"]
        if not math.isnan(self.upper):
            words.append(f"[{self.lower:.7f}, {self.upper:.7f}] ratio {self.ratio:.4f}")
        words.append(pace(self.effort, unit, self.seconds))
        if truth is not None:
            words.append(f" published {truth:.7f}, off {self.upper / truth - 1:+.1e}")
        if self.reason and self.status in ("bracket", "unknown"):
            words[-1] += f"\n     {self.reason}"
        return " ".join(words)


def pace(effort: int, unit: str, seconds: float) -> str:
    """Seconds and nodes, these also per second; or seconds and runs of a tool."""
    rate = f" {effort / max(seconds, 1e-9):6.0f}/s" if unit == "nodes" else ""
    return f"{seconds:7.2f} s {effort:7d} {unit}{rate}"


def unit_of(engine: str) -> str:
    return "nodes" if external_tool(engine) is None else "runs"


def answered(query: Query, engine: str, found: AttackResult | None, args: argparse.Namespace, via: str | None) -> Line:
    """The distance where an attack's result is given, else the decision at `--eps`."""
    try:
        return decided(query, engine, args) if found is None else measured(query, engine, found, args, via)
    except UnsupportedOperatorError as error:
        return Line("refused", reason=str(error))


def measured(query: Query, engine: str, found: AttackResult, args: argparse.Namespace, via: str | None) -> Line:
    """The distance by one engine, the attack's result given."""
    tol = args.tol if args.rtol is None else args.rtol * found.d_adv
    limits = Limits(timeout=args.timeout, tol=tol, threads=args.threads)
    search, bab = AttackOptions(device=args.device), BabOptions(device=args.device)
    options = DistanceOptions(limits, bab=bab, attack=search, verifier=engine)
    if via is not None:
        method, gamma = via.split(":")
        options = replace(options, via=PruneOptions(method=method, select=SelectOptions(gamma=float(gamma), rank=args.rank)))
    r = distance(query, options, found=found)
    # without a point to prune for there is no substitute, and the model itself was asked
    seconds = r.time_s["total"] - r.time_s.get("attack", 0.0) if r.substitute is None else r.time_s["verify"]
    effort = r.nodes if unit_of(engine) == "nodes" else r.runs
    return Line(r.status, seconds, effort, r.reason, r.lower, r.upper, unanswered(r))


def decided(query: Query, engine: str, args: argparse.Namespace) -> Line:
    limits = Limits(timeout=args.timeout, threads=args.threads)
    start = time.perf_counter()
    plan, bab = AttackPlan(device=args.device), BabOptions(device=args.device)
    r = verify(query, args.eps, VerifyOptions(limits, bab=bab, attack=plan, verifier=engine))
    return Line(r.status, time.perf_counter() - start, r.nodes if unit_of(engine) == "nodes" else r.runs, r.reason)


def split_engines(text: str) -> list[str]:
    """The engines of `--engines`, each once. A comma inside quotes belongs to the command.

    Raises:
        ValueError: the quotes do not match.
        OnnxsubError: one of them is no engine.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = ",", True, ""
    engines = list(dict.fromkeys(e.strip() for e in lexer))
    for e in engines:
        # an engine is imported here: that is no part of the first question
        if external_tool(e) is None:
            engine_of(e)
    return engines


def short_names(engines: list[str]) -> dict[str, str]:
    """Per engine the first of its names that no other has: the kind, the program, more of its path, its arguments, everything."""
    names = {e: [*_names(e), e] for e in engines}
    return {e: next(n for n in names[e] if n == e or not any(n in names[o] for o in engines if o != e)) for e in engines}


def _names(engine: str) -> Iterator[str]:
    kind, colon, detail = engine.partition(":")
    if not colon or kind != "command":
        yield kind
    words = shlex.split(detail)
    if words:
        parts = [p for p in Path(words[0]).parts if p != "/"]
        yield from ("/".join(parts[-k:]) for k in range(1, len(parts) + 1))
        yield from (" ".join(Path(w).name for w in words[:k]) for k in range(2, len(words) + 1))


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
    parser.add_argument("--engines", default="bab", help="by commas, as --verifier takes them; quotes keep a comma")
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
    try:
        engines = split_engines(args.engines)
    except (ValueError, OnnxsubError) as error:
        parser.error(f"--engines: {error}")
    for network in args.network.split(","):
        for via in args.via.split(",") if args.via else [None]:
            run(network, via, engines, args)


def run(network: str, via: str | None, engines: list[str], args: argparse.Namespace) -> None:
    images, labels = images_for(network)
    known = dict(exact_rows()) if network == "wk17a" and via is None and args.eps is None else {}
    norm = space_of(network)
    space = InputSpace(mean=norm.get("mean"), std=norm.get("std"))
    lines: dict[str, list[Line]] = {e: [] for e in engines}
    names = short_names(engines)
    width = max(len(n) for n in ["attack", *names.values()])
    name = f"{network} via {via}" if via else network
    count = 0
    print(f"== {name}")
    for index in chosen(args, network):
        query = make_query(network_path(network), images[index], int(labels[index]), space=space)
        if query.misclassified:
            print(f"{index:4d} misclassified")
            if args.eps is None:
                continue
        count += 1
        found = None
        if args.eps is None:
            start = time.perf_counter()
            found = attack(query, AttackOptions(device=args.device))
            print(f"{index:4d} {'attack':{width}} {found.d_adv:.7f} {time.perf_counter() - start:.2f} s")
        for e in engines:
            lines[e].append(answered(query, e, found, args, via))
            print(f"{index:4d} {names[e]:{width}} {lines[e][-1].text(unit_of(e), known.get(index))}", flush=True)
        if count == args.anchors and not args.exact_rows and not args.indices:
            break
    for e in engines:
        print(f"-- {name} {names[e]}: {summary(unit_of(e), lines[e])}")
    for a, b in pairwise(engines):
        both = [(x, y) for x, y in zip(lines[a], lines[b], strict=True) if x.status == y.status == "exact"]
        if both:
            worst = max(abs(x.upper - y.upper) for x, y in both)
            print(f"-- {names[a]} against {names[b]}: {len(both)} both exact, largest difference {worst:.1e}")


def summary(unit: str, every: list[Line]) -> str:
    """Tally, times and ratios of what was not refused, and how much was."""
    lines = [x for x in every if x.status != "refused"]
    refused = f"{len(every) - len(lines)} of {len(every)} refused" if len(lines) < len(every) else ""
    if not lines:
        return refused or "nothing was asked"
    times = [x.seconds for x in lines]
    words = [f"median {median(times):.2f} s, worst {max(times):.2f} s"]
    if any(math.isnan(x.upper) for x in lines):
        words.insert(0, str({w: sum(x.status == w for x in lines) for w in ("proved", "violated", "unknown")}))
    else:
        ratios = [x.ratio for x in lines]
        words.insert(0, f"{sum(x.status in ('exact', 'none') for x in lines)} of {len(lines)} exact")
        words.append(f"median ratio {median(ratios):.4f}, worst {max(ratios):.4f}")
    if ours := sum(x.ours for x in lines):
        words.append(f"{ours} without an answer, whose ratios are those of our bounds and the attack")
    effort = sum(x.effort for x in lines)
    words.append(f"{effort / max(sum(times), 1e-9):.0f} nodes per second" if unit == "nodes" else f"{effort} runs")
    return ", ".join([*words, refused] if refused else words)


if __name__ == "__main__":
    main()
