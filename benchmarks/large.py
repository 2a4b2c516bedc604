"""`prune --keep 64` on networks of 10^5 to 10^7 units as users call it, and the exact distance of what it writes.

    python -m benchmarks.large                              ResNet-18-shaped at 32, 64 and 224
    python -m benchmarks.large --networks vgg16:224,resnet50:224,mobilenet:224 --no-distance
    python -m benchmarks.large --pool max                   with MaxPool inside

Per network: seconds of wall clock and of the processor, largest resident memory, size of the file, what is preserved, and the
status of `distance` on it. Weights are random (`networks_large.py`); the anchor is a random image whose values change slowly.
One line per stage goes to standard error.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import command_line, load_note, process, table


def image(size: int, path: Path) -> None:
    """A random image of 8 x 8 blocks with a little noise, in [0, 1]."""
    rng = np.random.default_rng(0)
    side = math.ceil(size / 8)
    blocks = np.kron(rng.random((3, 8, 8)), np.ones((side, side)))[:, :size, :size]
    np.save(path, np.clip(0.8 * blocks + 0.1 + 0.05 * rng.standard_normal((3, size, size)), 0, 1).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet18:32,resnet18:64,resnet18:224")
    parser.add_argument("--pool", choices=["average", "max"], default="average")
    parser.add_argument("--keep", default="64")
    parser.add_argument("--threads", default=None)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a process is ended")
    parser.add_argument("--distance", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--timeout", default="120", help="of the distance")
    parser.add_argument("--memory", type=float, default=40.0, help="GB of address space")
    args = parser.parse_args()
    print(load_note())
    threads = [] if args.threads is None else ["--threads", args.threads]
    rows = []
    for entry in args.networks.split(","):
        name, size = entry.split(":")
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder)
            made = process(
                ["-m", "benchmarks.networks_large", name, size, str(at / "model.onnx"), "--pool", args.pool], limit=600, folder=at
            )
            if made.code:
                sys.exit(f"{entry} was not written: {made.error}")
            image(int(size), at / "x0.npy")
            limits = {"limit": args.limit, "folder": at, "memory": args.memory}
            words = ["prune", "model.onnx", "--x0", "x0.npy", "--keep", args.keep, "-o", "small.onnx", *threads]
            pruned = command_line(words, **limits)
            if pruned.code:
                spent = [f"{pruned.seconds:.0f} s", f"{pruned.cpu:.0f} s", f"{pruned.peak:.1f} GB"]
                rows.append([entry, "", f"exit {pruned.code}", *spent, "", "", pruned.error])
                continue
            d = pruned.document
            answer = "not asked"
            if args.distance:
                asked = command_line(["distance", "small.onnx", "--x0", "x0.npy", "--timeout", args.timeout, *threads], **limits)
                bracket = f"[{asked.document.get('lower', 0):.6f}, {asked.document.get('upper') or math.inf:.6f}]"
                answer = f"{asked.status} {bracket} in {asked.seconds:.0f} s, {asked.peak:.1f} GB"
            times = ", ".join(f"{k} {v:.0f}" for k, v in d["time_s"].items() if k != "total")
            rows.append([
                entry, f"{d['units_total']:,}", f"{d['d_adv']:.5f}", f"{pruned.seconds:.0f} s ({times})", f"{pruned.cpu:.0f} s",
                f"{pruned.peak:.1f} GB", f"{d['layout']}, {(at / 'small.onnx').stat().st_size / 1e6:.1f} MB",
                f"{max(d['preserves'].values()):.1e}", answer,
            ])  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    head = ["network", "units", "d_adv", "prune", "processor", "peak", "file", "max abs (g - f)", "distance of the file"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
