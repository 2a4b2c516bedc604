"""Every form of a model is read the same; a torch module is exported, compared with its export and left as it was."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import onnxsub.any_model as am
from onnxsub.any_model import any_model
from onnxsub.errors import InputError, ModelError
from onnxsub.model import Reading, load_model
from onnxsub.runtime import Runtime

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(2 * 6 * 6, 3)
    )  # fmt: skip


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_files_bytes_messages_and_models_are_the_same_model() -> None:
    wanted = load_model(DIGITS)
    for given in (DIGITS, str(DIGITS), DIGITS.read_bytes(), bytearray(DIGITS.read_bytes()), onnx.load(DIGITS)):
        model = any_model(given)
        assert model.form == wanted.form
    assert any_model(DIGITS).path == DIGITS
    assert any_model(wanted) is wanted


def test_a_model_is_read_again_only_where_another_reading_is_asked_for() -> None:
    model = load_model(DIGITS)
    again = any_model(model, reading=Reading(output=model.own_output))
    assert again is not model
    assert again.reading.output == model.own_output
    assert again.sha256 == model.sha256
    assert any_model(again) is again


@pytest.mark.parametrize(
    ("given", "match"),
    [(3, "given as int"), (None, "given as NoneType"), (["m.onnx"], "given as list"), (np.zeros(3), "given as ndarray"),
     ({"0.weight": torch.zeros(1)}, "dictionary"), (nn.Linear, "given as type")],
)  # fmt: skip
def test_what_is_no_model_is_refused(given: object, match: str) -> None:
    with pytest.raises(InputError, match=match) as raised:
        any_model(given)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_checkpoint_is_told_from_a_model() -> None:
    with pytest.raises(ModelError, match=r"'net\.pt' is a checkpoint"):
        any_model("net.pt")


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8), (5, 1, 8, 8)])
def test_a_module_is_exported_in_eval_mode_and_left_as_it_was(shape: tuple[int, ...]) -> None:
    net = cnn().train()
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    x = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
    model = any_model(net, np.zeros(shape))
    assert [m.training for m in net] == [True, False, True, True, True, True]
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert model.input_shape == (1, 8, 8)
    assert model.outputs == 3
    assert not model.batch_fixed
    assert model.where == "torch module Sequential"
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Runtime(model).logits(x), wanted, atol=1e-5)


@pytest.mark.parametrize("example", [np.zeros(6), np.zeros((20, 6)), torch.zeros(6), torch.zeros(6, 6), [0.0] * 6])
def test_one_input_and_a_batch_are_told_apart(example: object) -> None:
    assert any_model(mlp(), example).input_shape == (6,)


def test_one_image_with_a_batch_axis_is_a_batch_of_one() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert any_model(net, np.zeros((1, 1, 8, 8))).input_shape == (1, 8, 8)
    assert any_model(net, np.zeros((1, 8, 8))).input_shape == (1, 8, 8)
    assert any_model(net, np.zeros((5, 1, 8, 8))).input_shape == (1, 8, 8)


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
def test_a_shape_stands_for_an_example(shape: tuple[int, ...]) -> None:
    assert any_model(mlp(), reading=Reading(input_shape=shape)).input_shape == (6,)
    assert any_model(mlp(), np.zeros((7, 6)), Reading(input_shape=shape)).input_shape == (6,)


def test_the_same_module_gives_the_same_file() -> None:
    assert any_model(mlp(), np.zeros(6)).sha256 == any_model(mlp(), np.ones((3, 6))).sha256


def test_a_module_in_float64_and_one_of_whole_numbers() -> None:
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.to(torch.float32) / 255)

    assert any_model(mlp().double(), np.zeros(6, np.float32)).input_dtype == np.float64
    assert any_model(Pixels(), np.zeros(6, np.uint8)).whole


def test_outputs_have_the_names_that_a_module_gives_them() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"features": x, "scores": self.net(x)}

    with pytest.raises(ModelError, match="scores"):
        any_model(Heads(), np.zeros(6))
    assert any_model(Heads(), np.zeros(6), Reading(output="scores")).outputs == 3


@pytest.mark.slow
def test_a_compiled_module_is_its_module() -> None:
    compiled = torch.compile(mlp(), backend="eager")
    assert any_model(compiled, np.zeros(6)).sha256 == any_model(mlp(), np.zeros(6)).sha256  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("example", "match"),
    [(None, "does not say what it takes"), (np.zeros(7), r"does not take an input of shape \[7\]"),
     ("seven", "no array of numbers"),
     (np.zeros((2, 0)), "does not take")],
)  # fmt: skip
def test_an_example_that_does_not_fit(example: object, match: str) -> None:
    with pytest.raises(InputError, match=match) as raised:
        any_model(mlp(), example)
    assert "\n" not in str(raised.value)


def test_a_module_that_draws_numbers_is_found() -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x + 0.1 * torch.rand_like(x))

    net = Noise().train()
    with pytest.raises(ModelError, match="differ by"):
        any_model(net, np.zeros(6))
    assert net.training


def test_a_module_that_branches_on_values_is_found_or_warned_of() -> None:
    class Branch(nn.Module):
        def __init__(self, at: float) -> None:
            super().__init__()
            self.net, self.at = mlp(), at

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) if x.sum() > self.at else -self.net(x)

    with pytest.raises(ModelError, match="branch on values"):
        any_model(Branch(0.5), np.ones(6))
    with pytest.warns(torch.jit.TracerWarning):
        model = any_model(Branch(-1e6), np.ones(6))
    assert any("torch's exporter warns" in note for note in model.notes)


def test_what_torch_cannot_export_is_said_with_what_to_do() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x)

    with pytest.raises(ModelError, match="torch cannot export it") as raised:
        any_model(Odd(), np.zeros((1, 3, 3)), Reading(input_shape=(3, 3)))
    assert "\n" not in str(raised.value)


def test_the_newer_exporter_takes_what_tracing_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")

    def broken(*_: object) -> None:
        raise RuntimeError("no tracing")

    monkeypatch.setattr(am, "_traced", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = any_model(cnn(), np.zeros((1, 8, 8)))
    assert (model.input_shape, model.outputs, model.batch_fixed) == ((1, 8, 8), 3, False)


def test_a_model_of_a_module_can_be_pickled() -> None:
    model = any_model(mlp(), np.zeros(6))
    again = pickle.loads(pickle.dumps(model))
    assert again.sha256 == model.sha256
    assert again.form == model.form


def test_reading_a_file_does_not_import_torch() -> None:
    code = f"import sys; from onnxsub.any_model import any_model; any_model({str(DIGITS)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
