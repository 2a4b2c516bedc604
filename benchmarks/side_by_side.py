"""Smooth networks: the same balls asked of branch and bound here and of another tool, side by side.

    python -m benchmarks.side_by_side --tool command:PATH/abc_instance.sh FILE.onnx[:DATA.npz] ... [--images 2] [--timeout 60]

Both get the same VNN-LIB question on the file itself, at shares of the distance that an attack found. Samples are the first rows of
`x` in DATA.npz, else random points of the domain. A contradiction is a proof of one and a confirmed witness of the other. Exit code
1: a contradiction.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import ask_ball, load_note, table

_SHARES = (0.1, 0.3, 0.6, 0.95)


def samples(path: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    if path:
        with np.load(path) as archive:
            return archive["x"][:count].astype(np.float32).reshape(-1, *shape)
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="FILE.onnx or FILE.onnx:DATA.npz")
    parser.add_argument("--tool", required=True, help="as --verifier takes it")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args()
    import onnxsub

    print(load_note())
    rows, contradictions = [], 0
    for file, _, data in (f.partition(":") for f in args.files):
        model = onnxsub.load(file)
        for i, x in enumerate(samples(data, model.input_shape, args.images)):
            query = onnxsub.make_query(model, x, threads=1)
            d_adv = onnxsub.attack(query).d_adv
            if d_adv is None:
                print(Path(file).stem, i, "no adversarial point found")
                continue
            for share in _SHARES:
                eps = share * d_adv
                ours = ask_ball(query, eps, "bab", args.timeout, threads=1)
                try:
                    theirs = ask_ball(query, eps, args.tool, args.timeout, threads=1)
                    said, seconds = theirs.status, f"{theirs.seconds:.1f} s"
                except onnxsub.OnnxsubError as error:
                    said, seconds = f"not read: {str(error)[:60]}", ""
                wrong = {ours.status, said} == {"proved", "violated"}
                contradictions += wrong
                cells = (Path(file).stem, str(i), f"{eps:.4g} ({share:g})", ours.status, f"{ours.seconds:.1f} s", said, seconds)
                rows.append((*cells, "contradiction" if wrong else ""))
                print(*rows[-1], flush=True)
                if not seconds:
                    break
    print(table(("network", "image", "eps (of d_adv)", "here", "", "tool", "", ""), rows))
    print(f"{contradictions} contradictions", load_note(), sep="\n")
    return 1 if contradictions else 0


if __name__ == "__main__":
    sys.exit(main())
