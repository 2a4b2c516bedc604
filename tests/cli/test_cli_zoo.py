"""`onnxsub zoo`."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxsub.zoo.pipeline as pipeline
from onnxsub.cli.zoo import command
from onnxsub.model import load_model
from tests.cli.conftest import Run
from tests.test_zoo_train import blobs


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder, made the current one, with images in it."""
    train, test = blobs(200), blobs(60, 1)
    path = tmp_path / "blobs.npz"
    np.savez(path, x_train=train.x[:, 0], y_train=train.y, x_test=test.x[:, 0], y_test=test.y)
    monkeypatch.chdir(tmp_path)
    return path


def test_list(onnxsub: Run) -> None:
    ran = onnxsub("zoo", "list")
    assert (ran.code, ran.err) == (0, "")
    for text in ("166,406", "214,918", "833,786", "1,079,834", "1,974,762", "2,466,858", "2/255, 8/255", "cache"):
        assert text in ran.out
    keys = onnxsub("zoo", "list", "--json").json
    assert keys["schema"] == "onnxsub.zoo-list/1"
    assert [a["name"] for a in keys["architectures"]] == [*"ABCDEFG", "fc30", "fc100", "lenet", "nin"]
    assert keys["architectures"][2]["parameters"] == {"1x28x28": 166_406, "3x32x32": 214_918}
    assert [d["name"] for d in keys["datasets"]] == ["mnist", "fashion-mnist", "cifar10"]


def test_train_list_export(onnxsub: Run, images: Path) -> None:
    ran = onnxsub("zoo", "train", "C", "--data", images, "--adv", "8/255", "--epochs", 3, "--seed", 2, "--batch", 20, "--json")
    assert (ran.code, ran.err) == (0, "")
    keys = ran.json
    assert keys["schema"] == "onnxsub.zoo-card/1"
    stem = "blobs-c-adv8-255"
    assert keys["written"] == {"model": f"{stem}.onnx", "card": f"{stem}.json", "checkpoint": f"{stem}.pt"}
    assert keys["recipe"]["budget"] == 8 / 255
    card = json.loads(Path(f"{stem}.json").read_text())
    assert card == {k: v for k, v in keys.items() if k != "written"}
    assert card["file"]["sha256"] == hashlib.sha256(Path(f"{stem}.onnx").read_bytes()).hexdigest()
    assert card["figures"]["test_images"] == 60

    listed = onnxsub("zoo", "list", ".").out
    assert f"{stem}.onnx" in listed
    assert "at 8/255" in listed
    assert onnxsub("zoo", "list", ".", "--json").json["networks"][0]["name"] == stem

    ran = onnxsub("zoo", "export", f"{stem}.pt", "--batch", 1, "-o", "one.onnx")
    assert ran.code == 0
    assert "opset 13" in ran.out
    assert load_model("one.onnx").batch_fixed
    assert json.loads(Path("one.json").read_text())["input"]["shape"] == [1, 1, 8, 8]
    assert onnxsub("info", "one.onnx").code == 0

    # the command on the card does it again, byte for byte
    before = Path(f"{stem}.onnx").read_bytes()
    for ending in ("onnx", "json", "pt"):
        Path(f"{stem}.{ending}").unlink()
    assert card["command"] == "onnxsub zoo train C --data blobs.npz --adv 8/255 --epochs 3 --batch 20 --seed 2"
    assert onnxsub(*shlex.split(card["command"])[1:]).code == 0
    assert Path(f"{stem}.onnx").read_bytes() == before


def test_arrays_by_name(onnxsub: Run, images: Path) -> None:
    with np.load(images) as archive:
        np.savez("other.npz", a=archive["x_train"], b=archive["y_train"])
    names = ("--dataset", "mine", "--data", "other.npz", "--array", "a", "--labels", "b")
    ran = onnxsub("zoo", "train", "A", *names, "--epochs", 1)
    assert ran.code == 0
    assert "not measured" in ran.out
    card = json.loads(Path("mine-a-clean.json").read_text())
    assert card["command"] == "onnxsub zoo train A --dataset mine --data other.npz --array a --labels b --epochs 1"


def test_a_named_recipe_and_few_attacked_images(onnxsub: Run, images: Path) -> None:
    line = ("zoo", "train", "A", "--data", images, "--adv", 0.1, "--recipe", "fast", "--epochs", 1, "--attacked", 20)
    ran = onnxsub(*line)
    assert ran.code == 0
    assert "at 0.1 (the first 20)" in ran.out
    card = json.loads(Path("blobs-a-adv0.1.json").read_text())
    assert card["command"] == "onnxsub zoo train A --data blobs.npz --adv 0.1 --recipe fast --epochs 1 --attacked 20"
    assert (card["recipe"]["batch"], card["figures"]["attack"]["images"]) == (128, 20)


def test_regimes(onnxsub: Run, images: Path) -> None:
    line = ("zoo", "train", "mlp:9:clamp", "--data", images, "--regime", "sr", "--eps", 0.05, "--delta", 2, "--epochs", 1)
    assert onnxsub(*line).code == 0
    stem = "blobs-mlp-9x1-relu-clamp-sr0.05"
    card = json.loads(Path(f"{stem}.json").read_text())
    assert card["recipe"]["regime"] == {"name": "sr", "alpha": 1.0, "beta": 0.2, "delta": 2.0, "norm": "inf"}
    wanted = "onnxsub zoo train mlp:9x1:relu:clamp --data blobs.npz --regime sr --eps 0.05 --delta 2.0 --epochs 1"
    assert card["command"] == wanted
    assert onnxsub("zoo", "train", "A", "--data", images, "--regime", "adversarial", "--epochs", 1).code == 0
    assert json.loads(Path("blobs-a-adv0.1.json").read_text())["command"].endswith("--adv 0.1 --epochs 1")
    assert onnxsub("zoo", "export", f"{stem}.pt", "--clamp", "relu", "-o", "relus.onnx").code == 0
    assert "Clip" not in [n.op_type for n in onnx.load("relus.onnx").graph.node]
    ran = onnxsub(*line, "--beta", 0.4)
    assert (ran.code, "is of another training: regime is" in ran.line) == (4, True)


def test_interrupt_and_go_on(onnxsub: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("zoo", "train", "A", "--data", images, "--epochs", 4, "--rate", 0.01)
    assert onnxsub(*line, "-o", "whole.onnx").code == 0

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "measure", interrupted)  # after the training, before it is finished
        ran = onnxsub(*line, "-o", "cut.onnx")
    assert ran.code == 130
    assert "note: cut.pt holds the training so far; run the same command again and it goes on" in ran.err
    assert not Path("cut.onnx").exists()
    assert onnxsub(*line, "-o", "cut.onnx").code == 0
    assert Path("cut.onnx").read_bytes() == Path("whole.onnx").read_bytes()

    ran = onnxsub("zoo", "train", "A", "--data", images, "--epochs", 5, "-o", "cut.onnx")
    assert ran.code == 4
    assert "checkpoint 'cut.pt' is of another training: phases is" in ran.line
    assert onnxsub("zoo", "train", "A", "--data", images, "--epochs", 5, "-o", "cut.onnx", "--restart").code == 0


def test_progress_goes_to_standard_error(onnxsub: Run, images: Path) -> None:
    ran = onnxsub("zoo", "train", "A", "--data", images, "--epochs", 2, "--threads", 1, "-v", "--json")
    assert ran.json["training"]["threads"] == 1
    assert "epoch 1 of 2" in ran.err
    assert "epoch 2 of 2, loss " in ran.err
    assert "attacking" not in ran.err  # blobs are no data set with budgets, and the training is clean


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("A",), 2, "no images: say which images: --dataset mnist, or --data FILE.npz"),
        (("A", "--data", "blobs.npz", "--adv", "much"), 2, "'much' is no radius; give a number like 0.3, or a fraction like 8/255"),
        (("A", "--data", "blobs.npz", "--adv", "1/0"), 2, "is no radius"),
        (("A", "--data", "blobs.npz", "--adv", "-1"), 2, "is no radius"),
        (("A", "--data", "blobs.npz", "--adv", "nan"), 2, "is no radius"),
        (("H", "--data", "blobs.npz"), 2, "there is no architecture 'H'; choose one of A, B"),
        (("A", "--dataset", "svhn"), 2, "there is no data set 'svhn'; choose one of mnist"),
        (("A", "--data", "none.npz"), 4, "data file 'none.npz' does not exist"),
        (("A", "--data", "blobs.npz", "--array", "x"), 4, "holds no arrays x and y_train, it has x_train"),
        (("A", "--data", "blobs.npz", "--epochs", "0"), 2, "a training of 0 epochs"),
        (("A", "--data", "blobs.npz", "--regime", "sr", "--eta", "0.5"), 2, "--eta is no parameter of regime sr"),
        (("A", "--data", "blobs.npz", "--regime", "sr", "--eps", "0"), 2, "regime sr needs a radius"),
        (("A", "--data", "blobs.npz", "--regime", "sr", "--adv", "0.1"), 2, "--adv is --regime adversarial with --eps"),
        (("A", "--data", "blobs.npz", "--eps", "0.1"), 2, "--eps is the radius of a regime"),
        (("A", "--data", "blobs.npz", "--regime", "base", "--eps", "0.1"), 2, "regime base has no radius"),
        (("A", "--data", "blobs.npz", "--regime", "adversarial", "--eps", "0"), 2, "adversarial needs a radius"),
        (("A", "--data", "blobs.npz", "--attacked", "0"), 2, "0 attacked test images are not possible"),
        (("A", "--data", "blobs.npz", "--threads", "0"), 2, "--threads 0 is not possible"),
        (("A", "--data", "blobs.npz", "--seed", "-3"), 2, "seed -3 is not possible"),
        (("A", "--data", "blobs.npz", "--seed", str(2**63)), 2, "below 2^63"),
        (("A", "--data", "blobs.npz", "-o", "net.pt"), 2, "-o 'net.pt' has the ending '.pt'; give one of .onnx"),
        (("A", "--data", "blobs.npz", "-o", "none/net.onnx"), 4, "there is no folder 'none'"),
        (("A", "--data", "blobs.npz", "--checkpoint", "state.onnx"), 2, "give one of .pt"),
    ],
)
def test_bad_input_is_one_line(onnxsub: Run, images: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = onnxsub("zoo", "train", *arguments)
    assert ran.code == code
    assert message in ran.line
    assert sorted(p.name for p in images.parent.iterdir()) == ["blobs.npz"]


def test_other_bad_input(onnxsub: Run, images: Path) -> None:
    assert "there is no folder 'none'" in onnxsub("zoo", "list", "none").line
    ran = onnxsub("zoo", "export", "blobs.npz")
    assert (ran.code, "is damaged, or no checkpoint" in ran.line) == (4, True)
    assert "does not exist" in onnxsub("zoo", "export", "none.pt").line
    assert onnxsub("zoo", "sell").code == 2


def test_every_option_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for name, sub in command.commands.items():  # type: ignore[attr-defined]
        assert f"`zoo {name}" in manual
        for parameter in sub.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in manual, f"docs/cli.md does not mention {option} of zoo {name}"
