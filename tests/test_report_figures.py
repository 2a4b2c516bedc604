"""The figures of a report show the numbers of its tables, nothing is cut, and no legend lies on a curve."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure

from onnxsub.evaluate.by_sample import by_sample, known
from onnxsub.evaluate.numbers import Digits
from onnxsub.evaluate.spread import DistanceSpread
from onnxsub.report.evaluation import Distances
from onnxsub.report.figures import figures
from onnxsub.report.joined_figures import paired_scatter, runs_distribution, runs_shares
from onnxsub.report.joined_tables import Member
from onnxsub.report.sample_figures import left_out
from onnxsub.report.table import Table, ordered
from tests.report_tools import Recorder, check_layout, rows_like

COUNT = 60


def references(count: int) -> dict[tuple[str, int], float]:
    """Rounded distances, as papers print them."""
    return {("digits", s.index): round(s.d_bnd_upper, 3) for s in by_sample(rows_like(count)) if s.d_bnd_upper}


@pytest.fixture(scope="module")
def drawn() -> tuple[Distances, dict[str, Figure]]:
    """What 60 samples are drawn as."""
    rows = rows_like(COUNT)
    found = Distances.of(rows, references(COUNT))
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        assert len(list(figures(rows, found))) == len(recorder.figures) == 11
    return found, recorder.figures


def marks(axes: Axes, label: str) -> np.ndarray:
    """The places of the marks with a label, in data."""
    (found,) = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return np.asarray(found.get_offsets())


def curve(axes: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.stack([line.get_xdata(), line.get_ydata()], axis=1)


def column(table: Table, head: str) -> list[str]:
    return [row[table.heads.index(head)] for row in table.cells]


def test_the_distribution_is_that_of_the_table(drawn: tuple[Distances, dict[str, Figure]]) -> None:
    found, by_title = drawn
    (axes,) = by_title["digits: cumulative distribution of distances"].axes
    spread: dict[tuple[str, str | None, float | None], DistanceSpread] = {(x.quantity, x.method, x.gamma): x for x in found.spread}
    lines = {
        "d_bnd": ("d_bnd_upper", None, None), "d_adv": ("d_adv", None, None), "reference": ("reference", None, None),
        "certified lower end": ("certified_lower", None, None), "d_hat lin 0.9": ("d_hat_upper", "lin", 0.9),
        "d_hat act 0.99": ("d_hat_upper", "act", 0.99),
    }  # fmt: skip
    for label, key in lines.items():
        points, x = curve(axes, label), spread[key]
        assert points[1, 0] == x.min
        assert points[-1, 0] == x.max
        assert points[-1, 1] == pytest.approx(x.counted / x.samples)
        values = points[1:, 0]  # one step per sample
        assert len(values) == x.counted
        assert np.median(values) == pytest.approx(x.median)
        assert values.mean() == pytest.approx(x.mean)
    # finished samples only, and samples without any boundary keep the curve below 1
    upper = spread["d_bnd_upper", None, None]
    assert upper.samples == sum(known(s.status) for s in found.samples) < COUNT
    assert upper.counted < upper.samples


def test_the_nearest_samples_are_those_of_the_table(drawn: tuple[Distances, dict[str, Figure]]) -> None:
    found, by_title = drawn
    figure = by_title["digits: the nearest samples, gamma 0.99"]
    table = found.single()[1]
    assert table.title == "digits: samples at gamma 0.99"
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == column(table, "sample")[:25]
    assert axes.yaxis_inverted()  # the nearest on top
    digits = found.digits["digits"]
    bars = next(c for c in axes.collections if isinstance(c, LineCollection) and c.get_label() == "d_bnd")
    ends = [(a[0], b[0]) for a, b in bars.get_segments()]
    for (low, high), text in zip(ends, column(table, "d_bnd"), strict=False):
        assert text == (digits.near(high) if low == high else f"{digits.low(low)} to {digits.high(high)}")
    for label in ("d_adv", "d_hat lin", "d_hat act", "reference"):
        seen = [digits.near(x) for x, _ in marks(axes, label)]
        assert seen == column(table, label)[:25], label


def test_every_sample_is_drawn_in_order(drawn: tuple[Distances, dict[str, Figure]]) -> None:
    found, by_title = drawn
    (axes,) = by_title["digits: every sample, gamma 0.9"].axes
    table, digits = found.single()[0], found.digits["digits"]
    seen = [row for row in table.cells if row[2] not in ("none", "0.0000")]  # those with a boundary, rightly classified
    upper = curve(axes, "d_bnd")
    assert upper[:, 0].tolist() == list(range(1, len(seen) + 1))
    assert (np.diff(upper[:, 1]) >= 0).all()
    assert [digits.near(v) for v in marks(axes, "d_adv")[:, 1]] == [row[table.heads.index("d_adv")] for row in seen]
    for method in ("lin", "act"):
        for label, rounded in ((f"d_hat {method}", digits.near), (f"certified by {method}", digits.low)):
            assert [rounded(v) for v in marks(axes, label)[:, 1]] == [row[table.heads.index(label)] for row in seen]


def test_against_the_reference(drawn: tuple[Distances, dict[str, Figure]]) -> None:
    found, by_title = drawn
    (axes,) = by_title["digits: distances against the reference"].axes
    exact = [s for s in found.samples if s.status == "exact" and s.reference is not None]
    assert marks(axes, "d_bnd, exact").tolist() == [[s.reference, s.d_bnd_upper] for s in exact]
    table = next(t for t in found.summaries({}, "fast") if t.title == "References")
    both = [s for s in found.samples if s.reference_difference is not None]
    assert table.cells[0][1] == str(len(both))
    worst = max(abs(s.reference_difference or 0.0) for s in both)
    assert table.cells[0][-1] == f"{100 * worst:.3g} %"
    assert 0 < worst < 0.05  # three decimals


@pytest.mark.parametrize("count", [8, 30, 450])
def test_nothing_is_cut(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    methods, gammas = (("lin", "act", "con"), (0.9,)) if count == 30 else (("lin",), (0.99,))
    rows = rows_like(count, methods, gammas)
    found = Distances.of(rows, references(count))
    list(figures(rows, found))
    names = ("before", "a rather long name of a run folder")
    a, b = (Member(name, "m", found.samples, found.lines, found.spread) for name in names)
    runs_distribution([a, b], Digits(4))
    assert paired_scatter(a, b) is not None
    shares = {"proved": 3, "undecided": 1, "violated": 4, "misclassified": 1}
    runs_shares(dict.fromkeys(names, shares))
    assert len(recorder.figures) >= 8
    for figure in recorder.figures.values():
        check_layout(figure)
        assert figure.get_figwidth() <= 5.6  # a telephone shows the letters large enough


def test_the_check_itself() -> None:
    """A label that is too long and a legend over the axes are found."""
    figure = Figure(figsize=(4, 2), layout="constrained")
    figure.subplots().set_ylabel("a label that is longer than the figure is high, by far")
    with pytest.raises(AssertionError, match="a label that is longer"):
        check_layout(figure)
    figure = Figure(figsize=(4, 2), layout="constrained")
    figure.subplots().plot([0, 1], label="line")
    check_layout(figure)
    figure.legend(loc="center")
    with pytest.raises(AssertionError):
        check_layout(figure)


def test_what_is_left_out_is_said() -> None:
    samples = by_sample(rows_like(30))
    wrong = sum(s.status == "misclassified" for s in samples)
    assert left_out(samples) == f"Over the {30 - wrong} finished samples of 30 (left out: {wrong} misclassified)."
    assert left_out(samples[:1]) == "Over the 1 finished samples of 1."


def test_a_table_knows_its_orders() -> None:
    table = Table("t", "", ("a", "b"), (True, True), (("3", "x"), ("1", "z"), ("2", "y")))
    items = [(3, "x"), (1, "z"), (2, "y")]
    found = ordered(table, items, {"by a": lambda i: i[0], "by b": lambda i: i[1]})
    assert [row[0] for row in found.cells] == ["1", "2", "3"]
    assert [order.name for order in found.orders] == ["by a", "by b"]
    assert [order.places for order in found.orders] == [(0, 1, 2), (2, 1, 0)]
    assert ordered(table, [], {"by a": lambda i: i}) is table
