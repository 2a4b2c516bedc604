"""Draws every picture of the documentation from small runs, on the network of the tutorial: three minutes on one core.

    python docs/pictures/make.py [WORK]

Needs the extras `cpu`, `report` and scikit-learn. WORK keeps the runs; what is in it already is not run again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import onnxsub
from onnxsub.passes.select import SelectOptions

HERE = Path(__file__).parent
WIDTH = 1400
RUNS = {
    "plane": "demo2d -o plane",
    "study": "evaluate net.onnx --data test.npz --limit 30 --gammas 0.8,0.95 --timeout 20 --run study",
    "share": "robustness net.onnx --data test.npz --limit 50 --eps 0.05 --run share",
    "targets": "adversarial net.onnx --data test.npz --limit 10 --eps 0.05 --timeout 20 --run targets",
}
"""Folder -> the command that fills it."""

GREEN, RED, BLUE, GREY = "#1b7837", "#b2182b", "#2166ac", "#777777"


def main() -> None:
    if len(sys.argv) > 1:
        work = Path(sys.argv[1]).resolve()
        work.mkdir(parents=True, exist_ok=True)
        draw(work)
    else:
        with tempfile.TemporaryDirectory() as folder:
            draw(Path(folder))


def draw(work: Path) -> None:
    if not (work / "test.npz").exists():
        train(work)
    for folder, command in RUNS.items():
        if not (work / folder).exists():
            onnxsub_command(work, command)
        if folder != "plane":
            onnxsub_command(work, f"report {folder}")
    for name in ("global", "local", "unit"):
        keep(work / "plane" / f"{name}.png", f"plane-{name}")
    for folder in ("study", "share", "targets"):
        pictures = sorted((work / folder / "report" / "figures").glob("*.png"))
        for old in HERE.glob(f"{folder}-*.png"):
            old.unlink()
        for picture in pictures:
            keep(picture, f"{folder}-{picture.stem}")
        listed(folder, pictures)
    overview(work)
    statement(work)
    along(work)
    print(f"{sum(p.stat().st_size for p in HERE.glob('*.png')) / 1024:.0f} kB in {len(list(HERE.glob('*.png')))} pictures")


def train(work: Path) -> None:
    """The first code of the tutorial, and its test images as a data set."""
    text = (HERE.parent / "tutorial.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    code += '\nnp.savez("test.npz", x_test=x[test].numpy(), y_test=y[test].numpy())\n'
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=work, check=True)


def onnxsub_command(work: Path, command: str) -> None:
    print(f"onnxsub {command}", flush=True)
    subprocess.run([sys.executable, "-m", "onnxsub", *command.split(), "--quiet"], cwd=work, check=True, stdout=subprocess.DEVNULL)


def keep(source: Path, name: str) -> None:
    """A picture at the size of a page, with few colours, so that the repository stays small."""
    with Image.open(source, formats=("PNG",)) as picture:
        small = picture.convert("RGB")
    if small.width > WIDTH:
        small = small.resize((WIDTH, round(small.height * WIDTH / small.width)), Image.Resampling.LANCZOS)
    small.quantize(96, dither=Image.Dither.NONE).save(HERE / f"{name}.png", optimize=True)


def overview(work: Path) -> None:
    """The classifier of `onnxsub demo2d`, its substitute, and both near the anchor: the picture of the README."""
    folder = work / "plane"
    query = onnxsub.make_query(str(folder / "classifier.onnx"), np.load(folder / "anchor.npy")[0])
    options = onnxsub.PruneOptions(method="lin", select=SelectOptions(gamma=0.95))
    made = onnxsub.prune(query, options)
    (work / "plane.onnx").write_bytes(made.proto.SerializeToString())
    substitute = onnxsub.make_query(str(work / "plane.onnx"), query.x0)
    result = onnxsub.distance(query)
    assert result.witness is not None
    radius = result.upper
    kept = sum(made.to_json()["kept_per_layer"])
    estimate = onnxsub.distance(query, onnxsub.DistanceOptions(via=options)).upper
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.7), layout="constrained")
    wide, near = ((0.0, 1.0), (0.0, 1.0)), tuple((float(c) - 1.5 * radius, float(c) + 1.5 * radius) for c in query.x0)
    for a, (title, own, window, border) in zip(
        axes,
        (
            (f"the network: {query.network.units} ReLUs\ndistance {result.upper:.4f}", query, wide, None),
            (f"its substitute: {kept} ReLUs\ndistance {estimate:.4f}", substitute, wide, query),
            ("the substitute near the anchor\n(dotted: the network's boundary)", substitute, near, query),
        ),
        strict=True,
    ):
        ticks = [np.linspace(*ends, 301) for ends in window]
        grid = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2).astype(np.float32)
        classes = own.runtime.logits(grid).argmax(1).reshape(301, 301)
        a.contourf(*ticks, classes, levels=[-0.5, 0.5, 1.5, 2.5], colors=["#9ecae1", "#fdd49e", "#c7b8dd"])
        if border is not None:
            for c in range(3):
                inside = (border.runtime.logits(grid).argmax(1) == c).reshape(301, 301)
                a.contour(*ticks, inside, levels=[0.5], colors="black", linestyles=":", linewidths=1.2)
        a.plot(*query.x0, "o", color="black", ms=6)
        a.plot(*result.witness.x, "x", color="#D55E00", ms=8, mew=2.5)
        square = radius * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) + query.x0
        a.plot(*square.T, "--", color="black", lw=1)
        a.set_title(title, fontsize=10)
        a.set(xticks=[], yticks=[], aspect="equal", xlim=window[0], ylim=window[1])
    save(figure, "overview")


def listed(folder: str, pictures: list[Path]) -> None:
    """Writes the pictures of a run into the gallery, with the titles that their SVG files have."""
    lines = ['<div class="gallery" markdown>', ""]
    for picture in pictures:
        title = re.search(r"<title>([^<]*)", picture.with_suffix(".svg").read_text())
        lines += [f"![{title[1] if title else picture.stem}](pictures/{folder}-{picture.stem}.png)", ""]
    gallery = HERE.parent / "gallery.md"
    begin, end = f"<!-- figures: {folder} -->\n", "<!-- end -->"
    before, _, rest = gallery.read_text().partition(begin)
    gallery.write_text(before + begin + "\n" + "\n".join([*lines, "</div>", "", end]) + rest.partition(end)[2])


def statement(work: Path) -> None:
    """One image: what is proved of the network, what is exact of the substitute, what is a point."""
    query = onnxsub.make_query(str(work / "net.onnx"), np.load(work / "image.npy"))
    via = onnxsub.PruneOptions(method="lin", select=SelectOptions(gamma=0.95))
    result = onnxsub.distance(query, onnxsub.DistanceOptions(via=via))
    own = onnxsub.distance(query)
    original = result.original
    assert original is not None
    low, high = original.lower, original.upper
    figure, axes = plt.subplots(figsize=(8, 2.4), layout="constrained")
    axes.barh(0, low, color=GREEN, height=0.5, alpha=0.85)
    axes.barh(0, high - low, left=low, color=GREY, height=0.5, alpha=0.35)
    axes.barh(0, 0.3 * high, left=high, color=RED, height=0.5, alpha=0.35)
    axes.text(low / 2, 0, "same class: proved", ha="center", va="center", color="white")
    axes.text(1.15 * high, 0, "another class\nis reached", ha="center", va="center", fontsize=9)
    for x, color, text, y, side in (
        (low, GREEN, f"certified lower end {low:.4f}", 0.55, "right"),
        (result.upper, BLUE, f"substitute, exact: {result.upper:.4f}", 0.95, "right"),
        (own.upper, "black", f"network, exact: {own.upper:.4f}", -0.55, "right"),
        (high, RED, f"adversarial point {high:.4f}", -0.95, "left"),
    ):
        axes.plot([x, x], [0.25 if y > 0 else -0.25, y], color=color, lw=1.2)
        axes.text(x, y, f" {text} ", ha=side, va="center", color=color, fontsize=9)
    axes.set(xlim=(0, 1.3 * high), ylim=(-1.25, 1.25), yticks=[])
    axes.set_xlabel("largest change of a pixel (image 1400 of scikit-learn's digits)")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    save(figure, "statement")


def along(work: Path) -> None:
    """The margin on the straight way from the anchor through the adversarial point, of the network and of substitutes."""
    query = onnxsub.make_query(str(work / "net.onnx"), np.load(work / "image.npy"))
    found = onnxsub.attack(query)
    assert found.x_adv is not None
    steps = np.linspace(0, 2, 161)
    points = (query.x0 + steps[:, None, None, None] * (found.x_adv - query.x0)).clip(0, 1).astype(np.float32)
    label, other = query.label, found.adversarial_label
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for method, gamma, color, style in (("con", 0.95, "#e08214", ":"), ("lin", 0.95, BLUE, "-"), (None, None, "black", "-")):
        if method is None:
            runtime, name = query.runtime, "the network, 224 ReLUs"
        else:
            made = onnxsub.prune(query, onnxsub.PruneOptions(method=method, select=SelectOptions(gamma=gamma)))
            (work / f"{method}.onnx").write_bytes(made.proto.SerializeToString())
            runtime = onnxsub.make_query(str(work / f"{method}.onnx"), query.x0).runtime
            name = f"substitute {method}, {sum(made.to_json()['kept_per_layer'])} ReLUs"
        logits = np.concatenate([runtime.logits(p[None]) for p in points])
        width = {"lin": 6, "con": 2}.get(str(method), 1.4)
        alpha = 0.45 if method == "lin" else 1.0
        axes.plot(steps * found.d_adv, logits[:, label] - logits[:, other], style, color=color, label=name, lw=width, alpha=alpha)
    axes.axhline(0, color=GREY, lw=0.8)
    for x, text in ((0.0, "anchor"), (found.d_adv, "adversarial point")):
        axes.axvline(x, color=GREY, lw=0.8, ls="--")
        axes.text(x, 5.5, f" {text}", va="center", fontsize=9)
    axes.set(xlabel="distance from the anchor", ylabel=f"logit of class {label} minus class {other}")
    axes.legend(frameon=False, loc="lower left")
    save(figure, "along")


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(HERE / f"{name}.png", dpi=150)
    plt.close(figure)
    keep(HERE / f"{name}.png", name)


if __name__ == "__main__":
    main()
