"""`distance --via` on the rows of wk17a whose exact distance is published: error, time and status per ranking.

    python -m benchmarks.via                                  lin:0.99 by both rankings, and influence with 16 units kept; HiGHS
    python -m benchmarks.via --solver scip --methods lin,act

`error` is d_hat / d - 1; `verify` the seconds after pruning; `original` the certified bracket of the network itself divided by d.
"""

from __future__ import annotations

import argparse

from benchmarks.common import DATA, exact_rows, images_for, load_note, median
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits, MilpOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solver", default="highs")
    parser.add_argument("--search", default="direct")
    parser.add_argument("--methods", default="lin")
    parser.add_argument(
        "--settings", default="width:0.99,influence:0.99,influence:keep16", help="RANK:GAMMA or RANK:keepK, by commas"
    )
    parser.add_argument("--gamma0", type=float, default=SelectOptions().gamma0)
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args()
    images, _ = images_for("wk17a")
    print(f"wk17a, {args.solver}, {args.search}, {args.timeout:g} s each; {load_note()}")
    for method in args.methods.split(","):
        for setting in args.settings.split(","):
            rank, amount = setting.split(":")
            keep = int(amount[4:]) if amount.startswith("keep") else None
            select = SelectOptions(gamma=None if keep is not None else float(amount), keep=keep, rank=rank, gamma0=args.gamma0)
            milp = MilpOptions(solver=args.solver, search=args.search)
            options = DistanceOptions(Limits(timeout=args.timeout), milp, via=PruneOptions(method, select))
            errors, times, exact = [], [], 0
            for index, d in exact_rows():
                result = distance(make_query(DATA / "nets" / "wk17a.onnx", images[index]), options)
                assert result.original is not None
                assert result.substitute is not None
                error, seconds = result.upper / d - 1, result.time_s["verify"]
                exact += result.status == "exact"
                errors.append(abs(error))
                times.append(seconds)
                o = result.original
                print(
                    f"  {method} {setting:18} index {index:3d}  {result.status:7} d_hat {result.upper:.6f} "
                    f"error {100 * error:+.3f} %  d_adv {100 * (result.substitute['d_adv'] / d - 1):+.3f} %  "
                    f"verify {seconds:6.2f} s  nodes {result.nodes:6d}  "
                    f"original [{o.lower / d:.4f}, {o.upper / d:.5f}]{' exact' if o.exact else ''}",
                    flush=True,
                )
            mean = sum(errors) / len(errors)
            print(
                f"{method} {setting}: {exact} of {len(errors)} exact, "
                f"mean |error| {100 * mean:.3f} %, worst {100 * max(errors):.3f} %, "
                f"verify median {median(times):.2f} s, worst {max(times):.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
