"""How often the intervals of global robustness contain the truth: 200 simulated models with a known R.

    python -m benchmarks.coverage
    python -m benchmarks.coverage --confidence 0.99 --samples 500

Bar: at least the confidence for Hoeffding, Clopper-Pearson and the sequential mode, whose figure is that of *all* its intervals
together, after 1, 2, ... N samples. A model is a coin that is robust with probability R, with R all over [0, 1] and near both ends.

`simulated`: share of the repeats in which the interval contains R, over all models, and of the worst model (2,000 repeats are good
to 0.5 %). `exact`: the worst model's probability itself, summed over all outcomes (for the sequence: over all paths). Values
between 0 and 1, such as distances, are simulated only.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np
from scipy.stats import binom

from onnxsub.metrics.intervals import clopper_pearson, hoeffding_interval, hoeffding_samples
from onnxsub.metrics.sequential import betting_log_wealth, mixture_log_wealth, run_sequential

Array = np.ndarray

_NEVER = 2**30


def truths(count: int) -> Array:
    """Half of them evenly over [0, 1], the others near the ends, where real models are."""
    even = np.linspace(0.0, 1.0, count // 2)
    near = np.geomspace(1e-3, 0.3, (count - len(even)) // 2)
    return np.concatenate([even, near, 1 - near])[:count]


def fixed(covers: Array, R: Array, S: Array) -> tuple[Array, Array]:
    """Coverage per model, simulated and exact, of an interval that contains R[k] for `covers[k, s]`."""
    n = covers.shape[1] - 1
    weights = binom.pmf(np.arange(n + 1), n, R[:, None])
    return np.take_along_axis(covers, S, axis=1).mean(1), (weights * covers).sum(1)


def sequence_limits(R: float, n: int, log_odds: float) -> Array:
    """For t = 1..n the smallest number of ones that rules R out from below (the wealth grows with it); `_NEVER` where none does."""
    t = np.arange(1, n + 1)
    if not 0 < R < 1:
        return np.full(n, _NEVER)
    low, high = np.full(n, -1), t + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        out = mixture_log_wealth(R, np.clip(middle, 0, t), t - np.clip(middle, 0, t)) >= max(log_odds, 1.0)
        active = high - low > 1
        high, low = np.where(active & out, middle, high), np.where(active & ~out, middle, low)
    return np.where(high > t, _NEVER, high)


def peeking_limits(R: float, n: int, alpha: float) -> Array:
    """The same for the Clopper-Pearson interval of every t."""
    t = np.arange(1, n + 1)
    return binom.isf(alpha / 2, t, R).astype(int) + 1


def paths(R: float, ones: Array, zeros: Array) -> float:
    """Probability that at all t the ones stay below `ones[t]` and the zeros below `zeros[t]`: a sum over all paths."""
    n = len(ones)
    alive = np.zeros(n + 1)
    alive[0] = 1.0
    count = np.arange(n + 1)
    for t in range(1, n + 1):
        stepped = alive * (1 - R)
        stepped[1:] += alive[:-1] * R
        stepped[(count >= ones[t - 1]) | (t - count >= zeros[t - 1])] = 0.0
        alive = stepped
    return float(alive.sum())


def shares(args: argparse.Namespace) -> list[float]:
    rng = np.random.default_rng(args.seed)
    n, alpha, log_odds = args.samples, 1 - args.confidence, math.log(2 / (1 - args.confidence))
    R = truths(args.models)
    counts = np.arange(n + 1)
    ends = {
        "hoeffding": [hoeffding_interval(s / n, n, args.confidence) for s in counts],
        "clopper-pearson": [clopper_pearson(int(s), n, args.confidence) for s in counts],
    }
    simulated: dict[str, list[float]] = {"sequential": [], "clopper-pearson, looked at after every sample": []}
    exact: dict[str, list[float]] = {name: [] for name in simulated}
    S = np.empty((len(R), args.repeats), dtype=np.int64)
    t = np.arange(1, n + 1)
    for k, r in enumerate(R):
        paths_of_ones = np.cumsum(rng.random((args.repeats, n)) < r, axis=1)
        S[k] = paths_of_ones[:, -1]
        for name, limits in (
            ("sequential", [sequence_limits(q, n, log_odds) for q in (r, 1 - r)]),
            ("clopper-pearson, looked at after every sample", [peeking_limits(q, n, alpha) for q in (r, 1 - r)]),
        ):
            inside = (paths_of_ones < limits[0]) & (t - paths_of_ones < limits[1])
            simulated[name].append(float(inside.all(1).mean()))
            exact[name].append(paths(r, *limits))
    found = []
    for name, intervals in ends.items():
        low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("lower", "upper"))
        covers = (low <= R[:, None]) & (R[:, None] <= high)
        got, sure = fixed(covers, R, S)
        found.append(report(name, got, sure))
    for name in simulated:
        figure = report(name, np.array(simulated[name]), np.array(exact[name]))
        if name == "sequential":
            found.append(figure)
    return found


def values(args: argparse.Namespace) -> list[float]:
    """Means of values in [0, 1]: Beta distributed ones of all shapes, and coins of two values."""
    rng = np.random.default_rng(args.seed + 1)
    n, log_odds = min(args.samples, 500), math.log(2 / (1 - args.confidence))
    repeats = max(1, args.repeats // 10)
    fixed_hits, sequence_hits = [], []
    for k in range(args.models):
        if k % 2:
            a, b = 10 ** rng.uniform(-1, 2, 2)
            mean, x = a / (a + b), rng.beta(a, b, (repeats, n))
        else:
            p, low, high = rng.random(), *np.sort(rng.random(2))
            mean, x = low + p * (high - low), np.where(rng.random((repeats, n)) < p, high, low)
        error = math.sqrt(log_odds / (2 * n))
        fixed_hits.append(float((np.abs(x.mean(1) - mean) <= error).mean()))
        wealth = [betting_log_wealth(np.full((repeats, 1), m), v).max(1) for m, v in ((mean, x), (1 - mean, 1 - x)) if 0 < m < 1]
        sequence_hits.append(float((np.max(wealth, axis=0) < log_odds).mean()))
    print(f"values in [0, 1], N = {n}, {repeats} repeats each:")
    return [report("hoeffding", np.array(fixed_hits)), report("sequential", np.array(sequence_hits))]


def report(name: str, simulated: Array, exact: Array | None = None) -> float:
    """Prints one row; the figure that the bar is about: of the worst model where it is exact, else over all models."""
    tail = f"   exact, worst model {100 * exact.min():7.3f} %" if exact is not None else ""
    print(f"  {name:46} simulated {100 * simulated.mean():7.3f} %  worst model {100 * simulated.min():7.2f} %{tail}")
    return float(exact.min() if exact is not None else simulated.mean())


def widths(confidences: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)) -> int:
    """Clopper-Pearson against Hoeffding: intervals that are wider, of a grid."""
    wider = total = 0
    worst = 0.0
    for confidence in confidences:
        for n in (*range(1, 60), 100, 300, 738, 1000, 3000):
            for s in range(0, n + 1, max(1, n // 100)):
                exact, other = clopper_pearson(s, n, confidence), hoeffding_interval(s / n, n, confidence)
                total += 1
                wider += exact.width > other.width + 1e-12
                worst = max(worst, exact.width / other.width)
    print(f"clopper-pearson wider than hoeffding: {wider} of {total} (S, N, confidence); largest ratio of the widths {worst:.4f}")
    return wider


def stopping(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(args.seed + 2)
    need = hoeffding_samples(args.error, args.confidence)
    print(f"samples until the interval is {2 * args.error:g} wide (hoeffding: {need}), mean of 20 runs:")
    for r in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0):
        runs = [
            run_sequential((rng.random(4 * need) < r).astype(float), args.error, args.confidence, binary=True) for _ in range(20)
        ]
        print(f"  R = {r:4}: sequential {np.mean([run.samples for run in runs]):7.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=2000, help="per model; a tenth of it for values in [0, 1]")
    parser.add_argument("--samples", type=int, default=738, help="N")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"shares, {args.models} models, N = {args.samples}, {args.repeats} repeats each, confidence {args.confidence:g}:")
    found = shares(args) + values(args)
    wider = widths()
    stopping(args)
    good = min(found) >= args.confidence and wider == 0
    print("all at or above the confidence" if good else "BELOW the confidence, or a wider interval")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
