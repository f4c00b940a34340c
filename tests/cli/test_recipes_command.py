"""`nao-ray recipes` as a user types it."""

import json

from nao_ray.training.published import RECIPES
from nao_ray.training.recipe import Recipe
from nao_ray.training.told import TOLD


def test_each_recipe_is_listed_with_what_is_published_of_it(call):
    done = call("recipes")
    assert (done.code, done.err) == (0, "")
    assert TOLD.keys() == RECIPES.keys()
    assert all(name in done.out for name in RECIPES)
    assert "NAONet-TF 2.10 % error" in " ".join(done.out.split())


def test_one_is_shown_with_its_source_its_command_and_all_its_settings(call):
    done = call("recipes", "darts_imagenet")
    assert done.code == 0
    assert "26.7 % top-1" in done.out
    assert "nao-ray train DARTS_V2 --recipe darts_imagenet --task imagenet --set task.path=FOLDER" in done.out
    facts = json.loads(call("recipes", "darts_imagenet", "--json").out)
    assert facts["settings"] == Recipe(name="darts_imagenet").model_dump(mode="json", exclude={"name"})
    assert all(f"{name}:" in done.out for name in facts["settings"])


def test_a_name_that_is_none_suggests_the_nearest(call):
    done = call("recipes", "darts_imagnet")
    assert (done.code, done.err) == (2, "nao-ray: no recipe is named 'darts_imagnet'; did you mean darts_imagenet?\n")
