"""Pictures of functions of the plane, and of the three substitutes of one unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackResult
from onnxsub.passes.substitute import METHODS, lines
from onnxsub.propagate import compute_bounds
from onnxsub.query import Query
from onnxsub.report.picture import BLACK, COLOURS, GREY, METHOD_NAMES, Picture, draw, legend_below

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    from onnxsub.report.demo2d import Demo2dOptions, Plane

__all__ = ["plane_pictures", "unit_picture"]

_REGIONS = ("#9ecae1", "#fdd49e", "#c7b8dd")  # classes: light enough for black marks, told apart without colour by their borders
_DOTS = ("o", "^", "s")
_CROSS = "#D55E00"
_GRID = 241


def plane_pictures(
    query: Query, found: AttackResult, planes: tuple[Plane, ...], points: tuple[Array, Array], options: Demo2dOptions
) -> list[Picture]:
    """The decision regions of the network and of each substitute: all of the domain, and the ball round the anchor."""
    reach = 1.35 * max(found.d_adv, planes[0].upper)
    x0 = query.x0.astype(np.float64)
    low, high = np.clip(x0 - reach, 0, 1), np.clip(x0 + reach, 0, 1)
    said = "; ".join(f"{p.method} at gamma {p.gamma:g} has d_hat {p.upper:.4g}" for p in planes[1:])
    about = f"The network's own distance is {planes[0].upper:.4g}. {said}."
    caption = "Each panel is a function of the plane, with the ball in which it has no other class than the anchor's."
    pictures = []
    for name, title, window, data in (
        ("global", "Decision regions on the whole domain", ((0.0, 0.0), (1.0, 1.0)), points),
        ("local", "Decision regions near the anchor", (tuple(low), tuple(high)), None),
    ):

        def paint(figure: Figure, window: Any = window, data: Any = data) -> None:
            _grid(figure, query, planes, window, data, options)

        rows, columns = len(options.methods), len(options.gammas)
        pictures.append(
            draw(
                name,
                title,
                f"Panels of the plane, the network first, then each method and gamma. {about}",
                caption,
                paint,
                size=(max(2.15 * columns + 0.4, 5.2), 2.35 * (rows + 1) + 1.2),
            )
        )
    return pictures


def _grid(figure: Figure, query: Query, planes: tuple[Plane, ...], window: Any, data: Any, options: Demo2dOptions) -> None:
    columns = len(options.gammas)
    axes = figure.subplots(len(options.methods) + 1, columns, squeeze=False)
    own, *rest = planes
    border = _logits(own.network, window)
    for a in axes[0, 1:]:
        a.axis("off")
    for a, plane in zip([axes[0, 0], *axes[1:].flat], (own, *rest), strict=True):
        _plane(a, query, plane, window, data)
        if plane is not own:
            _boundary(a, border, window, colors=BLACK, linestyles=":", linewidths=1.2)
        what = "the network" if plane.method is None else f"{plane.method}, gamma {plane.gamma:g}"
        distance = f"{plane.upper:.4f}" if np.isfinite(plane.upper) else "none"
        a.set_title(f"{what}\n{plane.kept} units, distance {distance}", fontsize=9)
    for a in axes.flat:
        a.tick_params(labelsize=7.5)
        a.label_outer()
    for a in axes[-1]:
        a.set_xlabel("first input", fontsize=9)
    for a in axes[:, 0]:
        a.set_ylabel("second input", fontsize=9)
    legend_below(figure, _handles(planes, with_points=data is not None))


def _handles(planes: tuple[Plane, ...], *, with_points: bool) -> list[Artist]:
    """What stands for what, in the order in which the eye meets it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "white", "markeredgecolor": GREY, "markersize": 5}
    found: list[Artist] = [Patch(facecolor=colour, edgecolor=GREY, label=f"class {c}") for c, colour in enumerate(_REGIONS)]
    if with_points:
        found += [Line2D([], [], marker=marker, label=f"data, class {c}", **dot) for c, marker in enumerate(_DOTS)]
    found.append(Line2D([], [], marker="o", color=BLACK, linestyle="none", markersize=5, label="anchor"))
    if any(plane.witness is not None for plane in planes):
        cross: dict[str, Any] = {"linestyle": "none", "markersize": 7, "markeredgewidth": 2}
        found.append(Line2D([], [], marker="x", color=_CROSS, label="nearest point of another class", **cross))
        found.append(Line2D([], [], color=BLACK, linestyle="--", linewidth=1.0, label="ball of that distance"))
    found.append(Line2D([], [], color=GREY, linewidth=1.0, label="boundary"))
    if len(planes) > 1:
        found.append(Line2D([], [], color=BLACK, linestyle=":", linewidth=1.2, label="the network's own boundary"))
    return found


def _plane(axes: Any, query: Query, plane: Plane, window: Any, data: Any) -> None:
    (x_low, y_low), (x_high, y_high) = window
    logits = _logits(plane.network, window)
    classes = logits.shape[-1]
    axes.contourf(
        *_ticks(window), logits.argmax(axis=-1), levels=np.arange(classes + 1) - 0.5, colors=_REGIONS[:classes], antialiased=True
    )
    _boundary(axes, logits, window, colors=GREY, linewidths=1.0)
    if data is not None:
        x, y = data
        for c, marker in enumerate(_DOTS):
            axes.scatter(*x[y == c].T, marker=marker, s=5, color="white", edgecolors=GREY, linewidths=0.4)
    axes.plot(*query.x0, "o", color=BLACK, markersize=5)
    if plane.witness is not None:
        axes.plot(*plane.witness, "x", color=_CROSS, markersize=7, markeredgewidth=2)
        r = plane.upper
        square = np.array([[-r, -r], [r, -r], [r, r], [-r, r], [-r, -r]]) + query.x0
        axes.plot(*square.T, color=BLACK, linestyle="--", linewidth=1.0)
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
    axes.set_aspect("equal")
    axes.grid(visible=False)


def _ticks(window: Any) -> tuple[Array, Array]:
    (x_low, y_low), (x_high, y_high) = window
    return np.linspace(x_low, x_high, _GRID), np.linspace(y_low, y_high, _GRID)


def _logits(network: Network, window: Any) -> Array:
    """`(rows, columns, classes)` on a grid over the window."""
    across, up = np.meshgrid(*_ticks(window))
    x = torch.from_numpy(np.stack([across.ravel(), up.ravel()], axis=1))
    with torch.no_grad():
        return network.forward(x).numpy().reshape(_GRID, _GRID, -1)


def _boundary(axes: Any, logits: Array, window: Any, **style: Any) -> None:
    """Where the largest logit changes: each class's lead over the others, at zero."""
    for c in range(logits.shape[-1]):
        lead = logits[..., c] - np.delete(logits, c, axis=-1).max(axis=-1)
        if lead.min() < 0 < lead.max():
            axes.contour(*_ticks(window), lead, levels=[0.0], **style)


def unit_picture(query: Query, found: AttackResult) -> Picture:
    """One unit's activation and its three substitutes, over the interval of its pre-activation on the ball."""
    assert found.x_adv is not None
    network = query.network
    pair = torch.from_numpy(np.stack([query.x0, found.x_adv]).astype(np.float64))
    with torch.no_grad():
        z = [t.flatten(1).numpy() for t in network.preactivations(pair)]
    # a unit that changes sides between anchor and adversarial point shows the difference best
    layer, unit = max(
        ((i, j) for i, t in enumerate(z) for j in range(t.shape[1])),
        key=lambda ij: _interest(z[ij[0]][0, ij[1]], z[ij[0]][1, ij[1]]),
    )
    z0, za = (float(v) for v in z[layer][:, unit])
    op = network.activations[layer]
    bounds = compute_bounds(network, *query.space.ball(query.x0, found.d_adv), "fastlin-ibp", output=False)
    l, u = (float(end[0].flatten()[unit]) for end in bounds.pre[op.output])
    margin = 0.06 * (u - l)
    across = np.linspace(l - margin, u + margin, 401)
    made = {m: lines(network, m, query.x0, found.x_adv) for m in METHODS}
    parts = {m: (float(s.slope[op.output].flatten()[unit]), float(s.offset[op.output].flatten()[unit])) for m, s in made.items()}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(l, u, color="#f0f0f0", zorder=0)
        axes.plot(across, np.maximum(across, 0), color=BLACK, linewidth=3, label="ReLU")
        for (method, (slope, offset)), dash in zip(parts.items(), ("--", "-", ":"), strict=True):
            axes.plot(
                across, slope * across + offset, color=COLOURS[method], linestyle=dash, label=f"{method}: {METHOD_NAMES[method]}"
            )
        axes.plot(z0, max(z0, 0), "o", color=BLACK, markersize=9, linestyle="none", label="at the anchor")
        axes.plot(za, max(za, 0), "X", color=BLACK, markersize=9, linestyle="none", label="at the adversarial point")
        axes.set(xlabel="pre-activation z (interval on the ball in grey)", ylabel="output of the unit")
        legend_below(figure)

    return draw(
        "unit", "The three substitutes of one unit",
        f"Line plot of a ReLU over its interval from {l:.3g} to {u:.3g} and of its three substitutes. The anchor is "
        f"at {z0:.3g}, the adversarial point at {za:.3g}.",
        "All substitutes are exact at the anchor; lin is exact at the adversarial point too; act is exact until the unit leaves "
        "its piece.",
        paint, size=(5.2, 5.0),
    )  # fmt: skip


def _interest(z0: float, za: float) -> float:
    """Larger for units that change sides, most of all from the identity to zero, where all three substitutes differ."""
    return abs(z0 - za) * (100.0 if z0 > 0 > za else 10.0 if z0 * za < 0 else 1.0)
