"""Shared weights of recurrent cells behind the lower seam."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError

CONFIG = """
name: cells
space: {name: nao_rnn, nodes: 3}
task: {name: made_up_text, words: 60, letters: 3, gap: 1}
evaluator: one_shot
strategy: shared_random_search
budget: {trials: 8}
"""


@pytest.mark.parametrize(
    ("space", "recipe", "batch"),
    [
        ("{name: nao_rnn, nodes: 3}", "nao_ws_rnn", 256),
        ("enas_rnn", "enas_rnn_search", 128),
    ],
)
def test_the_recipe_is_that_of_the_space(space, recipe, batch):
    config = RunConfig.parse(CONFIG.replace("{name: nao_rnn, nodes: 3}", space)).evaluator_config
    assert (config.recipe.name, config.recipe.batch, config.alone.recipe.name) == (recipe, batch, "short_text")
    assert config.batch == batch, "columns that a score is taken on"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("averaging=nonmonotone", "recipe.averaging: shared weights are those of the last step, not a mean; give none"),
        ("restarts=2", "recipe.restarts: shared weights do not go back to an earlier epoch; give 0"),
    ],
)
def test_what_shared_weights_have_none_of_is_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig.parse(CONFIG, (f"evaluator.recipe.{setting}", "evaluator.recipe.name=nao_ws_rnn"))
