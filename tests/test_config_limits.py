"""Constraints in a config: what is refused before anything starts, and what a pool has of them."""

from __future__ import annotations

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError

TEXT = """
name: limited
space: nao_cnn_small
task: {name: digits, limit: 200}
evaluator: {name: standalone, cells_per_stage: 1, channels: 4, epochs: 1}
strategy: random_search
budget: {trials: 6}
"""


def parse(line: str, text: str = TEXT, *overrides: str) -> RunConfig:
    return RunConfig.parse(f"{text}{line}\n", overrides)


def test_a_pool_has_them_in_one_notation_and_earlier_pools_have_none() -> None:
    config = parse('constraints: {num_params: "<=12k", latency_ms: "< 5"}')
    assert config.to_data()["constraints"] == {"num_params": "<= 12000", "latency_ms": "< 5"}
    assert RunConfig.parse(config.to_yaml()).to_data() == config.to_data()
    assert "constraints" not in parse("").to_data()


def test_the_strategy_is_given_a_space_within_them() -> None:
    space = parse('constraints: {num_params: "<= 17k", macs: "<= 2M"}').make_strategy().space
    assert space.whole is not space
    assert all("num_params is" in reason for reason in _refusals(space)), "the figures are those of the networks"


def _refusals(space):
    from nao_ray import rng

    found = [space.refusal(space.whole.sample(rng.child(0, "t", index))) for index in range(8)]
    assert None in found
    assert len(set(found)) > 1
    return [reason for reason in found if reason is not None and "macs" not in reason]


@pytest.mark.parametrize(
    ("line", "overrides", "message"),
    [
        ("constraints: {num_params: 5}", (), r'constraints\.num_params: expected a text like "<= 3.3e6", got 5'),
        ("constraints: {latency_ms: x}", (), r'constraints\.latency_ms: expected a text like "<= 5", got .x.'),
        ('constraints: {flops: "< 5"}', (), r"constraints\.flops: a training does not know it .* num_params, macs"),
    ],
)
def test_what_cannot_be_kept_is_refused(line: str, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(line, TEXT, *overrides).make_strategy()


def test_a_strategy_that_cannot_keep_them_is_refused() -> None:
    text = TEXT.replace("nao_cnn_small", "darts_cnn").replace("random_search", "darts")
    text = text.replace("{name: standalone, cells_per_stage: 1, channels: 4, epochs: 1}", "darts")
    with pytest.raises(ConfigError, match="constraints: the strategy darts cannot keep them"):
        parse('constraints: {macs: "< 1M"}', text)


def test_a_latency_cannot_be_limited_where_weights_are_shared() -> None:
    text = TEXT.replace("random_search", "shared_random_search")
    text = text.replace("{name: standalone, cells_per_stage: 1, channels: 4, epochs: 1}", "one_shot")
    with pytest.raises(ConfigError, match=r"constraints\.latency_ms: a search with shared weights does not know it"):
        parse('constraints: {latency_ms: "< 5"}', text)
