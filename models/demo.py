"""The main job on the bundled network, as `make demo` runs it: attack, prune, exact distance, and what it proves.

    python models/demo.py [FOLDER]

Writes the substitute to FOLDER (default: demo-out). Everything here is the public Python API.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import onnxsub

HERE = Path(__file__).parent
GAMMA = 0.99


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")
    out.mkdir(parents=True, exist_ok=True)
    substitute = out / f"digits.lin-{GAMMA}.onnx"

    query = onnxsub.make_query(HERE / "digits.onnx", np.load(HERE / "digits_seven.npy"))
    print(f"Network {query.model.path and query.model.path.name}: {query.network.units} ReLUs, {query.classes} classes.")
    print(f"Image digits_seven.npy, a {query.label}:")
    print(picture(query.x0[0]))

    pruned = onnxsub.prune(query, onnxsub.PruneOptions(method="lin", layout="inplace"))
    keys = pruned.to_json()
    print(f"1. Attack: an adversarial point at radius {keys['d_adv']:.5f}.")

    onnxsub.save_model(pruned.proto, substitute)
    kept = keys["units_total"] - keys["units_pruned"]
    print(f"2. Prune: {keys['units_pruned']} of {keys['units_total']} ReLUs became affine, {kept} are left.")
    print(f"   Same logits at the image and at the adversarial point, within {max(keys['preserves'].values()):.1e}.")

    options = onnxsub.DistanceOptions(via=pruned.options)
    result = onnxsub.distance(query, options)
    print(f"3. Distance of the substitute to its decision boundary: {bracket(result.lower, result.upper)}, {result.status}.")

    original = result.original
    assert original is not None  # it is there with a substitute
    print("4. What that says about the network itself: its distance is")
    if original.exact:
        print(f"   {bracket(original.lower, original.upper)}, exactly: no pruned unit can leave its piece on that ball.")
    else:
        print(f"   at most  {original.upper:.5f}  (a point that onnxruntime confirms on the original file)")
        print(f"   at least {original.lower:.5f}  (certified by bounds of the original network)")
    print(f"\nThe substitute is an ordinary ONNX file: {substitute}   ({result.time_s['total']:.1f} s for the distance)")


def bracket(lower: float, upper: float) -> str:
    return f"{upper:.5f}" if upper - lower < 1e-5 else f"between {lower:.5f} and {upper:.5f}"


def picture(image: np.ndarray) -> str:
    """Grey values in [0, 1] as characters."""
    shades = " .:-=+*#%@"
    return "\n".join("   " + "".join(2 * shades[round(float(v) * (len(shades) - 1))] for v in row) for row in image)


if __name__ == "__main__":
    main()
