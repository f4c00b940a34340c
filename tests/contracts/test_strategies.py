"""What every strategy keeps: new files under strategies/ are tested the moment they exist."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nao_ray import registry, rng
from nao_ray.strategies.base import Strategy
from nao_ray.strategies.parts.shared_search import SharedSearch
from nao_ray.trial import FailureKind, Fidelity, Measurement, Proposal, Trial


def _genotypes(count: int) -> list[str]:
    space = registry.load("space", "nao_cnn_small")()
    return list(dict.fromkeys(space.sample(rng.child(0, "given", k)).key for k in range(count)))


TINY: dict[str, Any] = {"round_size": 4, "fit": {"epochs": 3}, "pretraining": {"steps": 20, "genotypes": 50}}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "nao": [
        {"seeds": 6, "pretraining": {"steps": 20, "genotypes": 50}},
        {"seeds": 8, "mode": "rounds", "round_size": 6, "pretraining": {"steps": 20, "genotypes": 50}},
        {"predictor": "mlp", "mode": "rounds", "seeds": 8, "round_size": 6, "fit": {"epochs": 3}},
        {"predictor": "mlp", "mode": "steady", "seeds": 6, "round_size": 5, "fit": {"epochs": 2}, "warm_start": True},
    ],
    "given": [{"genotypes": _genotypes(60)}],
    "regularized_evolution": [{"population": 8, "sample": 3}],
    "nao_shared": [
        {"rounds": 4, "epochs": 3, "epochs_per_version": 2, "pool": 6, "audited": 3, "controller": TINY},
        {"preset": "nao_v2", "rounds": 2, "epochs": 1, "pool": 6, "controller": {"predictor": "gp", **TINY}},
    ],
    "shared_random_search": [{"rounds": 3, "epochs": 2, "paths": 5, "scored": 9, "finalists": 2, "audited": 3}],
    "enas": [{"rounds": 4, "paths": 6, "updates": 2, "candidates": 8, "lstm": {"num_aggregate": 3}}],
    "reinforce": [{}, {"policy": "lstm", "lstm": {"num_aggregate": 5, "learning_rate": 0.1}}],
}
CASES = [(name, settings) for name in registry.names("strategy") for settings in SETTINGS.get(name, [{}])]
IDS = [f"{name}-{number}" for number, (name, _) in enumerate(CASES)]
ALONE = [case for case in CASES if not issubclass(registry.load("strategy", case[0]), SharedSearch)]
"""Strategies without shared weights: they ask an architecture once, and a failure is the next one's turn."""
ALONE_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(ALONE)]
DRAWN = [case for case in CASES if case[0] != "given"]
"""Strategies whose architectures depend on the seed."""
DRAWN_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(DRAWN)]
NUM_TRIALS = 26


def make(name: str, settings: dict[str, Any], seed: int = 3) -> Strategy[Any]:
    cls = registry.load("strategy", name)
    space = registry.load("space", "nao_cnn_small")()
    return cls(space, cls.Config(**settings), seed, Fidelity(epochs=1))


def finish(proposal: Proposal, log_index: int) -> Trial:
    """Every fifth trial fails; the others are scored by their operations, with a little noise."""
    trial = Trial(proposal=proposal, attempt=1)
    if proposal.phase is not None:
        return trial.complete(Measurement(train_loss=1.0), log_index=log_index)
    if proposal.trial_id % 5 == 4:
        return trial.fail(FailureKind.ERROR, "out of luck", log_index=log_index)
    ops = [int(word) for word in proposal.genotype.key.split()[1::2]]
    noise = 0.01 * rng.child(proposal.seed, "noise").normal()
    return trial.complete(Measurement(valid_accuracy=0.5 + 0.02 * ops.count(1) - 0.01 * ops.count(4) + noise),
                          log_index=log_index)  # fmt: skip


class World:
    """A search in this process with `width` trials in flight; first come, first finished."""

    def __init__(self, strategy: Strategy[Any], width: int, log: Sequence[Trial] = ()) -> None:
        self.strategy, self.width = strategy, width
        self.trials = {trial.trial_id: trial for trial in log}
        self.finished = sum(trial.log_index is not None for trial in log)
        strategy.restore(log)

    def advance(self, num_asked: int) -> None:
        """Until `num_asked` trials were asked; what is in flight stays so."""
        while len(self.trials) < num_asked:
            running = [trial for trial in self.trials.values() if trial.log_index is None]
            if len(running) < self.width:
                for proposal in self.strategy.ask(1):
                    self.trials[proposal.trial_id] = Trial(proposal=proposal)
                    break
                else:
                    assert running, "stuck"
                    self.end(running[0])
            else:
                self.end(running[0])

    def end(self, trial: Trial) -> None:
        done = finish(trial.proposal, self.finished)
        self.finished += 1
        self.trials[trial.trial_id] = done
        self.strategy.tell([done])

    @property
    def proposals(self) -> list[Proposal]:
        return [self.trials[k].proposal for k in sorted(self.trials)]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=IDS)
@pytest.mark.parametrize("width", [1, 3])
def test_a_restored_strategy_goes_on_as_if_nothing_had_happened(
    name: str, settings: dict[str, Any], width: int
) -> None:
    unbroken = World(make(name, settings), width)
    unbroken.advance(NUM_TRIALS)
    for broken_at in (3, 12, 19):
        before = World(make(name, settings), width)
        before.advance(broken_at)
        after = World(make(name, settings), width, log=list(before.trials.values()))
        after.advance(NUM_TRIALS)
        assert after.proposals == unbroken.proposals, f"broken at {broken_at}"


@pytest.mark.parametrize(("name", "settings"), ALONE, ids=ALONE_IDS)
def test_proposals_are_legal_new_and_numbered(name: str, settings: dict[str, Any]) -> None:
    strategy = make(name, settings)
    world = World(strategy, width=2)
    world.advance(NUM_TRIALS)
    keys = [proposal.genotype.key for proposal in world.proposals]
    assert len(set(keys)) == len(keys), "an architecture was asked twice"
    for k, proposal in enumerate(world.proposals):
        strategy.space.validate(proposal.genotype)
        assert strategy.space.canonical(proposal.genotype) == proposal.genotype
        assert proposal.trial_id == k
        assert proposal.tokens == tuple(strategy.space.encode(proposal.genotype).tolist())
        assert 0 <= proposal.asked_after <= k
        assert proposal.fidelity == Fidelity(epochs=1)


@pytest.mark.parametrize(("name", "settings"), DRAWN, ids=DRAWN_IDS)
def test_another_seed_is_another_search(name: str, settings: dict[str, Any]) -> None:
    first, second = (World(make(name, settings, seed), width=1) for seed in (3, 4))
    first.advance(4)
    second.advance(4)
    assert [p.genotype for p in first.proposals] != [p.genotype for p in second.proposals]


_ELSEWHERE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_strategies import CASES, proposed
json.dump([proposed(*case) for case in CASES], sys.stdout)
"""


def proposed(name: str, settings: dict[str, Any]) -> list[list[Any]]:
    """What a strategy proposes in a search of 16, as plain data."""
    world = World(make(name, settings), width=1)
    world.advance(16)
    return [[p.genotype.key, p.seed, p.embedding, p.predicted_score] for p in world.proposals]


@pytest.fixture(scope="module")
def elsewhere() -> list[list[list[Any]]]:
    """What each proposes in another process, one for all."""
    command = [sys.executable, "-c", _ELSEWHERE, str(Path(__file__).parent)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_the_same_in_another_process(number: int, elsewhere: list[list[list[Any]]]) -> None:
    assert elsewhere[number] == json.loads(json.dumps(proposed(*CASES[number])))


@pytest.mark.parametrize(("name", "settings"), ALONE, ids=ALONE_IDS)
def test_only_failures_end_in_no_dead_end(name: str, settings: dict[str, Any]) -> None:
    strategy = make(name, settings)
    for k in range(20):
        (proposal,) = strategy.ask(1)
        strategy.tell([Trial(proposal=proposal, attempt=1).fail(FailureKind.NAN, "nan", log_index=k)])
    assert strategy.num_asked == 20
