"""Two models on the same samples: what is said holds for every reading of the open ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.metrics.paired import mcnemar, paired_interval
from onnxsub.metrics.paired_readings import paired_shares


def test_every_reading_lies_within_what_is_said() -> None:
    rng = np.random.default_rng(0)
    kinds: tuple[bool | None, ...] = (True, False, None)
    for _ in range(40):
        n = int(rng.integers(1, 9))
        first, second = ([kinds[int(k)] for k in rng.choice(3, n, p=(0.5, 0.3, 0.2))] for _ in range(2))
        found = paired_shares(first, second, 0.9)
        assert found.both + found.neither + found.first + found.second + found.open == n
        open_ = [(side, i) for side, own in enumerate((first, second)) for i, v in enumerate(own) if v is None]
        differences, ps = [], []
        for told in itertools.product((True, False), repeat=len(open_)):
            read = [list(first), list(second)]
            for (side, i), value in zip(open_, told, strict=True):
                read[side][i] = value
            won = sum(bool(a) and not b for a, b in zip(*read, strict=True))
            lost = sum(bool(b) and not a for a, b in zip(*read, strict=True))
            differences.append((won - lost) / n)
            ps.append(mcnemar(won, lost))
            interval = paired_interval(won, lost, n, 0.9)
            if differences[-1] in (found.lower, found.upper) and not open_:
                assert (found.interval.lower, found.interval.upper) == (interval.lower, interval.upper)
        assert (min(differences), max(differences)) == (found.lower, found.upper)
        assert found.interval.lower <= found.lower <= found.upper <= found.interval.upper
        assert found.p_value >= max(ps) - 1e-12


def test_what_is_no_pair_is_refused() -> None:
    for first, second in (([], []), ([True], [])):
        with pytest.raises(InputError, match="no pairs"):
            paired_shares(first, second, 0.95)  # type: ignore[arg-type]
