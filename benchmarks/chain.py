"""Layout `chain` on every network of the data folder: sizes, and the worst difference from layout `compact` under onnxruntime.

    python -m benchmarks.chain [--networks wk17a,cifar_base_kw] [--gammas 0.99,0.9] [--anchors 2]
        [--marabou PYTHON] [--gurobi-ml PYTHON]

For each network, anchor, method and gamma: the widths of the file, the largest `|chain - compact|` as a share of the bar
`1e-4 (1 + max |logit|)` over test images, random points and corners of the domain, points of the ball, anchor and adversarial
point, and the seconds that writing took. With an interpreter that has maraboupy, each file is read by it; with one that has
gurobi-machinelearning, each file with a flat input by that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import ModelProto

from benchmarks.common import DATA, images_for, load_note, space_of
from onnxsub.errors import OnnxsubError
from onnxsub.layouts import LayoutContext
from onnxsub.layouts.chain import TOLERANCE, chain
from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import Model, load_model, save_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import METHODS, substitute
from onnxsub.pruning.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime

MARABOU = "import sys; from maraboupy import Marabou\nfor f in sys.argv[1:]: Marabou.read_onnx(f)"
GUROBI = """
import sys, gurobipy as gp, onnx
from gurobi_ml.onnx import add_onnx_constr
env = gp.Env(params={"OutputFlag": 0})
for f in sys.argv[1:]:
    file = onnx.load(f)
    n = file.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    model = gp.Model(env=env)
    add_onnx_constr(model, file, model.addMVar((1, n), lb=0.0, ub=1.0))
"""


def widths(proto: ModelProto) -> str:
    matrices = [w.dims for w in proto.graph.initializer if len(w.dims) == 2]
    return "-".join(map(str, [matrices[0][1], *(d[0] for d in matrices)]))


def points(context: LayoutContext, images: Array) -> Array:
    """Other points than those that are tried when the file is written."""
    rng = np.random.default_rng(1)
    shape = images.shape[1:]
    space = context.space
    inside = rng.uniform(space.lower, space.upper, (20, *shape))
    corners = rng.choice([space.lower, space.upper], (20, *shape))
    assert context.ball is not None
    ball = rng.uniform(*context.ball, (20, *shape))
    return np.concatenate([context.points, images[:20], inside, corners, ball])


def share_of_bar(model: Model, g: Network, proto: ModelProto, context: LayoutContext, images: Array) -> float:
    x = context.space.normalise(points(context, images))
    expected = Runtime(load_model(compact(model, g)), threads=1).logits(x).astype(np.float64)
    got = Runtime(load_model(proto), threads=1).logits(x).astype(np.float64)
    return float((np.abs(got - expected).max(axis=1) / (TOLERANCE * (1 + np.abs(expected).max(axis=1)))).max())


def reads(python: str, code: str, path: Path) -> bool:
    done = subprocess.run([python, "-c", code, str(path)], capture_output=True, text=True, check=False, cwd=path.parent)
    if done.returncode:
        print(done.stderr.strip().splitlines()[-1])
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="")
    parser.add_argument("--gammas", default="0.99,0.9")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--anchors", type=int, default=2)
    parser.add_argument("--marabou", metavar="PYTHON")
    parser.add_argument("--gurobi-ml", metavar="PYTHON")
    args = parser.parse_args()
    names = args.networks.split(",") if args.networks else sorted(p.stem for p in (DATA / "nets").glob("*.onnx"))
    readers = [(p, code, flat) for p, code, flat in ((args.marabou, MARABOU, False), (args.gurobi_ml, GUROBI, True)) if p]
    quick = AttackOptions(threads=1)
    files = failures = unread = 0
    worst = 0.0
    print(f"{len(names)} networks, {args.anchors} anchors each; {load_note()}")
    print(f"{'network':32} {'anchor':>6} {'method':>6} {'gamma':>5} {'of the bar':>10} {'seconds':>7}  widths")
    for name in names:
        images, labels = images_for(name)
        model = load_model(DATA / "nets" / f"{name}.onnx")
        space = InputSpace(**space_of(name))  # type: ignore[arg-type]
        raw = lower(model)
        queries = (make_query(model, images[i], int(labels[i]), space=space) for i in range(len(images)))
        right = ((i, q) for i, q in enumerate(queries) if not q.misclassified)
        for _, (index, query) in zip(range(args.anchors), right, strict=False):
            adversarial = Adversarial.of(attack(query, quick))
            for gamma in map(float, args.gammas.split(",")):
                for method in args.methods.split(","):
                    options = PruneOptions(method, SelectOptions(gamma=gamma), "chain", attack=quick)
                    found = build_substitute(query, options, adversarial)
                    g = substitute(raw, found.lines, found.selection.kept)
                    files += 1
                    start = time.perf_counter()
                    head = f"{name:32} {index:6d} {method:>6} {gamma:5g}"
                    try:
                        context = LayoutContext.of(space, query.x0, found.eps, found.x_adv)
                        proto = chain(model, g, context)
                    except OnnxsubError as error:
                        failures += 1
                        print(f"{head}  {error}", flush=True)
                        continue
                    seconds = time.perf_counter() - start
                    share = share_of_bar(model, g, proto, context, images)
                    worst = max(worst, share)
                    failures += not share <= 1
                    print(f"{head} {share:10.3f} {seconds:7.2f}  {widths(proto)}", flush=True)
                    with tempfile.TemporaryDirectory() as folder:
                        for python, code, flat in readers:
                            path = Path(folder) / f"{flat}.onnx"
                            shaped = LayoutContext.of(space, query.x0, found.eps, found.x_adv, flat_input=True)
                            save_model(chain(model, g, shaped) if flat else proto, path)
                            unread += not reads(python, code, path)
    print(f"{files} files, {failures} beyond the bar or refused, worst {worst:.3f} of the bar, {unread} not read")
    return 1 if failures or unread else 0


if __name__ == "__main__":
    sys.exit(main())
