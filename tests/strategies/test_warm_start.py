"""A search of NAO that learns from earlier pools: what it asks first, when it leaves them alone, and repeats."""

from __future__ import annotations

import pytest
from _quick import QUICK
from _search import check_restored
from pydantic import ValidationError

from nao_ray import registry, rng
from nao_ray.errors import ConfigError
from nao_ray.strategies.base import Earlier
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.nao_shared import NaoSharedConfig
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Diagnostics, Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nao_cnn_small")()


def score(key: str) -> float:
    return 0.5 + 0.01 * key.split()[1::2].count("1")


def earlier(sign: float = 1.0, count: int = 40) -> Earlier:
    genotypes = dict.fromkeys(SPACE.canonical(SPACE.sample(rng.child(7, "earlier", k))).key for k in range(count))
    return Earlier("pools/earlier", tuple(genotypes), tuple(sign * score(key) for key in genotypes))


def make(*pools: Earlier, seed: int = 0) -> Nao:
    config = NaoConfig(**QUICK, warm_start=tuple(pool.pool for pool in pools))
    strategy = Nao(SPACE, config, seed=seed, fidelity=Fidelity())
    strategy.learn_from(pools)
    return strategy


def search(strategy: Nao, trials: int) -> tuple[list[Proposal], list[Diagnostics]]:
    proposals: list[Proposal] = []
    rows: list[Diagnostics] = []
    for k in range(trials):
        (proposal,) = strategy.ask(1)
        proposals.append(proposal)
        measured = Measurement(valid_accuracy=score(proposal.genotype.key))
        strategy.tell([Trial(proposal=proposal).complete(measured, log_index=k)])
        rows += strategy.diagnostics()
    return proposals, rows


def test_the_best_of_the_earlier_pool_is_asked_first_and_then_what_the_cold_search_asks() -> None:
    pool = earlier()
    warm, cold = make(pool).ask(3), make().ask(3)
    assert warm[0].genotype.key == max(pool.genotypes, key=score)
    assert [p.genotype for p in warm[1:]] == [p.genotype for p in cold[1:]], "random ones show whether it misleads"
    assert {p.round for p in warm} == {0}


def test_what_helps_is_on_and_what_misleads_is_off() -> None:
    helped, on = search(make(earlier()), 12)
    _, off = search(make(earlier(-1.0)), 12)
    cold, without = search(make(), 12)
    assert [row["warm_start"] for row in on[:2]] == ["on"] * 2, "later its own trials say as much"
    assert [row["warm_start"] for row in off[:5]] == ["off"] * 5
    for row in on + off:
        assert row["warm_start_source"] == "pools/earlier"
        assert (float(row["left_out_density_warm"]) > float(row["left_out_density_cold"])) == (
            row["warm_start"] == "on"
        )
    assert not any(name.startswith("warm_start") for row in without for name in row)
    assert [row["num_trials"] for row in on] == [row["num_trials"] for row in without], "its own trials alone"
    best = [sum(score(p.genotype.key) for p in asked[3:]) for asked in (helped, cold)]
    assert best[0] > best[1] + 0.2, "two 5x5 separable convolutions more in each of nine"


def test_the_same_seed_asks_the_same_also_after_a_break() -> None:
    assert search(make(earlier()), 8)[0] == search(make(earlier()), 8)[0]
    assert search(make(earlier()), 8)[0] != search(make(earlier(), seed=1), 8)[0]
    check_restored(lambda: make(earlier()), 10, range(0, 10, 3))


def test_nothing_is_asked_without_the_pools_that_were_named() -> None:
    strategy = Nao(SPACE, NaoConfig(**QUICK, warm_start=("pools/earlier",)), seed=0, fidelity=Fidelity())
    with pytest.raises(AssertionError, match="learn_from"):
        strategy.ask(1)


def test_who_cannot_learn_from_pools_says_so() -> None:
    with pytest.raises(ValidationError, match="warm_start needs predictor gp"):
        NaoConfig(predictor="mlp", warm_start=("pools/a",))
    with pytest.raises(ValidationError, match=r"controller\.warm_start"):
        NaoSharedConfig.model_validate({"controller": {"predictor": "gp", "warm_start": ["pools/a"]}})
    with pytest.raises(ConfigError, match="RandomSearch learns from no earlier pool"):
        RandomSearch(SPACE, RandomSearch.Config(), 0, Fidelity()).learn_from([earlier()])


def test_a_pool_alone_is_a_list_and_the_setting_of_before_has_another_name() -> None:
    assert NaoConfig.model_validate({"warm_start": "pools/a"}).warm_start == ("pools/a",)
    assert NaoConfig.model_validate({"predictor": "mlp", "warm_start": True}).keep_weights is True
    before = NaoConfig.model_validate({"preset": "v2", "warm_start": False})
    assert (before.keep_weights, before.warm_start) == (False, ())
    assert NaoConfig.model_validate({"preset": "v2"}).keep_weights is True
