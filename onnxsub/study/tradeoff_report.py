"""Tables and figures of the study of accuracy against robustness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsub.metrics.correlation import Correlation, spearman
from onnxsub.report.picture import BLACK, COLOURS, REFERENCE, Picture, draw, legend_below, mark_size
from onnxsub.report.table import Table
from onnxsub.study.tradeoff import MEASURES, TradeoffResult
from onnxsub.study.tradeoff_grid import KINDS
from onnxsub.study.written import write_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["correlations", "pictures", "tables", "write_report"]

_WORDS = {"sgd": "stochastic gradients", "pruned": "pruned", "bayes": "Bayesian"}
_LOOKS = {"sgd": (COLOURS["lin"], "o"), "pruned": (COLOURS["con"], "s"), "bayes": (COLOURS["act"], "^")}
_PUBLISHED = {"sgd": "negative", "pruned": "", "bayes": "positive"}
_AXES: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    # figure: panels of (kind, key of the networks, words)
    "capacity": (("sgd", "size", "units or filters x layers"), ("bayes", "size", "units or filters x layers")),
    "training": (("sgd", "epochs", "epochs"), ("sgd", "rate", "learning rate"), ("sgd", "activation", "activation")),
    "pruning": (("pruned", "share", "share of weights taken away"), ("pruned", "rounds", "rounds")),
}

Network = Mapping[str, Any]


def correlations(found: TradeoffResult, kind: str, *, all_of_them: bool = False) -> dict[str, Correlation | None]:
    """Measure -> rank correlation with accuracy, over the networks of a kind that are accurate enough, or over all."""
    chosen = _chosen(found, kind, all_of_them=all_of_them)
    accuracy = [n["accuracy"] for n in chosen]
    return {m: spearman(accuracy, [n[m]["value"] for n in chosen], found.grid.confidence) for m in MEASURES}


def tables(found: TradeoffResult) -> list[Table]:
    """Correlations, what pruning does, the chains, and all networks."""
    grid = found.grid
    made = [_correlated(found, all_of_them=False), _correlated(found, all_of_them=True)]
    pruned = _of(found, "pruned")
    if pruned:
        cells = []
        for key, words in (("share", "share taken away"), ("rounds", "rounds")):
            values = [n[key] for n in pruned]
            others = [[n[m]["value"] for n in pruned] for m in MEASURES] + [[n["accuracy"] for n in pruned]]
            cells.append((words, *(_rho(spearman(values, other, grid.confidence)) for other in others)))
        note = f"Spearman's rho over {len(pruned)} networks and its {100 * grid.confidence:g} % interval. Published: no effect."
        made.append(Table("Pruning", note, ("of", *MEASURES, "accuracy"), (False,) * 5, tuple(cells)))
    bayes = _of(found, "bayes")
    if bayes:
        rows = tuple(
            (n["name"], *(_number(n["rhat"][k]) for k in ("largest", "most", "median")), "yes" if n["rhat"]["mixed"] else "no",
             ", ".join(f"{100 * a:.0f}" for a in n["accepted"]))
            for n in bayes
        )  # fmt: skip
        one = bayes[0]["rhat"]
        note = f"Split R-hat of the predictions on {one['images']} test images; mixed: none above {one['limit']:g}."
        heads = ("network", "largest R-hat", "99 of 100", "median", "mixed", "accepted %")
        made.append(Table("Chains", note, heads, (False, True, True, True, False, True), rows))
    cells_ = tuple(
        (n["name"], f"{n['parameters']:,}", f"{100 * n['accuracy']:.1f}", *(_interval(n[m]) for m in MEASURES))
        for n in sorted(found.networks, key=lambda n: (KINDS.index(n["kind"]), -n["accuracy"]))
    )
    words = "; ".join(f"{m}: {text}" for m, text in MEASURES.items())
    note = (
        f"{words}. Radius {grid.eps:g}, {found.images} test images, in brackets the {100 * grid.confidence:g} % interval (its ends "
        f"at most {grid.error:g} from the figure). Attacks prove nothing: a network may be less robust than they say."
    )
    made.append(Table("Networks", note, ("network", "parameters", "accuracy %", *MEASURES), (False,) + (True,) * 5, cells_))
    return made


def pictures(found: TradeoffResult) -> list[Picture]:
    """The scatter of all networks, and boxes by capacity, training and pruning."""
    made = [_scatter(found)]
    for name, panels in _AXES.items():
        shown = [p for p in panels if len({_value(n, p[1]) for n in _of(found, p[0])}) > 1]
        if shown:
            made.append(_boxes(found, name, shown))
    return made


def write_report(found: TradeoffResult, folder: Path) -> list[Path]:
    """`tables.md` and the figures, beside the networks. Raises OutputError, MissingDependencyError."""
    return write_all(tables(found), pictures(found), folder)


def _of(found: TradeoffResult, kind: str) -> list[Network]:
    return [n for n in found.networks if n["kind"] == kind]


def _chosen(found: TradeoffResult, kind: str, *, all_of_them: bool) -> list[Network]:
    return [n for n in _of(found, kind) if all_of_them or n["accuracy"] >= found.grid.least]


def _rho(found: Correlation | None) -> str:
    """`-0.62 [-0.77, -0.41]`."""
    return "-" if found is None else f"{found.rho:.2f} [{found.interval.lower:.2f}, {found.interval.upper:.2f}]"


def _kinds(found: TradeoffResult) -> list[str]:
    return [kind for kind in KINDS if _of(found, kind)]


def _correlated(found: TradeoffResult, *, all_of_them: bool) -> Table:
    rows = []
    for kind in _kinds(found):
        by = correlations(found, kind, all_of_them=all_of_them)
        count = len(_chosen(found, kind, all_of_them=all_of_them))
        rows.append((_WORDS[kind], str(count), *map(_rho, by.values()), _PUBLISHED[kind]))
    which = "all networks" if all_of_them else f"networks with an accuracy of at least {100 * found.grid.least:g} %"
    note = (
        f"Spearman's rho of accuracy and robustness over {which}, and its {100 * found.grid.confidence:g} % interval "
        "(Bonett and Wright 2000). An interval that holds 0 leaves the sign open."
    )
    heads = ("trained by", "networks", *MEASURES, "published sign")
    return Table(
        f"Accuracy and robustness, {'all' if all_of_them else 'accurate'} networks", note, heads, (False, True, *(False,) * 4),
        tuple(rows),
    )  # fmt: skip


def _value(network: Network, key: str) -> Any:
    """Of an axis; `size` is `64x2`, which sorts by its number of units."""
    if key == "size":
        return (network.get("width", network.get("filters")) * network["depth"], _size(network))
    return network[key]


def _size(network: Network) -> str:
    return f"{'f' if 'filters' in network else ''}{network.get('width', network.get('filters'))}x{network['depth']}"


def _label(value: Any) -> str:
    if isinstance(value, tuple):
        return str(value[1])
    return value if isinstance(value, str) else f"{value:g}"


def _scatter(found: TradeoffResult) -> Picture:
    def paint(figure: Figure) -> None:
        panels: Iterable[Axes] = figure.subplots(1, len(MEASURES), sharex=True, sharey=True)
        for i, (axes, (measure, words)) in enumerate(zip(panels, MEASURES.items(), strict=True)):
            for kind in _kinds(found):
                colour, mark = _LOOKS[kind]
                of = _of(found, kind)
                axes.scatter(
                    [100 * n["accuracy"] for n in of], [n[measure]["value"] for n in of], s=mark_size(len(found.networks)),
                    color=colour, marker=mark, alpha=0.75, edgecolors="none", label=_WORDS[kind] if i == 0 else None,
                )  # fmt: skip
            axes.set_title(words, fontsize=10)
            axes.set_xlabel("accuracy (percent)")
        figure.axes[0].set_ylabel("robustness")
        figure.axes[0].set_ylim(-0.03, 1.03)
        legend_below(figure)

    told = "; ".join(
        f"{_WORDS[kind]}: " + ", ".join(f"{m} {_rho(c)}" for m, c in correlations(found, kind).items()) for kind in _kinds(found)
    )
    return draw(
        "tradeoff-scatter", f"Accuracy and robustness at radius {found.grid.eps:g}",
        f"Three panels of {len(found.networks)} networks. Rank correlations: {told}.",
        "A mark is a network; upper bounds of its robustness, by attacks.", paint, size=(9.6, 4.0), group=found.data,
    )  # fmt: skip


def _boxes(found: TradeoffResult, name: str, panels: Sequence[tuple[str, str, str]]) -> Picture:
    """A row of panels: the softmax share over each axis, with the accuracy beside it."""

    def paint(figure: Figure) -> None:
        grid = figure.subplots(2, len(panels), sharey="row", squeeze=False)
        for column, (kind, key, words) in enumerate(panels):
            networks = _of(found, kind)
            values = sorted({_value(n, key) for n in networks})
            for row, (title, figure_of) in enumerate(_ROWS):
                axes = grid[row][column]
                data = [[figure_of(n) for n in networks if _value(n, key) == v] for v in values]
                axes.boxplot(
                    data, tick_labels=[_label(v) for v in values], patch_artist=True, widths=0.6,
                    boxprops={"facecolor": _LOOKS[kind][0], "alpha": 0.35}, medianprops={"color": BLACK},
                    flierprops={"marker": ".", "markeredgecolor": REFERENCE},
                )  # fmt: skip
                axes.set_ylim(-0.03, 1.03)
                if row == 0:
                    axes.set_title(_WORDS[kind], fontsize=10)
                else:
                    axes.set_xlabel(words)
                    axes.tick_params(axis="x", labelrotation=45 if len(values) > 5 else 0)
                if column == 0:
                    axes.set_ylabel(title)
        for axes in grid[0]:
            axes.tick_params(axis="x", labelbottom=False)

    words = ", ".join(f"{kind} by {w}" for kind, _, w in panels)
    return draw(
        f"tradeoff-{name}", f"Robustness and accuracy by {name}", f"Boxes of two rows, robustness and accuracy: {words}.",
        "Boxes from quartile to quartile with the median, whiskers to the last point within 1.5 boxes.", paint,
        size=(3.4 * len(panels) + 0.8, 5.4), group=found.data,
    )  # fmt: skip


_ROWS: tuple[tuple[str, Callable[[Network], float]], ...] = (
    ("softmax share", lambda n: float(n["softmax"]["value"])), ("accuracy", lambda n: float(n["accuracy"])),
)  # fmt: skip


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} [{figure['lower']:.3f}, {figure['upper']:.3f}]"


def _number(value: float | None) -> str:
    return "without bound" if value is None else f"{value:.3f}"
