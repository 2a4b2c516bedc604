"""The extreme of a property's quantity, image by image: how wide the brackets of `robustness --quantitative` get.

    python -m benchmarks.quantitative --out brackets.jsonl [--network mnist_2_20] [--images 50] [--eps 0.02] [--seconds 80]

One line of JSON per image, under the property `confidence`. What stands in the file is not done again, so a run that `--seconds`
(or anything else) ended goes on with the same command. The bar: each bracket at most 1e-3 wide. The last line printed says how
many are there, how wide the widest is, and the seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from benchmarks.common import DATA, images_for, load_note, space_of
from onnxsub.metrics.local import LocalOptions, extreme_local, make_property
from onnxsub.model import load_model
from onnxsub.query import make_query
from onnxsub.region import InputSpace

WIDTH = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--network", default="mnist_2_20")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--eps", type=float, default=0.02)
    parser.add_argument("--timeout", type=float, help="per image")
    parser.add_argument("--seconds", type=float, default=1e9, help="no image is begun later than that")
    args = parser.parse_args()
    began = time.perf_counter()
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {line["image"] for line in lines}
    model = load_model(DATA / "nets" / f"{args.network}.onnx")
    x, _ = images_for(args.network)
    space = InputSpace(0.0, 1.0, **space_of(args.network))
    prop = make_property("confidence", args.eps, gamma=0.1)
    for image in range(args.images):
        if image in done or time.perf_counter() - began > args.seconds:
            continue
        query = make_query(model, x[image].reshape(model.input_shape), threads=1, space=space)
        processor, wall = time.process_time(), time.perf_counter()
        found = extreme_local(query, prop, 0.99 * WIDTH, LocalOptions(timeout=args.timeout))
        lines.append({
            "image": image, "status": found.status, "lower": found.lower, "upper": found.upper, "value": found.value,
            "questions": found.questions, "reason": found.reason, "cpu_s": time.process_time() - processor,
            "wall_s": time.perf_counter() - wall,
        })  # fmt: skip
        args.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(f"{image}: {found.lower:.6f} to {found.upper:.6f}, {lines[-1]['wall_s']:.1f} s, {found.reason}", flush=True)
    widths = [line["upper"] - line["lower"] for line in lines]
    cpu = sorted(line["cpu_s"] for line in lines)
    print(
        f"{len(lines)} of {args.images} images, {sum(w <= WIDTH for w in widths)} at most {WIDTH:g} wide, "
        f"widest {max(widths, default=0):.3g}; processor: median {cpu[len(cpu) // 2] if cpu else 0:.1f} s, sum {sum(cpu):.0f} s; "
        f"{load_note()}"
    )


if __name__ == "__main__":
    main()
