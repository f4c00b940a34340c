import copy
import math
import pickle

import pytest
import torch
from pydantic import ValidationError

from nao_ray import own_modules
from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import ConfigError
from nao_ray.tasks.digits import Digits
from nao_ray.training.published import FULL_TRAININGS, RECIPES
from nao_ray.training.recipe import ImageRecipe, Recipe, TextRecipe, full_training
from nao_ray.training.schedule import learning_rate


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
        ("fast", "no recipe is named 'fast'; known: paper_search, paper_shared, darts_search, short"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"batch": 1}, "greater than or equal to 2"),
        ({"score": "mean"}, "'best' or 'last'"),
        (3, "Recipe"),
        ([1, 2], "Recipe"),  # ended in an error of Python's
        ({"name": [1]}, r"no recipe is named \[1\]"),
        ("darts_serch", "no recipe is named 'darts_serch'; did you mean darts_search"),
        ({"bptt": 35}, "bptt: no setting of a recipe of images; known: name, batch, [a-z_, ]*, cutout, "),
    ],
)
def test_bad_recipes_are_refused(value, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(value)


PUBLISHED = {
    #                     N     F   epochs batch lr    lr_end  decay  drop  keep aux cutout clip nesterov
    "nao_cifar10":        (6,    36,  600, 128, 0.025, 0.0,    3e-4,  0.4,  0.8, 0.4, 16, 5.0,  False),
    "nao_cifar10_128":    (6,    128, 600, 128, 0.025, 0.0,    5e-4,  0.4,  0.7, 0.4, 16, 5.0,  False),
    "nao_v2_cifar10":     (6,    36,  600, 128, 0.025, 0.0,    5e-4,  0.4,  0.8, 0.4, 16, 5.0,  False),
    "nao_cifar100":       (6,    128, 600, 128, 0.024, 0.0,    5e-4,  0.2,  0.6, 0.4, 16, 5.0,  False),
    "nao_tf_cifar10":     (6,    128, 600, 128, 0.024, 0.0,    5e-4,  0.4,  0.7, 0.4, 16, 5.0,  False),
    "nao_ws_cifar10":     (5,    36,  630, 144, 0.05,  0.0001, 4e-4,  0.2,  0.6, 0.4, 0,  None, True),
    "enas_micro_cifar10": (5,    36,  630, 144, 0.05,  0.0001, 4e-4,  0.2,  0.6, 0.4, 0,  None, True),
    "enas_macro_cifar10": (None, 96,  310, 100, 0.05,  0.001,  4e-4,  0.5,  1.0, 0.0, 0,  None, True),
}  # fmt: skip


IMAGENET = {"nao_imagenet": 42, "nao_v2_imagenet": 52, "darts_imagenet": 48}


@pytest.mark.parametrize("name", IMAGENET)
def test_trainings_on_imagenet_are_the_published_ones(name):
    plan, r = FULL_TRAININGS[name], Recipe.model_validate(name)
    assert (plan["size"]["channels"], plan["epochs"], plan.get("data")) == (IMAGENET[name], 250, None)
    assert (r.batch, r.momentum, r.nesterov, r.weight_decay, r.clip_norm) == (128, 0.9, False, 3e-5, 5.0)
    assert (r.auxiliary_weight, r.drop_path_keep, r.dropout, r.label_smoothing) == (0.4, 1.0, 0.0, 0.1)
    assert (r.crop_padding, r.crop_area, r.flip, r.colour_jitter, r.hue_jitter) == (0, 0.08, True, 0.4, 0.2)
    assert r.cutout == 0
    rates = [learning_rate(r, epoch, 250) for epoch in range(250)]
    assert rates == pytest.approx([0.1 * 0.97**epoch for epoch in range(250)])


def test_the_other_ways_in_which_a_rate_falls():
    one_cycle = Recipe(lr=1.0, decay="linear", rise=0.25, cosine_epochs=None)
    rates = [learning_rate(one_cycle, epoch, 8) for epoch in range(9)]
    assert rates == pytest.approx([0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])
    milestones = Recipe(lr=1.0, lr_end=0.0, decay="step", step_factor=0.1, step_epochs=30)
    assert [learning_rate(milestones, at, 90) for at in (0, 29.9, 30, 60, 89)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    again = Recipe(lr=1.0, decay="linear", cosine_epochs=2, restart_factor=2)
    assert [learning_rate(again, at, 6) for at in (0, 1, 2, 4, 5)] == pytest.approx([1, 0.5, 1, 0.5, 0.25])


@pytest.mark.parametrize("name", PUBLISHED)
def test_full_trainings_are_the_published_ones(name):
    plan, recipe = FULL_TRAININGS[name], Recipe.model_validate(name)
    assert (plan["size"].get("cells_per_stage"), plan["size"]["channels"],
            plan["epochs"], recipe.batch, recipe.lr, recipe.lr_end,
            recipe.weight_decay, recipe.dropout, recipe.drop_path_keep, recipe.auxiliary_weight, recipe.cutout,
            recipe.clip_norm, recipe.nesterov) == PUBLISHED[name]  # fmt: skip
    assert (recipe.momentum, recipe.crop_padding, recipe.flip, recipe.warmup_epochs) == (0.9, 4, True, 0)
    assert "data" not in plan, "they train on all images"
    end = learning_rate(recipe, plan["epochs"] - 1e-6, plan["epochs"])
    assert end == pytest.approx(recipe.lr_end, abs=1e-6)


TEXTS = {
    #                 H    epochs batch lr   clip  decay   out   h     x     i     words act  slow  segments    patience
    "nao_ptb":       (850, 4000, 64, 20.0, 0.25, 8e-7,   0.75, 0.25, 0.75, 0.2, 0.0, 0.0, 1e-3, "normal", 5),
    "nao_wikitext2": (700, 2000, 64, 20.0, 0.25, 5e-7,   0.75, 0.15, 0.75, 0.2, 0.0, 0.0, 1e-3, "normal", 5),
    "darts_ptb":     (850, 8000, 64, 20.0, 0.25, 8e-7,   0.75, 0.25, 0.75, 0.2, 0.1, 0.0, 1e-3, "normal", 5),
    "darts_wikitext2": (700, 8000, 64, 20.0, 0.25, 5e-7, 0.75, 0.15, 0.75, 0.2, 0.1, 0.0, 1e-3, "normal", 5),
    "enas_ptb_tpu":  (850, 482, 64, 20.0, 0.25, 1.6e-6,  0.75, 0.25, 0.75, 0.2, 0.15, 0.0, 0.0, "fixed", 5),
    "enas_ptb":      (800, 3000, 64, 20.0, 0.25, 1.6e-6, 0.75, 0.225, 0.725, 0.175, 0.125, 0.7, 0.0, "truncated", 10),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_full_trainings_of_texts_are_the_published_ones(name):
    plan, r = FULL_TRAININGS[name], Recipe.model_validate(name)
    assert (plan["size"]["hidden"], plan["epochs"], r.batch, r.lr, r.clip_norm, r.weight_decay,
            r.dropout, r.dropout_hidden, r.dropout_input, r.dropout_embedding, r.dropout_words, r.activation_penalty,
            r.slowness_penalty, r.segments, r.averaging_patience) == TEXTS[name]  # fmt: skip
    averaging = "tail" if name == "enas_ptb_tpu" else "nonmonotone"
    assert (r.momentum, r.averaging, r.text_start, plan["data"]) == (0.0, averaging, "beginning", "train")
    assert {learning_rate(r, epoch, plan["epochs"]) for epoch in (0, 1, 1000, plan["epochs"])} == {20.0}


def test_a_recipe_has_the_settings_of_its_family_alone():
    image, text = Recipe(name="short"), Recipe.model_validate("short_text")
    assert (type(image), type(text)) == (ImageRecipe, TextRecipe)
    assert "dropout_hidden" not in image.model_dump()
    assert not {"flip", "auxiliary_weight", "drop_path_keep"} & text.model_dump().keys()
    assert pickle.loads(pickle.dumps(text)) == copy.deepcopy(text) == text.model_copy()
    with pytest.raises(ValidationError, match="flip is no setting of nao_ptb, which is a recipe of texts"):
        Recipe.model_validate({"name": "nao_ptb", "flip": False})
    with pytest.raises(ValidationError, match="the recipe nao_ptb is not one of images; those are paper_search, "):
        ImageRecipe.model_validate("nao_ptb")
    for of, override, hint in (("", "drop_pth_keep", "drop_path_keep"), ("name: short_text, ", "drpout", "dropout")):
        with pytest.raises(ConfigError, match=rf"unknown key evaluator.recipe.{override}; did you mean {hint}\?"):
            RunConfig.parse(CONFIG.replace("mine.yaml", f"{{{of}{override}: 1}}"))


def test_a_recipe_of_texts_trains_no_images():
    with pytest.raises(ConfigError, match="of nao is trained by a recipe of images, and short_text is none; give"):
        RunConfig.parse(CONFIG.replace("mine.yaml", "short_text"))
    with pytest.raises(ConfigError, match="task digits is trained by a recipe of images, and short_text is none"):
        Digits(Digits.Config()).objective(torch.device("cpu"), Recipe(name="short_text"))


def test_every_full_training_has_a_recipe_of_its_last_epoch():
    others = {"darts_cifar10", "fast_cifar10", "fast_fashion", "short", "short_digits", "short_text"}
    assert {*PUBLISHED, *IMAGENET, *TEXTS, *others} == set(FULL_TRAININGS)
    assert {Recipe.model_validate(name).score for name in FULL_TRAININGS} == {"last"}


def test_the_cosine_of_enas_begins_anew_at_10_30_70_150_310():
    recipe = Recipe.model_validate("enas_micro_cifar10")
    rates = [learning_rate(recipe, epoch, 630) for epoch in range(630)]
    assert [epoch for epoch in range(1, 630) if rates[epoch] > rates[epoch - 1]] == [10, 30, 70, 150, 310]
    assert {rates[epoch] for epoch in (0, 10, 30, 70, 150, 310)} == {0.05}
    assert rates[470] == pytest.approx((0.05 + 0.0001) / 2)  # half of the last period


def test_a_file_has_what_it_says_and_the_rest_of_the_recipe_it_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{name: short, lr: 0.05}")
    assert Recipe.model_validate("mine.yaml") == Recipe.model_validate({"name": "short", "lr": 0.05})
    assert Recipe.model_validate({"name": "mine.yaml", "flip": False}).flip is False
    (tmp_path / "bare.yaml").write_text("lr: 0.05")
    assert Recipe.model_validate("bare.yaml") == Recipe(lr=0.05)
    short = {"channels": 8, "layers": 5, "epochs": 10, "data": "train"}
    assert full_training("mine.yaml", ("channels", "layers")) == {**short, "recipe": "mine.yaml"}
    assert full_training("bare.yaml", ("channels",)) == {"recipe": "bare.yaml"}


def test_a_file_is_looked_for_beside_the_config_first(tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    for folder, lr in ((tmp_path, 0.1), (tmp_path / "beside", 0.2)):
        (folder / "mine.yaml").write_text(f"lr: {lr}")
    monkeypatch.chdir(tmp_path)
    with own_modules.looking_in(tmp_path / "beside"):
        assert Recipe.model_validate("mine.yaml").lr == 0.2
    assert Recipe.model_validate("mine.yaml").lr == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no recipe file mine.yaml, neither in FOLDER"),
        ("lr: [", "cannot read recipe FOLDER/mine.yaml: line 1"),
        ("- 3", "recipe FOLDER/mine.yaml: expected a mapping of settings"),
        ("lrr: 3", "recipe FOLDER/mine.yaml: unknown key lrr; did you mean lr?"),
        ("name: other.yaml", "name is that of one of nao_ray's recipes, not other.yaml"),
        ("name: shorrt", "no recipe is named 'shorrt'"),
        ("lr: -1", "lr: Input should be greater than 0"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as told:
        RunConfig.parse(CONFIG, where="my.yaml")
    assert message.replace("FOLDER", str(tmp_path)) in str(told.value)
    assert "\n" not in str(told.value)


CONFIG = """
name: own
space: nao_cnn_small
task: digits
evaluator: {name: standalone, recipe: mine.yaml}
strategy: random_search
budget: {trials: 2}
"""


def test_a_config_reads_a_file_once(tmp_path):
    (tmp_path / "mine.yaml").write_text("{name: short, lr: 0.05}")
    (tmp_path / "own.yaml").write_text(CONFIG)
    config = RunConfig.load(tmp_path / "own.yaml", ("evaluator.recipe.flip=false",))
    (tmp_path / "mine.yaml").unlink()
    recipe = config.make_evaluator().config.recipe
    assert (recipe.name, recipe.lr, recipe.flip) == ("short", 0.05, False)
    assert RunConfig.parse(config.to_yaml()).to_yaml() == config.to_yaml()


def test_a_full_training_takes_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{name: short, lr: 0.05}")
    (tmp_path / "bare.yaml").write_text("score: last")
    what = {"space": "nao_cnn_small", "genotype": "NAONet-B", "task": "digits"}
    made = TrainConfig.make("mine.yaml", what)
    assert (made.recipe.lr, made.epochs, made.channels) == (0.05, 10, 8)
    with pytest.raises(ConfigError, match="epochs is missing"):
        TrainConfig.make("bare.yaml", what)
    assert TrainConfig.make("bare.yaml", what, ("epochs=3",)).epochs == 3


def test_the_settings_of_darts():
    """Liu, Simonyan, Yang: 0.025 to 0 in 600 epochs; drop path 0.2 e / 600."""
    recipe = Recipe.model_validate("darts_cifar10")
    assert [learning_rate(recipe, epoch, 600) for epoch in (0, 300, 600)] == pytest.approx([0.025, 0.0125, 0.0])
    assert (recipe.batch, recipe.momentum, recipe.clip_norm, recipe.auxiliary_weight) == (96, 0.9, 5.0, 0.4)
    plan = full_training("darts_cifar10", ("layers", "channels"))
    assert (plan["layers"], plan["channels"], plan["epochs"]) == (20, 36, 600)
    assert (1 - recipe.drop_path_keep, recipe.drop_path_schedule) == (pytest.approx(0.2), "epoch")
