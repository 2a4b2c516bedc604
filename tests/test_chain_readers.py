"""Chain files in the hands of other tools, each in a process of its own.

`ONNXSUB_MARABOU_PYTHON` and `ONNXSUB_GUROBI_ML_PYTHON` name interpreters that have maraboupy and gurobi-machinelearning;
default: this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.instance import Instance
from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.lower import lower
from onnxsub.model import Model, load_model, save_model
from onnxsub.network import Network
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import lines, substitute
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.measure import measure
from tests.random_models import PIECEWISE, random_model

Tool = Callable[[str, Path], Any]

KNOWN = {
    "nnenum": {
        "Add", "AveragePool", "Constant", "Concat", "Conv", "Flatten", "Gather", "Gemm", "MatMul", "Mul", "Reshape", "Relu",
        "Shape", "Sub", "Unsqueeze", "Slice", "Dropout",
    },
    "marabou": {
        "Constant", "Identity", "Dropout", "Cast", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze",
        "BatchNormalization", "MaxPool", "Conv", "Gemm", "Add", "Sub", "Relu", "LeakyRelu", "MatMul", "Sigmoid", "Tanh", "Sign",
    },
    "gurobi-machinelearning": {"Gemm", "MatMul", "Add", "Relu", "Identity"},
}  # fmt: skip
"""Operators that each tool reads, from its source."""

MARABOU = """
import json, sys
import numpy as np
from maraboupy import Marabou
found = []
for job in json.load(open(sys.argv[1])):
    network = Marabou.read_onnx(job["model"])
    shape = network.inputVars[0].shape
    rows = np.array(job["x"], dtype=np.float32)
    values = [network.evaluateWithMarabou([row.reshape(shape)], filename="")[0].reshape(-1).tolist() for row in rows]
    found.append({"values": values, "inputs": list(shape), "outputs": list(network.outputVars[0].shape)})
print("RESULT" + json.dumps(found))
"""

GUROBI = """
import json, sys
import gurobipy as gp, onnx
from gurobi_ml.onnx import add_onnx_constr
found = []
with gp.Env(params={"OutputFlag": 0}) as env:
    for job in json.load(open(sys.argv[1])):
        with gp.Model(env=env) as model:
            x = model.addMVar((1, len(job["lower"])), lb=[job["lower"]], ub=[job["upper"]])
            y = model.addMVar((1, job["classes"]), lb=-gp.GRB.INFINITY)
            add_onnx_constr(model, onnx.load(job["model"]), x, y)
            model.Params.FeasibilityTol = model.Params.OptimalityTol = 1e-9
            model.Params.IntFeasTol = 1e-9
            model.Params.MIPGap = model.Params.MIPGapAbs = 0
            worst = []
            for target in range(job["classes"]):
                if target != job["label"]:
                    model.setObjective(y[0, target] - y[0, job["label"]], gp.GRB.MAXIMIZE)
                    model.optimize()
                    worst.append(model.ObjVal)
            found.append(max(worst))
print("RESULT" + json.dumps(found))
"""


def tool(variable: str, package: str) -> Tool:
    python = os.environ.get(variable, sys.executable)
    probe = subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no {package} in {python}; set {variable} to an interpreter that has it")

    def call(code: str, jobs: Path) -> Any:
        done = subprocess.run([python, "-c", code, str(jobs)], capture_output=True, text=True, check=False, cwd=jobs.parent)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.rpartition("RESULT")[2])

    return call


@pytest.fixture(scope="module")
def marabou() -> Tool:
    return tool("ONNXSUB_MARABOU_PYTHON", "maraboupy")


@pytest.fixture(scope="module")
def gurobi() -> Tool:
    return tool("ONNXSUB_GUROBI_ML_PYTHON", "gurobi_ml.onnx")


def small(seed: int, kind: str, activations: tuple[str, ...] = ("Relu",)) -> tuple[Model, Network, np.ndarray]:
    """A model, a substitute with half of its units, and an anchor."""
    model = load_model(random_model(seed, kind=kind, activations=activations, classes=3))
    network = lower(model)
    rng = np.random.default_rng(seed)
    x0 = rng.uniform(0.3, 0.7, network.input_shape).astype(np.float32)
    kept = {a.output: rng.random(a.out_shape) < 0.5 for a in network.activations}
    return model, substitute(network, lines(network, "act", x0), kept), x0


def test_all_operators_are_on_every_list() -> None:
    for flat in (False, True):
        model, g, x0 = small(1, "conv", PIECEWISE)
        proto = LAYOUTS["chain"](model, g, LayoutContext.of(InputSpace(), x0, 0.1, flat_input=flat))
        kinds = {node.op_type for node in proto.graph.node}
        for name, known in KNOWN.items():
            if flat or name != "gurobi-machinelearning":
                assert kinds <= known, name


def test_marabou_reads_and_computes_the_same(marabou: Tool, tmp_path: Path) -> None:
    jobs, expected = [], []
    for seed, kind in ((1, "dense"), (2, "conv"), (3, "residual")):
        model, g, x0 = small(seed, kind, PIECEWISE)
        for flat in (False, True):
            proto = LAYOUTS["chain"](model, g, LayoutContext.of(InputSpace(), x0, 0.1, flat_input=flat))
            path = tmp_path / f"{seed}{flat}.onnx"
            save_model(proto, path)
            x = np.random.default_rng(0).random((3, x0.size)).astype(np.float32)
            runtime = Runtime(load_model(path))
            expected.append(runtime.logits(x.reshape(3, *runtime.model.input_shape)))
            jobs.append({"model": str(path), "x": x.tolist()})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    for found, wanted in zip(marabou(MARABOU, tmp_path / "jobs.json"), expected, strict=True):
        assert found["outputs"] == [1, 3]
        np.testing.assert_allclose(found["values"], wanted, rtol=1e-4, atol=1e-4)


def test_marabou_reads_a_real_substitute(marabou: Tool, net_path: Callable[[str], Path], data_dir: Path, tmp_path: Path) -> None:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        images = archive["x_test"][:3].astype(np.float32)[:, None] / 255
    query = make_query(net_path("wk17a"), images[0])
    quick = AttackOptions(steps=20, threads=1)
    proto = prune(query, PruneOptions("lin", SelectOptions(gamma=0.99), "chain", attack=quick)).proto
    save_model(proto, tmp_path / "g.onnx")
    (tmp_path / "jobs.json").write_text(json.dumps([{"model": str(tmp_path / "g.onnx"), "x": images.reshape(3, -1).tolist()}]))
    (found,) = marabou(MARABOU, tmp_path / "jobs.json")
    wanted = Runtime(load_model(proto)).logits(images)
    assert found["inputs"] == [1, 1, 28, 28]
    np.testing.assert_allclose(found["values"], wanted, atol=1e-4 * (1 + np.abs(wanted).max()))


def test_gurobi_machine_learning_finds_our_margin(gurobi: Tool, tmp_path: Path) -> None:
    """At the distance that our MILP finds, the worst margin on the ball is zero."""
    jobs = []
    for seed in range(12):
        model, g, x0 = small(seed, "dense")
        space = InputSpace()
        label = int(Runtime(model).logits(x0[None])[0].argmax())
        found = measure(Instance(g, x0, label, space), verifier="milp")
        if found.status != "exact" or not 0 < found.upper < np.inf:
            continue
        proto = LAYOUTS["chain"](model, g, LayoutContext.of(space, x0, 0.1, flat_input=True))
        save_model(proto, tmp_path / f"{seed}.onnx")
        lower_end, upper_end = space.ball(x0, found.upper)
        jobs.append(
            {
                "model": str(tmp_path / f"{seed}.onnx"),
                "lower": lower_end.reshape(-1).tolist(),
                "upper": upper_end.reshape(-1).tolist(),
                "label": label,
                "classes": 3,
            }
        )
    assert len(jobs) >= 4
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    margins = gurobi(GUROBI, tmp_path / "jobs.json")
    assert max(abs(m) for m in margins) <= 1e-5
