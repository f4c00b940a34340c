import math

import pytest
from pydantic import ValidationError

from nao_ray.training.fit import learning_rate
from nao_ray.training.recipe import RECIPES, Recipe


def test_the_default_is_the_papers():
    recipe = Recipe()
    assert recipe == Recipe.model_validate("paper_search")
    expected = {
        "lr": 0.024,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "clip_norm": 5.0,
        "batch": 128,
        "cosine_epochs": 100,
        "auxiliary_weight": 0.4,
        "drop_path_keep": 0.7,
        "dropout": 0.0,
        "cutout": 0,
        "score": "best",
    }
    assert {name: getattr(recipe, name) for name in expected} == expected


def test_the_papers_learning_rate_ends_where_the_reference_says():
    """The 25th epoch of a cosine of 100 epochs: about 0.0207."""
    assert learning_rate(Recipe(), 24, epochs=25) == pytest.approx(0.0207, abs=1e-4)
    assert learning_rate(Recipe(), 0, epochs=25) == 0.024


def test_a_cosine_of_its_own_epochs_ends_at_its_end_after_warming_up():
    recipe = Recipe(lr=0.1, lr_end=0.01, cosine_epochs=None, warmup_epochs=2)
    assert learning_rate(recipe, 8, epochs=8) == pytest.approx(0.01)
    assert learning_rate(recipe, 4, epochs=8) == pytest.approx(0.055)
    unwarmed = Recipe(lr=0.1, lr_end=0.01, cosine_epochs=None)
    assert learning_rate(recipe, 1, epochs=8) == pytest.approx(learning_rate(unwarmed, 1, epochs=8) / 2)
    rates = [learning_rate(Recipe(), step / 10, epochs=25) for step in range(250)]
    assert rates == sorted(rates, reverse=True)
    assert math.isclose(learning_rate(Recipe(cosine_epochs=5), 7, epochs=10), 0.0, abs_tol=1e-12)


@pytest.mark.parametrize("name", RECIPES)
def test_by_name_with_changes(name):
    recipe = Recipe.model_validate({"name": name, "batch": 17})
    assert recipe.batch == 17
    assert recipe.model_copy(update={"batch": 0}) == Recipe.model_validate(name).model_copy(update={"batch": 0})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("fast", "no recipe is named 'fast'; known: paper_search, paper_shared, short"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"batch": 1}, "greater than or equal to 2"),
        ({"score": "mean"}, "'best' or 'last'"),
        (3, "Recipe"),
    ],
)
def test_bad_recipes_are_refused(value, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(value)
