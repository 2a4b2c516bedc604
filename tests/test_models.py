"""The bundled network is what its card says."""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

MODELS = Path(__file__).parents[1] / "models"
CARD = (MODELS / "README.md").read_text()


def predicted(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(MODELS / "digits.onnx")
    return np.asarray(session.run(None, {"image": x})[0]).argmax(axis=1)


def held_out() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)[:, None]
    _, x_test, _, y_test = train_test_split(x, digits.target, test_size=0.25, random_state=0, stratify=digits.target)
    return x_test, y_test


def test_accuracy() -> None:
    x, y = held_out()
    accuracy = float((predicted(x) == y).mean())
    assert accuracy > 0.95
    assert f"| test accuracy | {accuracy:.2%} of {len(y)} images |" in CARD


def test_sha256_and_size() -> None:
    content = (MODELS / "digits.onnx").read_bytes()
    assert f"`{hashlib.sha256(content).hexdigest()}`" in CARD
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, model.opset_import[0].version) == (8, 13)
    parameters = sum(int(np.prod(t.dims)) for t in model.graph.initializer)
    assert f"| parameters | {parameters} |" in CARD


def test_anchors_are_test_images_that_the_network_gets_right() -> None:
    with np.load(MODELS / "digits_anchors.npz") as archive:
        x, y = archive["x"], archive["y"]
    assert (x.shape, x.dtype, y.tolist()) == ((10, 1, 8, 8), np.float32, list(range(10)))
    assert (predicted(x) == y).all()
    test_images = {image.tobytes() for image in held_out()[0]}
    assert all(image.tobytes() in test_images for image in x)


def test_the_single_image_is_row_seven() -> None:
    with np.load(MODELS / "digits_anchors.npz") as archive:
        seven = archive["x"][7]
    np.testing.assert_array_equal(np.load(MODELS / "digits_seven.npy"), seven[None])
    image = np.asarray(Image.open(MODELS / "digits_seven.png"))
    assert image.dtype == np.uint8
    assert np.abs(image / 255 - seven[0]).max() <= 0.5 / 255 + 1e-7
    assert predicted((image / 255).astype(np.float32)[None, None])[0] == 7


def test_the_recipe_needs_only_what_the_extras_promise() -> None:
    tree = ast.parse((MODELS / "train_digits.py").read_text())
    roots = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    roots |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert roots <= {"__future__", "argparse", "hashlib", "pathlib", "numpy", "onnx", "torch", "PIL", "sklearn"}
    assert re.search(r"^SEED = 0$", (MODELS / "train_digits.py").read_text(), re.MULTILINE)
