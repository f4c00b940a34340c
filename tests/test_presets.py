import pytest

from nao_ray.config import RunConfig
from nao_ray.preset_files import PRESETS


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_a_config_named_like_its_file(path):
    config = RunConfig.load(path)
    assert config.name == path.stem
    assert RunConfig.parse(config.to_yaml()).to_yaml() == config.to_yaml()
    config.make_strategy()
    config.make_evaluator()


def test_the_published_search_is_the_papers():
    config = RunConfig.load(PRESETS / "nao_cnn.yaml")
    evaluator = config.make_evaluator()
    fidelity = evaluator.fidelity(evaluator.config)
    assert (dict(fidelity.size), fidelity.epochs) == ({"cells_per_stage": 3, "channels": 32}, 25)
    assert evaluator.config.recipe.lr == 0.024
    assert evaluator.config.recipe.score == "best"


def test_the_main_job_has_seeds_and_two_rounds():
    config = RunConfig.load(PRESETS / "digits.yaml")
    strategy = config.make_strategy()
    assert strategy.config.seeds + 2 * strategy.config.round_size == config.budget.trials >= 60
