"""What every strategy keeps: new files under strategies/ are tested the moment they exist."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import _forks
import pytest

from nao_ray import registry, rng
from nao_ray.contracts import strategies as contract
from nao_ray.strategies.base import Strategy

SPACE = "nao_cnn_small"


def _genotypes(count: int) -> list[str]:
    space = registry.load("space", SPACE)()
    return list(dict.fromkeys(space.sample(rng.child(0, "given", k)).key for k in range(count)))


PRETRAINED: dict[str, Any] = {"pretraining": {"steps": 2, "genotypes": 16}}
FEW: dict[str, Any] = {"top_k": 3, "step_sizes": (1.0, 3.0), "neighbours": 4, "candidates": 24}
"""Candidates of a fit; what a strategy must keep does not depend on how many there are."""
PUBLISHED: dict[str, Any] = {**FEW, "predictor": "mlp", "epd": {"hidden": 16, "embedding": 8}}
"""The controller's published parts, narrow."""
TINY: dict[str, Any] = {**FEW, "round_size": 4, "fit": {"epochs": 1}, **PRETRAINED}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "nao": [
        {"seeds": 6, **FEW, **PRETRAINED},
        {"seeds": 8, "mode": "rounds", "round_size": 6, **FEW, **PRETRAINED},
        {**PUBLISHED, "mode": "rounds", "seeds": 8, "round_size": 6, "fit": {"epochs": 1}},
        {**PUBLISHED, "mode": "steady", "seeds": 6, "round_size": 5, "fit": {"epochs": 1}, "keep_weights": True}
        | {"epd": {"hidden": 16, "embedding": 8, "encoder": "lstm", "decoder": "steps"}},
    ],
    "imported": [],  # asks for nothing
    "given": [{"genotypes": _genotypes(60)}],
    "regularized_evolution": [{"population": 8, "sample": 3}],
    "nao_shared": [
        {"rounds": 4, "epochs": 3, "epochs_per_version": 2, "pool": 6, "audited": 3, "controller": TINY},
        {"preset": "nao_v2", "rounds": 2, "epochs": 1, "pool": 6, "controller": {"predictor": "gp", **TINY}},
    ],
    "shared_random_search": [{"rounds": 3, "epochs": 2, "paths": 5, "scored": 9, "finalists": 2, "audited": 3}],
    "enas": [{"rounds": 4, "paths": 6, "updates": 2, "candidates": 8, "lstm": {"num_aggregate": 3}}],
    "darts": [{"seeds": 2, "epochs": 1}],
    "reinforce": [{}, {"policy": "lstm", "lstm": {"num_aggregate": 5, "learning_rate": 0.1}}],
}
SPACES = {"darts": "darts_cnn"}
"""Of strategies that need a space with alphas; of others `nao_cnn_small`."""
CASES = [(name, settings) for name in registry.names("strategy") for settings in SETTINGS.get(name, [{}])]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]
ALONE = [case for case in CASES if not registry.load("strategy", case[0]).shares_weights]
"""Strategies without shared weights: they ask an architecture once, and a failure is the next one's turn."""
ALONE_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(ALONE)]
DRAWN = [case for case in CASES if case[0] != "given"]
"""Strategies whose architectures depend on the seed."""
DRAWN_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(DRAWN)]


def maker(name: str, settings: dict[str, Any]) -> contract.Maker:
    return contract.Maker(registry.load("strategy", name), settings, registry.load("space", SPACES.get(name, SPACE)))


def make(name: str, settings: dict[str, Any], seed: int = 3) -> Strategy[Any]:
    return maker(name, settings)(seed)


@pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
@pytest.mark.parametrize("width", [1, 3])
def test_a_restored_strategy_goes_on_as_if_nothing_had_happened(
    name: str, settings: dict[str, Any], width: int
) -> None:
    contract.goes_on_after_a_break(maker(name, settings), (width,))


@pytest.mark.parametrize(("name", "settings"), ALONE, ids=ALONE_IDS)
def test_it_goes_on_with_failures_that_are_asked_again(name: str, settings: dict[str, Any]) -> None:
    contract.goes_on_with_failures_asked_again(maker(name, settings))


@pytest.mark.parametrize(("name", "settings"), ALONE, ids=ALONE_IDS)
def test_proposals_are_legal_new_and_numbered(name: str, settings: dict[str, Any]) -> None:
    contract.proposals_are_legal_new_and_numbered(maker(name, settings))


@pytest.mark.parametrize(("name", "settings"), DRAWN, ids=DRAWN_IDS)
def test_another_seed_is_another_search(name: str, settings: dict[str, Any]) -> None:
    first, second = (contract.World(make(name, settings, seed), width=1) for seed in (3, 4))
    first.advance(4)
    second.advance(4)
    assert [p.genotype for p in first.proposals] != [p.genotype for p in second.proposals]


_ELSEWHERE = """
import json, sys
sys.path[:0] = sys.argv[1:]
from test_strategies import CASES, proposed
json.dump([proposed(*case) for case in CASES], sys.stdout)
"""


def proposed(name: str, settings: dict[str, Any]) -> list[list[Any]]:
    """What a strategy proposes in a search of 16, as plain data."""
    world = contract.World(make(name, settings), width=1)
    world.advance(16)
    return [[p.genotype.key, p.seed, p.embedding, p.predicted_score] for p in world.proposals]


@pytest.fixture(scope="module")
def elsewhere() -> list[list[list[Any]]]:
    """What each proposes in another process, one for all."""
    command = [sys.executable, "-c", _ELSEWHERE, *map(str, Path(__file__).parents[:2])]
    ran = _forks.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_the_same_in_another_process(number: int, elsewhere: list[list[list[Any]]]) -> None:
    assert elsewhere[number] == json.loads(json.dumps(proposed(*CASES[number])))


@pytest.mark.parametrize(("name", "settings"), ALONE, ids=ALONE_IDS)
def test_only_failures_end_in_no_dead_end(name: str, settings: dict[str, Any]) -> None:
    contract.only_failures_end_in_no_dead_end(maker(name, settings))
