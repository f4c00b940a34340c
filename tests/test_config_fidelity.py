"""The section `fidelity` of a configuration."""

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.strategies.parts.ladder import Ladder

TEXT = """
name: test
space: nao_cnn_small
task: {name: digits}
evaluator: {name: standalone, epochs: 5, channels: 4}
strategy: random_search
budget: {trials: 9}
"""
LADDER = "fidelity: {epochs: [2, 4, 8], keep: 0.5}\n"


def test_the_last_rung_is_a_whole_training():
    config = RunConfig.parse(TEXT + LADDER)
    strategy, evaluator = config.make_strategy(), config.make_evaluator()
    assert isinstance(strategy, Ladder)
    assert strategy.ask(1)[0].fidelity.epochs == 2
    assert (evaluator.rungs, evaluator.config.epochs) == ((2, 4, 8), 8)


def test_it_is_written_out_and_read_back_and_left_out_where_there_is_none():
    config = RunConfig.parse(TEXT + LADDER)
    data = config.to_data()
    assert data["fidelity"] == {"epochs": [2, 4, 8], "keep": 0.5}
    assert data["evaluator"]["epochs"] == 8
    assert RunConfig.parse(config.to_yaml()).to_data() == data
    assert "fidelity" not in RunConfig.parse(TEXT).to_data()


def test_it_can_be_set_from_the_shell_and_a_third_goes_on_unless_told():
    assert RunConfig.parse(TEXT, ("fidelity.epochs=[3,9]",)).fidelity.keep == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("epochs: [3]", "fidelity.epochs: .*at least 2 items"),
        ("epochs: [3, 3]", "fidelity.epochs: expected whole numbers from 1 that ascend"),
        ("epochs: [9, 3]", "fidelity.epochs: expected whole numbers from 1 that ascend"),
        ("epochs: [0, 3]", "fidelity.epochs: expected whole numbers from 1 that ascend"),
        ("epochs: [3, 9], keep: 1", "fidelity.keep: .*less than 1"),
        ("epochs: [3, 9], keep: 0", "fidelity.keep: .*greater than 0"),
        ("epochs: [3, 9], kept: 0.5", "unknown key fidelity.kept; did you mean keep"),
    ],
)
def test_a_ladder_that_cannot_be_is_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig.parse(f"{TEXT}fidelity: {{{given}}}")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("evaluator.repeats=2",), "fidelity: evaluator.repeats is 2"),
        (("strategy.name=enas", "space=enas_micro", "evaluator={name: one_shot}"), "enas trains shared weights"),
        (("evaluator={name: told}",), "fidelity: the evaluator Told trains no network"),
        (("evaluator={name: faulty}",), "fidelity: the evaluator Faulty trains no network"),
    ],
)
def test_where_nothing_can_pause_it_is_refused(overrides, told):
    with pytest.raises(ConfigError, match=told):
        RunConfig.parse(TEXT + LADDER, overrides)
