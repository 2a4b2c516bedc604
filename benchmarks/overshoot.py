"""By how much commands exceed `--timeout`: commands x networks x limits.

    python -m benchmarks.overshoot [--commands attack,bounds] [--networks wk17a,resnet18] [--limits 2,5,20]

Every command runs in a process of its own that has imported what commands import; overshoot is the time from there to the exit
code, less the limit. The bar: at most max(1 s, 5 % of the limit), in every row; a command that is done before has none. Of
`robustness` it is the time of one sample, as the run's document has it. `stage` is what the command says was cut short, or its
status. A network that takes long to read counts as work.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import DATA, images_for, load_note, space_of
from benchmarks.networks_resnet18 import write as write_resnet18

DRIVER = """
import sys, time
import highspy, onnx_graphsurgeon, onnxruntime, rich.console, rich.progress, rich.table
import onnxsub.layouts.chain, onnxsub.metrics.local, onnxsub.pruning.prune, onnxsub.verifiers.distance, onnxsub.verifiers.verify
from onnxsub.cli.main import run
start = time.perf_counter()
code = run(sys.argv[1:])
print(f"seconds {time.perf_counter() - start}", file=sys.stderr)
sys.exit(code)
"""
CLAUSES = 4000
GRACE = 240.0  # seconds beyond the limit after which a command is given up

COMMANDS: dict[str, tuple[str, ...]] = {
    "attack": ("attack",),
    "bounds": ("bounds", "--method", "alpha-crown", "--eps", "EPS"),
    "prune": ("prune",),
    "prune --best-effort": ("prune", "--best-effort"),
    "compare": ("compare", "--eps", "EPS"),
    "verify": ("verify", "--eps", "EPS"),
    "distance": ("distance",),
    "distance --via": ("distance", "--via", "lin:0.99"),
    "robustness": ("robustness", "--eps", "EPS"),
    "property": ("verify",),
}


@dataclass(frozen=True)
class Network:
    """A network and one anchor.

    Attributes:
        eps: a radius at which nothing is trivial.
    """

    name: str
    path: Path
    anchor: Path
    eps: float
    options: tuple[str, ...]


def networks(folder: Path) -> dict[str, Network]:
    """The networks, their anchors written to a folder."""
    found = {}
    for name, index, eps in (("wk17a", 0, 0.12), ("resnet_2b", 0, 0.01), ("resnet18", 0, 0.01)):
        images, _ = images_for(name)
        anchor = folder / f"{name}.npy"
        np.save(anchor, images[index])
        path = DATA / "nets" / f"{name}.onnx"
        if name == "resnet18":
            path = folder / "resnet18.onnx"
            write_resnet18(path)
        space = space_of(name)
        options = tuple(f"--{key}={','.join(map(str, values))}" for key, values in space.items())
        found[name] = Network(name, path, anchor, eps, options)
    return found


def write_clauses(folder: Path) -> tuple[Path, Path]:
    """A network of three units whose output is at most 0.5, and a property of many clauses that all ask for 1 or more."""
    inner, outer = np.array([[1, 0], [0, 1], [0, -1]], np.float32), np.array([[1, -1, 1]], np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "W"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "V"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in (("x", 2), ("y", 1))]
    weights = [numpy_helper.from_array(inner, "W"), numpy_helper.from_array(outer, "V")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "clauses.onnx")
    clauses = "".join(f"(and (>= Y_0 {1 + i * 1e-4:.5f}))" for i in range(CLAUSES))
    text = "".join(f"(declare-const {n} Real)\n" for n in ("X_0", "X_1", "Y_0"))
    text += f"(assert (<= -1 X_0 1))\n(assert (<= 0.5 X_1 0.5))\n(assert (or {clauses}))\n"
    (folder / "clauses.vnnlib").write_text(text)
    return folder / "clauses.onnx", folder / "clauses.vnnlib"


def arguments(command: str, network: Network, limit: float, folder: Path) -> list[str]:
    """The command line behind `onnxsub`."""
    own = [str(network.eps) if a == "EPS" else a for a in COMMANDS[command]]
    head, rest = own[0], own[1:]
    common = ["--timeout", str(limit), "--threads", "1", "--json", *rest, *network.options]
    if command == "robustness":
        data = folder / f"{network.name}.npz"
        np.savez(data, x=np.load(network.anchor)[None])
        run = tempfile.mkdtemp(dir=folder)
        return [head, str(network.path), "--run", run, "--data", str(data), "--array", "x", "--labels", "predicted", *common]
    files = [str(network.path)] + ([str(network.path)] if command == "compare" else [])
    if head == "prune":
        common += ["-o", str(folder / "substitute.onnx")]
    return [head, *files, "--x0", str(network.anchor), *common]


def run(argv: list[str], limit: float) -> tuple[float, int, str, str]:
    """Seconds beyond the imports, exit code, standard output and error of a command; code -9 where it was given up."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, *argv], capture_output=True, text=True, timeout=limit + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        return time.perf_counter() - start, -9, "", "given up"
    said, _, seconds = done.stderr.rpartition("seconds ")
    return float(seconds or "nan"), done.returncode, done.stdout, said


def stage_of(out: str, err: str) -> str:
    """What the command says that was cut short."""
    try:
        document = json.loads(out)
    except ValueError:
        document = {}
    named = re.search(r"in the stage '(\w+)'", err)
    stage = document.get("stage") or (named[1] if named else "")
    return str(stage or document.get("status", ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--networks", default="wk17a,resnet_2b,resnet18")
    parser.add_argument("--limits", default="2,5")
    chosen = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        every = networks(folder)
        print(load_note())
        print(f"{'command':20} {'network':10} {'limit':>5} {'taken':>7} {'over':>6} {'bar':>5}  code  stage")
        for command in chosen.commands.split(","):
            for key in ["clauses"] if command == "property" else chosen.networks.split(","):
                for limit in map(float, chosen.limits.split(",")):
                    if command == "property":
                        model, text = write_clauses(folder)
                        argv = ["verify", str(model), str(text), "--timeout", str(limit), "--threads", "1", "--json"]
                    else:
                        argv = arguments(command, every[key], limit, folder)
                    taken, code, out, err = run(argv, limit)
                    if command == "robustness" and code in (0, 3):
                        taken = json.loads(out)["time_s"]["busy"]
                    bar = max(1.0, 0.05 * limit)
                    late = not taken - limit <= bar or code not in (0, 1, 3)
                    bad += late
                    mark = "  <-" if late else ""
                    print(
                        f"{command:20} {key:10} {limit:5.0f} {taken:7.2f} {max(taken - limit, 0.0):6.2f} {bar:5.2f}  {code:4d}  "
                        f"{stage_of(out, err)}{mark}",
                        flush=True,
                    )
                    if code not in (0, 1, 3) and err:
                        print(f"    {err.strip().splitlines()[-1]}")
    print(f"{bad} rows beyond the bar; {load_note()}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
