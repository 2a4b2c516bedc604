"""The same VNN-LIB questions through this project and through other tools, each as a whole process, in turn: who is first?

    python -m benchmarks.against balls --out FILE.jsonl --tool abc:PATH/abc_instance.sh --tool nnenum:"PYTHON nnenum_instance.py"
    python -m benchmarks.against mnistfc4 --out FILE.jsonl --tool abc:PATH/abc_instance.sh --timeout 60
    python -m benchmarks.against resnet --only prop_35,prop_38 --out FILE.jsonl --tool abc:PATH/abc_instance.sh --timeout 20
    python -m benchmarks.against table FILE.jsonl ...

`balls`: five networks, five anchors each, the ball at `--share` of the distance that an attack found. `mnistfc4`, `resnet`: the
properties of VNN-COMP 2021 on `mnist-net_256x4` and `resnet_2b`, or those whose names hold one of the words of `--only`. A tool
takes the command line of VNN-COMP: `v1 CATEGORY MODEL PROPERTY RESULTS SECONDS`; the wrappers stand in `docs/other-verifiers.md`.
Seconds are those of the process: start, imports and reading count, for all alike. Answers are kept line by line, so that a run
goes on where it was stopped. Exit code 1: one tool says sat, another one unsat.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, images_for, load_note, median, space_of, table
from benchmarks.vnncomp import run as run_ours

NETWORKS = ("mnist_2_50", "mnist-net_256x2", "wk17a", "kw_mnist_small", "cifar_base_kw")
_OURS = "onnxsub"
_GRACE = 20.0  # seconds beyond its limit after which a tool is stopped


def balls(folder: Path, networks: tuple[str, ...], share: float, count: int) -> Iterator[tuple[str, Path, Path]]:
    """(name, model, property) of the first `count` images that each network classifies rightly."""
    import onnxsub
    from onnxsub.properties import robustness_property, write_property

    for network in networks:
        path = DATA / "nets" / f"{network}.onnx"
        model, space = onnxsub.load(path), onnxsub.InputSpace(**space_of(network))  # type: ignore[arg-type]
        images, labels = images_for(network)
        found = 0
        for index, (x, label) in enumerate(zip(images, labels, strict=True)):
            query = onnxsub.make_query(model, x.reshape(model.input_shape), space=space, threads=1)
            if query.label != int(label):
                continue
            d_adv = onnxsub.attack(query).d_adv
            if d_adv is not None:
                question = folder / f"{network}-{index}.vnnlib"
                question.write_text(write_property(robustness_property(query, share * d_adv)))
                yield f"{network} {index} {share:g}", path, question
            found += 1
            if found == count:
                break


PUBLISHED = {
    "mnistfc4": ("vnncomp2021_mnistfc_256x4.csv", "mnistfc21", "mnist-net_256x4"),
    "resnet": ("vnncomp2021_resnet_2b.csv", "cifar10_resnet21", "resnet_2b"),
}
"""Of each part: its file of verdicts, its folder of properties, its network."""


def published(part: str, folder: Path, only: tuple[str, ...]) -> Iterator[tuple[str, Path, Path]]:
    """The questions of a part, those with a published verdict first; unpacked, for not every tool reads `.gz`."""
    verdicts, where, network = PUBLISHED[part]
    with (DATA / "gt" / verdicts).open() as file:
        rows = sorted(csv.DictReader(file), key=lambda r: r["verdict"] not in ("sat", "unsat"))
    for name in (Path(r["vnnlib"]).name for r in rows):
        if only and not any(word in name for word in only):
            continue
        question = folder / name
        question.write_bytes(gzip.decompress((DATA / "vnnlib" / where / f"{name}.gz").read_bytes()))
        yield f"{network} {name.removesuffix('.vnnlib')}", DATA / "nets" / f"{network}.onnx", question


def ask(command: str, model: Path, question: Path, timeout: float, folder: Path) -> tuple[str, float, float]:
    """Word, seconds of the clock and of the processor."""
    results = folder / "results.txt"
    results.unlink(missing_ok=True)
    words = [*shlex.split(command), "v1", "-", str(model), str(question), str(results), f"{timeout:g}"]
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    child = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **single}, start_new_session=True
    )
    try:
        child.wait(timeout + _GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = results.read_text().split() if results.exists() else []
    words_of = {"sat": "sat", "violated": "sat", "unsat": "unsat", "holds": "unsat"}
    return words_of.get(said[0] if said else "", "undecided"), seconds, _cpu(after) - _cpu(before)


def ours(model: Path, question: Path, timeout: float) -> tuple[str, float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    word, seconds, _, _ = run_ours(model, question, "bab", timeout, 1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (word if word in ("sat", "unsat") else "undecided"), seconds, _cpu(after) - _cpu(before)


def _cpu(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def measure(args: argparse.Namespace) -> int:
    tools = dict(t.split(":", 1) for t in args.tool)
    kept = _kept([args.out]) if args.out.exists() else []
    done = {(r["question"], r["tool"]) for r in kept}
    with tempfile.TemporaryDirectory() as name, args.out.open("a") as out:
        folder = Path(name)
        if args.part == "balls":
            questions = balls(folder, args.networks, args.share, args.count)
        else:
            questions = published(args.part, folder, args.only)
        for question, model, path in questions:
            for tool in (_OURS, *tools):
                if (question, tool) in done:
                    continue
                load = os.getloadavg()[0]
                told = ours(model, path, args.timeout) if tool == _OURS else ask(tools[tool], model, path, args.timeout, folder)
                row = dict(zip(("word", "seconds", "cpu"), told, strict=True))
                row |= {"question": question, "tool": tool, "limit": args.timeout, "load": round(load, 1)}
                print(json.dumps(row), file=out, flush=True)
                print(f"{question:40} {tool:10} {told[0]:10} {told[1]:7.1f} s {told[2]:7.1f} s of the processor", flush=True)
    return show([args.out])


def _kept(files: list[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def show(files: list[Path]) -> int:
    """One row per question; who is first by the processor's seconds, among those that decide."""
    rows = _kept(files)
    tools = list(dict.fromkeys(r["tool"] for r in rows))
    lines: list[tuple[str, ...]] = []
    contradictions = 0
    first = dict.fromkeys(tools, 0)
    for question in dict.fromkeys(r["question"] for r in rows):
        own = {r["tool"]: r for r in rows if r["question"] == question}
        contradictions += {"sat", "unsat"} <= {r["word"] for r in own.values()}
        decided = {t: r["cpu"] for t, r in own.items() if r["word"] != "undecided"}
        best = min(decided, key=lambda t: decided[t]) if decided else None
        if best:
            first[best] += 1
        cells = [f"{own[t]['word']} {own[t]['seconds']:.1f} ({own[t]['cpu']:.1f})" if t in own else "not asked" for t in tools]
        lines.append((question, *(f"**{c}**" if t == best else c for t, c in zip(tools, cells, strict=True))))
    print(table(("question", *(f"{t}: answer, s (of the processor)" for t in tools)), lines))
    for tool in tools:
        own_rows = [r for r in rows if r["tool"] == tool]
        settled = [r["cpu"] for r in own_rows if r["word"] != "undecided"]
        middle = f", median {median(settled):.1f} s of the processor" if settled else ""
        print(f"{tool}: {len(settled)} of {len(own_rows)} decided, first at {first[tool]}{middle}")
    print(f"contradictions: {contradictions}; loads {min(r['load'] for r in rows)} to {max(r['load'] for r in rows)}")
    return 1 if contradictions else 0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("balls", *PUBLISHED, "table"))
    parser.add_argument("files", nargs="*", type=Path, help="for `table`")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tool", action="append", default=[], metavar="NAME:COMMAND")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--share", type=float, default=0.8, help="radius of `balls`, of the attack's distance")
    parser.add_argument("--count", type=int, default=5, help="anchors per network of `balls`")
    parser.add_argument("--networks", type=_words, default=NETWORKS, metavar="LIST", help="of `balls`")
    parser.add_argument("--only", type=_words, default=(), metavar="WORDS", help="of published properties")
    args = parser.parse_args()
    if args.part == "table":
        return show(args.files)
    if args.out is None:
        parser.error("--out FILE.jsonl says where the answers go")
    print(load_note())
    return measure(args)


if __name__ == "__main__":
    sys.exit(main())
