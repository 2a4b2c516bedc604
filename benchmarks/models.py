"""Real exports through every command: what works at which step, the sizes of substitutes, seconds.

    python -m benchmarks.models [NAME ...] [--timeout 30]

Reads the files of `models/` in the data folder, asks about one anchor each (a given image, else random numbers of the domain) and
prints one row per file, as in `docs/models.md`. `verify` asks about a twentieth of `d_adv`. Exit code 1 where a step fails that
should not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.common import DATA, TREE, load_note, table

_OPTIONS: dict[str, tuple[str, ...]] = {
    "multihead_tuple": ("--output", "linear_1"),
    "rapidocr_cls": ("--input-shape", "3,48,192"),
    "ort_logreg_iris": ("--domain", "0", "8"),
}
"""What a command must be told about a file."""

_MANY = 100_000
"""Units beyond which `bounds` is asked for intervals only."""

_REFUSED = {"forest_probs": "trees"}
"""Files that no command can take, and a word of the reason."""


@dataclass
class Done:
    """One command: exit code, document, last line of its standard error, seconds."""

    code: int
    document: dict[str, Any]
    said: str
    seconds: float


@dataclass
class Row:
    name: str
    cells: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def run(*words: str) -> Done:
    environment = os.environ | {"PYTHONPATH": str(TREE), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "onnxsub", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        document = {}
    said = (done.stderr.strip().splitlines() or [""])[-1]
    return Done(done.returncode, document, said, time.perf_counter() - start)


def anchor(path: Path, folder: Path) -> Path:
    """The image beside a file, or random numbers of its input's shape."""
    if (given := path.with_suffix(".npy")).exists():
        return given
    kind = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type
    dims = [d.dim_value for d in kind.shape.dim]
    options = _OPTIONS.get(path.stem, ())
    shape = [int(n) for n in options[1].split(",")] if "--input-shape" in options else [n or 1 for n in dims[1:]]
    low, high = (float(v) for v in options[options.index("--domain") + 1 :][:2]) if "--domain" in options else (0.0, 1.0)
    x = low + (high - low) * np.random.default_rng(0).random(shape)
    x = np.round(255 * x) if kind.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8) else x
    np.save(folder / f"{path.stem}.npy", x.astype(np.float32))
    return folder / f"{path.stem}.npy"


def ask(path: Path, folder: Path, timeout: str) -> Row:
    row, options = Row(path.stem), _OPTIONS.get(path.stem, ())
    done = run("info", str(path), *(o for o in options if "--domain" not in options))
    if path.stem in _REFUSED:
        found = run("attack", str(path), "--x0", str(anchor(path, folder)))
        row.cells["reads"] = f"no: {found.said.removeprefix('onnxsub: ')}"
        if found.code != 4 or _REFUSED[path.stem] not in found.said:
            row.failed.append("refusal")
        return row
    reads = done.code == 0 and not done.document.get("unsupported")
    row.cells |= {"reads": "yes" if reads else "no", "units": f"{done.document.get('units', 0):,}"}
    if windows := done.document.get("windows"):
        row.cells["units"] += f" + {windows:,}"
    if not reads:
        row.failed.append(f"info: {(done.document.get('unsupported') or [done.said])[0][:100]}")
    x0 = ("--x0", str(anchor(path, folder)))

    def step(name: str, codes: tuple[int, ...], *words: str) -> Done:
        found = run(*words, *options)
        if found.code not in codes:
            row.failed.append(f"{name}: {found.code} {found.said[:140]}")
        return found

    attack = step("attack", (0,), "attack", str(path), *x0)
    d = attack.document.get("d_adv")
    row.cells["d_adv"] = f"{d:.4g}" if d else "none found"
    eps = f"{(d or 0.02) / 20:.6g}"
    # a backward pass for each of 500,000 units takes hours
    method = ("--method", "ibp") if done.document.get("units", 0) > _MANY else ()
    bounds = step("bounds", (0,), "bounds", str(path), *x0, "--eps", eps, *method)
    row.cells["bounds"] = f"{bounds.seconds:.1f} s{' (ibp)' if method else ''}"
    verify = step("verify", (0, 3), "verify", str(path), *x0, "--eps", eps, "--timeout", timeout)
    row.cells["verify"] = f"{verify.document.get('status', 'failed')}, {verify.seconds:.1f} s"
    for gamma in ("0.9", "0.99"):
        out = folder / f"{path.stem}-{gamma}.onnx"
        method = ("--method", "lin") if d else ("--method", "con", "--eps", "0.02")
        pruned = step(f"prune {gamma}", (0,), "prune", str(path), *x0, *method, "--gamma", gamma, "-o", str(out))
        j = pruned.document
        if pruned.code == 0:
            worst = max((v for v in j["preserves"].values() if v is not None), default=0.0)
            row.cells[f"prune {gamma}"] = f"{j['layout']}, {out.stat().st_size / 1e3:,.0f} kB, {worst:.0e}, {pruned.seconds:.1f} s"
        else:
            row.cells[f"prune {gamma}"] = "failed"
    distance = step("distance", (0, 3), "distance", str(path), *x0, "--timeout", timeout)
    j = distance.document
    ends = ", ".join("none" if j.get(k) is None else f"{j[k]:.4g}" for k in ("lower", "upper"))
    row.cells["distance"] = f"{j.get('status', 'failed')} [{ends}], {distance.seconds:.0f} s"
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="files without .onnx; default: all")
    parser.add_argument("--timeout", default="30", help="of verify and distance, seconds")
    args = parser.parse_args()
    paths = sorted((DATA / "models").glob("*.onnx"))
    paths = [p for p in paths if not args.names or p.stem in args.names]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            row = ask(path, Path(folder), args.timeout)
            rows.append(row)
            print(row.name, *(f"{k}: {v};" for k, v in row.cells.items()), *(f"FAILED {f};" for f in row.failed), flush=True)
    columns = ("reads", "units", "d_adv", "bounds", "verify", "prune 0.9", "prune 0.99", "distance")
    print(table(("model", *columns), [(r.name, *(r.cells.get(c, "") for c in columns)) for r in rows]))
    print(load_note())
    return 1 if any(r.failed for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
