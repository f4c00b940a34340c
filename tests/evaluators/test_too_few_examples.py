"""Too few examples for a step of training are a line before a pool is made, whatever would train on them."""

import pytest

from nao_ray.config import RunConfig, TrainConfig
from nao_ray.errors import DataError
from nao_ray.evaluators.parts import alpha_data
from nao_ray.service.hosting.checks import check_search
from nao_ray.service.training.train import Run, train
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.recipe import Recipe

TASK = "{name: made_up_text, words: 20, letters: 3, gap: 2, window: 9}"  # 80 tokens train: 8 columns of 10
SMALL = "hidden: 4, recipe: {name: short_text, batch: BATCH}"
SEARCHES = {
    "standalone": f"{{name: standalone, epochs: 1, {SMALL}}}\nstrategy: {{name: random_search}}",
    "standalone, a half": (
        f"{{name: standalone, epochs: 1, data_share: 0.5, {SMALL}}}\nstrategy: {{name: random_search}}"
    ),
    "one_shot": (
        "{name: one_shot, hidden: 4, recipe: {name: nao_ws_rnn, batch: BATCH}, "
        "alone: {hidden: 4, recipe: {name: short_text, batch: 2}}}\nstrategy: {name: shared_random_search}"
    ),
    "beside one_shot": (
        "{name: one_shot, hidden: 4, recipe: {name: nao_ws_rnn, batch: 2}, "
        f"alone: {{{SMALL}}}}}\nstrategy: {{name: shared_random_search}}"
    ),
    "darts": (
        "{name: darts, hidden: 4, period: 1, alphas: {share: 0.5}, recipe: {name: darts_rnn_search, batch: BATCH}, "
        "alone: {hidden: 4, recipe: {name: short_text, batch: 2}}}\nstrategy: {name: darts, epochs: 1}"
    ),
    "darts on the validation text": (
        "{name: darts, hidden: 4, period: 1, alphas: {split: valid}, recipe: {name: darts_rnn_search, batch: BATCH}, "
        "alone: {hidden: 4, recipe: {name: short_text, batch: 2}}}\nstrategy: {name: darts, epochs: 1}"
    ),
    "beside darts": (
        "{name: darts, hidden: 4, period: 1, alphas: {share: 0.5}, recipe: {name: darts_rnn_search, batch: 2}, "
        f"alone: {{{SMALL}}}}}\nstrategy: {{name: darts, epochs: 1}}"
    ),
}


@pytest.mark.parametrize(
    ("search", "batch", "says"),
    [
        ("standalone", 8, "80 tokens train, which make no step of 9 columns (evaluator.recipe.batch) and a "),
        ("standalone, a half", 4, "40 tokens train, which make no step of 5 columns (evaluator.recipe.batch)"),
        ("one_shot", 8, "80 tokens train, which make no step of 9 columns (evaluator.recipe.batch)"),
        ("beside one_shot", 8, "80 tokens train, which make no step of 9 columns (evaluator.alone.recipe.batch)"),
        ("darts", 4, "40 tokens train the weights (evaluator.alphas.share 0.5), which make no step of 5 "),
        (
            "darts on the validation text",
            2,
            "20 tokens train the alphas (evaluator.alphas.split valid), which make no step of 3 ",
        ),
        ("beside darts", 8, "80 tokens train, which make no step of 9 columns (evaluator.alone.recipe.batch)"),
    ],
)
def test_a_search_on_a_text_without_a_step_is_refused_before_its_pool(search, batch, says, tmp_path):
    def config(batch):
        text = SEARCHES[search].replace("BATCH", str(batch))
        return RunConfig.parse(
            f"name: short\nspace: darts_rnn\ntask: {TASK}\nevaluator: {text}\nbudget: {{trials: 100}}\n"
        )

    assert check_search(config(batch), str(tmp_path / "pool"))
    with pytest.raises(DataError) as caught:
        check_search(config(batch + 1), str(tmp_path / "pool"))
    assert str(caught.value).startswith(f"task made_up_text: {says}")
    assert "give a smaller batch, or more text" in str(caught.value)


@pytest.mark.parametrize(("data", "batch"), [("train", 8), ("all", 10)])
def test_a_training_on_a_text_without_a_step_is_refused_before_anything_is_made(data, batch, tmp_path):
    """20 tokens validate, and train with all data."""
    task = {"name": "made_up_text", "words": 20, "letters": 3, "gap": 2, "window": 9}
    what = {"space": {"name": "darts_rnn"}, "genotype": "0:tanh", "task": task}
    config = TrainConfig.make("short_text", what, (f"data={data}", f"recipe.batch={batch + 1}"))
    with pytest.raises(
        DataError, match=r"^task made_up_text: \d+ tokens train, which make no step of \d+ columns \(recipe.batch\)"
    ):
        train(config, str(tmp_path / "out"), "x")
    assert not (tmp_path / "out").exists()


def test_settings_of_a_trials_own_are_looked_at_too(tmp_path):
    def config(batch):
        given = f"{{name: given, genotypes: ['0:tanh', '0:tanh'], settings: [{{batch: 4}}, {{batch: {batch}}}]}}"
        return RunConfig.parse(
            f"name: short\nspace: darts_rnn\ntask: {TASK}\nevaluator: {{name: standalone, hidden: 4, recipe: "
            f"{{name: short_text, batch: 2}}}}\nstrategy: {given}\nbudget: {{trials: 2}}\n"
        )

    assert check_search(config(8), str(tmp_path / "pool"))
    with pytest.raises(
        DataError, match=r"80 tokens train, which make no step of 9 columns \(strategy\.settings\.batch\)"
    ):
        check_search(config(9), str(tmp_path / "pool"))


@pytest.mark.parametrize(
    ("task", "recipe", "workers", "message"),
    [
        (
            "made_up_text",
            "batch=5, per_worker=true",
            2,
            r"no step of 10 columns \(recipe\.batch, of 2 workers together\)",
        ),
        (
            "synthetic",
            "batch=20",
            5,
            "9 images train, and a step takes 2 for each of 5 workers; give more .*, or take few",
        ),
    ],
)
def test_workers_that_have_no_step_together_are_refused(task, recipe, workers, message, tmp_path):
    of_text = task == "made_up_text"
    data = {"words": 20, "letters": 3, "gap": 2, "window": 9} if of_text else {"limit": 10}
    cell = "0:tanh" if of_text else " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)
    what = {
        "space": {"name": "darts_rnn" if of_text else "nao_cnn_small"},
        "genotype": cell,
        "task": {"name": task, **data},
    }
    settings = [f"recipe.{setting}" for setting in recipe.split(", ")]
    name = "short_text" if of_text else "short"
    Run.of(TrainConfig.make(name, what, (*settings, f"workers={workers - 1}")), str(tmp_path), "x").check()
    with pytest.raises(DataError, match=message):
        Run.of(TrainConfig.make(name, what, (*settings, f"workers=1..{workers}")), str(tmp_path), "x").check()


def test_images_that_alphas_would_have_alone_are_refused():
    task, recipe = Synthetic(SyntheticConfig(limit=10)), Recipe(name="darts_search")  # 9 images train
    alpha_data.check(task.facts(), task, recipe, AlphaOptimiser(share=0.2))
    with pytest.raises(
        DataError, match=r"^task synthetic: 1 image train the alphas \(.*share 0.1\), and a step takes 2"
    ):
        alpha_data.check(task.facts(), task, recipe, AlphaOptimiser(share=0.1))


def test_no_more_workers_train_together_than_images_allow():
    """Of 9 images, in a batch of 144."""
    config = RunConfig.parse(
        "name: few\nspace: nao_cnn_small\ntask: {name: synthetic, limit: 10}\nevaluator: {name: one_shot}\n"
        "strategy: {name: shared_random_search}\nbudget: {trials: 100}\n"
    )
    assert config.make_evaluator().trained_by == 1
