"""Architectures and recipes as data."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from onnxsub.errors import InputError, OptionError
from onnxsub.zoo.architectures import ARCHITECTURES, Conv, architecture
from onnxsub.zoo.build import build
from onnxsub.zoo.datasets import DATASETS
from onnxsub.zoo.recipe import BUDGETS, Phase, Recipe, budget_text, default_recipe, model_name, recipe_from_json

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "grey", "colour"),
    [
        ("A", 16_330, 62_090),
        ("B", 99_710, 328_510),
        ("C", 166_406, 214_918),
        ("D", 833_786, 1_079_834),
        ("E", 1_974_762, 2_466_858),
        ("F", 13_314_634, 17_247_946),
        ("G", 7_111_690, 9_454_602),
    ],
)
def test_parameters_are_exact_and_those_of_torch(name: str, grey: int, colour: int) -> None:
    for shape, count in ((GREY, grey), (COLOUR, colour)):
        assert ARCHITECTURES[name].parameters(shape) == count
        assert sum(p.numel() for p in build(ARCHITECTURES[name], shape).parameters()) == count


def test_units() -> None:
    counts = {name: a.units(GREY) for name, a in ARCHITECTURES.items()}
    letters = {name: n for name, n in counts.items() if len(name) == 1}
    assert letters == {"A": 40, "B": 300, "C": 4804, "D": 24_032, "E": 48_064, "F": 176_128, "G": 7168}
    assert ARCHITECTURES["E"].units(COLOUR) == 62_464


def test_a_name_in_either_case() -> None:
    assert architecture("c") is ARCHITECTURES["C"]
    with pytest.raises(InputError, match="no architecture 'H'; choose one of A, B"):
        architecture("H")


def test_a_grid_of_architectures() -> None:
    assert architecture("mlp:100").name == architecture("MLP:100x1:relu").name == "mlp:100x1:relu"
    two = architecture("mlp:10x2:tanh:clamp")
    assert (two.activation, two.clamp, two.units(GREY), two.parameters(GREY)) == ("tanh", 100.0, 20, 7850 + 110 + 110)
    assert architecture(two.name) == two
    conv = architecture("cnn:8x2:k4:sigmoid")
    assert (conv.name, conv.units(GREY)) == ("cnn:8x2:k4:sigmoid", 8 * 14 * 14 + 8 * 7 * 7)
    assert architecture("fc30").parameters(GREY) == architecture("mlp:30:clamp").parameters(GREY) == 30 * 785 + 310
    for name, message in (("mlp:0", "is not possible"), ("cnn:3x200", "at most 100 layers"), ("mlp:3:gelu", "no architecture"),
                          ("mlp:3:k3", "no architecture"), ("cnn:8x4:k5x", "no architecture")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            architecture(name)


def test_a_size_beyond_every_file_is_refused() -> None:
    with pytest.raises(OptionError, match="41,000,000,004 parameters for inputs of") as caught:
        build(architecture("mlp:1000000000"), (1, 6, 6), 4)
    assert len(str(caught.value).splitlines()) == 1


def test_a_window_needs_room() -> None:
    with pytest.raises(InputError, match="too small for a window of 4"):
        Conv(8, 4, 2, 0).out_shape((1, 3, 3))
    with pytest.raises(InputError, match="wants images"):
        Conv(8, 3).out_shape((784,))


def test_listing_needs_no_torch() -> None:
    code = "import sys, onnxsub.zoo.architectures, onnxsub.zoo.recipe, onnxsub.zoo.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_survives_json() -> None:
    for data, budgets in BUDGETS.items():
        for budget in budgets:
            recipe = default_recipe(data, "C", budget)
            assert recipe_from_json(recipe.to_json()) == recipe
    with pytest.raises(InputError, match="not of this version"):
        recipe_from_json({**recipe.to_json(), "momentum": 0.9})
    with pytest.raises(InputError, match="not of this version"):
        recipe_from_json({"data": "mnist"})


def test_every_data_set_has_budgets() -> None:
    assert set(BUDGETS) == set(DATASETS)
    assert BUDGETS["mnist"] == (0.0, 0.1, 0.3)
    assert BUDGETS["cifar10"] == (0.0, 2 / 255, 8 / 255)


def test_names() -> None:
    assert [budget_text(b) for b in (0.0, 0.1, 0.3, 2 / 255, 8 / 255, 1.0, 0.1234567891)] == [
        "0", "0.1", "0.3", "2/255", "8/255", "1", "0.1234567891",
    ]  # fmt: skip
    assert model_name(default_recipe("mnist", "c", 0.3)) == "mnist-c-adv0.3"
    assert model_name(default_recipe("cifar10", "C", 8 / 255)) == "cifar10-c-adv8-255"
    assert model_name(default_recipe("mnist", "E")) == "mnist-e-clean"


def test_rate_and_budget_climb() -> None:
    recipe = default_recipe("mnist", "C", 0.3)
    assert [recipe.rate_at(x) for x in (0, recipe.climb, 1)] == [0, recipe.rate, 0]
    assert recipe.rate_at(recipe.climb / 2) == pytest.approx(recipe.rate / 2)
    assert recipe.budget_at(0) == 0
    assert recipe.budget_at(recipe.warm_up / 2) == pytest.approx(0.15)
    assert recipe.budget_at(recipe.warm_up) == recipe.budget_at(99) == 0.3
    assert replace(recipe, warm_up=0).budget_at(0) == 0.3


def test_phases_follow_each_other() -> None:
    recipe = Recipe("mnist", "C", 0.1, (Phase(2, 1, 1.25), Phase(3, 5, 0.4)))
    assert recipe.epochs == 5
    assert [recipe.phase(e).steps for e in range(5)] == [1, 1, 5, 5, 5]
    with pytest.raises(IndexError):
        recipe.phase(5)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30, 100])
def test_another_number_of_epochs(epochs: int) -> None:
    for budget in (0.0, 0.3):
        recipe = default_recipe("mnist", "C", budget, epochs=epochs)
        assert recipe.epochs == epochs
        assert recipe.warm_up <= epochs / 2
    if epochs >= 3:
        assert [p.steps for p in recipe.phases] == [1, 7]


def test_recipes_by_name() -> None:
    fast = default_recipe("mnist", "D", 0.3, name="fast")
    assert fast.epochs < default_recipe("mnist", "D", 0.3).epochs
    assert (fast.batch, fast.augment, fast.decay) == (128, False, 0.0)
    assert default_recipe("cifar10", "D", name="fast").augment
    with pytest.raises(InputError, match="there is no recipe 'slow'; choose one of full, fast, published"):
        default_recipe("mnist", "D", name="slow")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": -0.1}, "budget of -0.1"),
        ({"budget": float("nan")}, "budget of nan"),
        ({"budget": 0.0}, "a clean one none"),
        ({"phases": ()}, "a clean one none"),
        ({"phases": (Phase(1),)}, "needs its steps in every phase"),
        ({"batch": 0}, "batch 0"),
        ({"seed": -1}, "seed -1"),
        ({"warm_up": -1}, "warm-up -1"),
        ({"rate": 0.0}, "learning rate must be positive"),
        ({"climb": 1.0}, "climb between 0 and 1"),
        ({"architecture": "Z"}, "no architecture 'Z'"),
    ],
)
def test_impossible_recipes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(default_recipe("mnist", "C", 0.3), **changes)  # type: ignore[arg-type]


def test_impossible_phases() -> None:
    for phase, message in (((0,), "0 epochs is none"), ((1, -1), "-1 attack steps"), ((1, 5), "step of 0 budgets")):
        with pytest.raises(InputError, match=message):
            Phase(*phase)
    with pytest.raises(InputError, match="0 epochs"):
        default_recipe("mnist", "C", epochs=0)
