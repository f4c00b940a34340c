"""What is wrong with a config stands in one line with its place, what was expected, and no more of it than that."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError

CONFIG = """
name: lines
space: darts_cnn
task: {name: synthetic, classes: 2, per_class: 20}
evaluator:
  name: darts
  recipe: {name: darts_search, batch: 8, crop_padding: 1}
  alone: {layers: 1, channels: 2, recipe: {name: short, batch: 16}}
strategy: {name: darts, seeds: 2}
budget: {trials: 100}
"""


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("evaluator.alone={name: foo}", "evaluator.alone.name: expected standalone or tabular, got 'foo'"),
        ("evaluator.alone=tabular", "evaluator.alone: expected settings, a mapping, got 'tabular'"),
        (
            "evaluator.alone={name: tabular, path: x, valids: 3}",
            "unknown key evaluator.alone.valids; did you mean valid?",
        ),
        (
            "evaluator.recipe.name=darts_serch",
            "evaluator.recipe.name: no recipe is named 'darts_serch'; did you mean darts_search?",
        ),
        (
            "evaluator.recipe.precision=bfloat16",
            "evaluator.recipe.precision: a relaxed supernet trains in float32, of whose last digits the alphas' "
            "gradient is made; give auto or float32",
        ),
        ("evaluator.recipe=[1, 2]", "evaluator.recipe: expected settings, a mapping, got [1, 2]"),
        ("evaluator.recipe.batch=many", "got 'many'"),
    ],
)
def test_it_names_the_setting_and_leaves_the_others_out(override, says):
    """Whole sections were repeated, wrong keys of a table were looked for among a training's, and a list for a recipe
    ended in an error of Python's."""
    with pytest.raises(ConfigError) as caught:
        RunConfig.parse(CONFIG, [override])
    assert str(caught.value).endswith(says)
    assert caught.value.key.startswith(override.partition("=")[0])
