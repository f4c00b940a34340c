"""Nothing that breaks a constraint is asked for, by any strategy, and a restored search goes on alike."""

from __future__ import annotations

from functools import cache

import pytest
from _search import check_restored, search

from nao_ray import registry
from nao_ray.errors import ConfigError
from nao_ray.limits import Limits
from nao_ray.spaces.parts.within import within
from nao_ray.strategies.base import Strategy
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial

SPACE = registry.load("space", "nao_cnn_small")()
QUICK = {"pretraining": {"steps": 20, "genotypes": 60}, "fit": {"epochs": 5}, "candidates": 20, "neighbours": 2}
STRATEGIES = {
    "random_search": {},
    "regularized_evolution": {"population": 5, "sample": 3},
    "local_search": {},
    "reinforce": {"redraws": 20},
    "nao": {"round_size": 4, **QUICK},
}
OTHERS = {
    "nao": {"preset": "paper", "seeds": 5, "rounds": 2, "round_size": 4, **QUICK},
    "reinforce": {"policy": "lstm", "lstm": {"num_aggregate": 4}},
}


@cache
def convolutions(genotype):
    cells = SPACE.lower(genotype).cells
    return {"convolutions": sum("conv" in edge.op for _, cell in cells for node in cell.nodes for edge in node)}


def make(name: str, limit: str = "<= 6", **settings: object) -> Strategy:
    space = within(SPACE, Limits({"convolutions": limit}), convolutions)
    cls = registry.load("strategy", name)
    return cls(space, cls.Config(**settings), 1, Fidelity())


@pytest.mark.parametrize(
    ("name", "settings"), [*STRATEGIES.items(), *OTHERS.items()], ids=[*STRATEGIES, "nao paper", "reinforce lstm"]
)
def test_nothing_outside_is_asked(name, settings):
    trials = search(make(name, **settings), 14)
    counts = [convolutions(trial.genotype)["convolutions"] for trial in trials]
    assert len(counts) >= 11
    assert 5 <= max(counts) <= 6, "up to the limit, and no further"


@pytest.mark.parametrize("name", ["nao", "regularized_evolution", "local_search"])
def test_a_search_within_limits_is_restored_from_its_log(name):
    check_restored(lambda: make(name, **STRATEGIES[name]), 8, range(6, 7))


@pytest.mark.parametrize("name", ["nao_shared", "enas", "shared_random_search"])
def test_nothing_outside_is_trained_or_scored_with_shared_weights(name):
    own = {
        "nao_shared": {"pool": 6, "controller": {"preset": "default", "predictor": "gp", "round_size": 3, **QUICK}},
        "enas": {"paths": 6, "updates": 1, "candidates": 5, "lstm": {"num_aggregate": 3}},
        "shared_random_search": {"paths": 6, "scored": 5},
    }
    strategy = make(name, "<= 8", rounds=2, epochs=1, finalists=2, audited=0, **own[name])
    seen: list[str] = []
    while not strategy.done:
        for proposal in strategy.ask(100):
            phase = proposal.phase
            seen += [proposal.genotype.key] if phase is None else phase.genotypes
            scored = Measurement(train_loss=1.0) if phase else Measurement(valid_accuracy=_score(proposal))
            strategy.tell([Trial(proposal=proposal, attempt=1).complete(scored, log_index=strategy.num_told)])
    counts = [convolutions(SPACE.parse(text))["convolutions"] for text in seen]
    assert len(counts) > 15
    assert max(counts) <= 8


def _score(proposal: Proposal) -> float:
    return 0.3 + 0.001 * sum(map(int, proposal.genotype.key.split()))


@pytest.mark.parametrize("name", ["given", "nao"])
def test_what_is_given_and_outside_is_refused_by_its_setting(name):
    text = next(genotype.key for genotype in map(SPACE.sample, _generators()) if _is_outside(genotype))
    settings = {"given": {"genotypes": [text]}, "nao": {"seed_genotypes": [text]}}[name]
    key = next(iter(settings))
    with pytest.raises(ConfigError, match=rf"strategy\.{key}: .* is outside of the constraints: convolutions is"):
        make(name, **settings)


def _generators():
    from nao_ray import rng

    return (rng.child(0, "given", index) for index in range(100))


def _is_outside(genotype):
    return convolutions(genotype)["convolutions"] > 6


def test_a_strategy_that_forgets_is_stopped():
    class Forgets(registry.load("strategy", "random_search")):
        def propose(self, k, rng):
            return Proposal(genotype=self.space.whole.sample(rng))

    strategy = Forgets(within(SPACE, Limits({"convolutions": "<= 0"}), convolutions), Forgets.Config(), 0, Fidelity())
    with pytest.raises(ConfigError, match="was to be asked for, and convolutions is"):
        strategy.ask(1)


def test_random_search_ends_where_all_that_is_within_was_asked():
    few = registry.load("space", "nas_bench_201")
    space = few(few.Config(ops=["skip_connect", "nor_conv_1x1"]))
    limits = Limits({"convolutions": "<= 1"})
    strategy = registry.load("strategy", "random_search")
    limited = within(space, limits, lambda genotype: {"convolutions": genotype.key.count("nor_conv_1x1")})
    asked = strategy(limited, strategy.Config(), 0, Fidelity()).ask(100)
    within_limits = {space.canonical(genotype).key for genotype in _all(space) if genotype.key.count("nor") <= 1}
    assert {proposal.genotype.key for proposal in asked} == {
        key for key in within_limits if key.count("nor_conv_1x1") <= 1
    }
    assert len(asked) < 100


def _all(space):
    import itertools

    import numpy as np

    for row in itertools.product((1, 2), repeat=space.length):
        yield space.decode(np.array(row))
