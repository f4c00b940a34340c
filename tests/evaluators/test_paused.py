"""Rungs of a ladder: a training pauses with its state kept, and its child goes on from there, on any worker."""

import json
from dataclasses import replace

import numpy as np
import pytest

from nao_ray.evaluators.standalone import Standalone
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.training.checkpoint import pack, read_about, unpack
from nao_ray.training.trainer import Trainer
from nao_ray.trial import Fidelity, Proposal

SPACE = NaoCnnSmall(NaoCnnSmall.Config())
RUNGS = (1, 2, 4)
RECIPE = {"name": "short_digits", "batch": 36, "drop_path_keep": 0.8, "lr": 0.3}


class Kept:
    """The states of a pool, by trial; with `dies_at`, its worker dies once so many are written."""

    def __init__(self, every=False):
        self.states, self.every, self.dies_at = {}, every, None

    def kept(self, proposal):
        return self.states.get(proposal.trial_id)

    def is_due(self):
        return self.every

    def keep(self, proposal, state):
        self.states[proposal.trial_id] = state
        if self.dies_at == len(self.states):
            self.dies_at = None
            raise KeyboardInterrupt


def evaluator(keeper=None, rungs=RUNGS, recipe=RECIPE):
    config = Standalone.settings(SPACE)(cells_per_stage=1, channels=4, epochs=4, recipe=recipe)
    one = Standalone(SPACE, Synthetic(SyntheticConfig(per_class=20, noise=0.2)), config)
    one.rungs, one.keeper = rungs, keeper
    return one


def rungs(seed=7):
    """The proposals of one family."""
    first = Proposal(genotype=SPACE.sample(np.random.default_rng(0)), seed=seed, trial_id=10)
    return [
        replace(first, trial_id=10 + k, parent_trial_id=None if k == 0 else 9 + k, fidelity=Fidelity(epochs=epochs))
        for k, epochs in enumerate(RUNGS)
    ]


@pytest.fixture(scope="module")
def unbroken():
    (*_, last) = rungs()
    found = evaluator(rungs=()).evaluate(last)
    assert len(set(found.curve)) > 1, "else nothing is told apart"
    return found


def figures(measurement):
    return measurement.valid_accuracy, measurement.valid_loss, measurement.curve


def test_rungs_on_three_workers_end_as_one_training_to_the_same_bit(unbroken):
    kept = Kept()
    found = [evaluator(kept).evaluate(proposal) for proposal in rungs()]
    assert figures(found[-1]) == figures(unbroken)
    assert [each.curve for each in found] == [unbroken.curve[:epochs] for epochs in RUNGS], "the schedule is the top's"
    assert [each.valid_accuracy for each in found] == [unbroken.curve[epochs - 1] for epochs in RUNGS]
    assert set(kept.states) == {10, 11}, "the top rung pauses nowhere"


def test_a_rung_takes_its_own_time_and_trains_its_own_epochs(monkeypatch):
    trained, whole = [], Trainer.epoch
    monkeypatch.setattr(Trainer, "epoch", lambda self: (trained.append(self.epochs_done), whole(self))[1])
    kept, (first, second, _) = Kept(), rungs()
    evaluator(kept).evaluate(first)
    kept.states[10] = _slower(kept.states[10], 1000.0)
    measured = evaluator(kept).evaluate(second)
    assert trained == [0, 1]
    assert 0 < measured.wall_seconds < 1000.0


def _slower(state, seconds):
    return pack(unpack(state), json.dumps({**json.loads(read_about(state)), "wall_seconds": seconds}))


@pytest.mark.parametrize("lost", ["missing", "damaged", "of another seed"])
def test_without_its_parents_state_a_rung_trains_from_the_start(lost, unbroken):
    kept, (first, second, _) = Kept(), rungs()
    if lost == "damaged":
        kept.states[10] = b"no safetensors"
    if lost == "of another seed":
        evaluator(kept).evaluate(replace(first, seed=8))
    assert evaluator(kept).evaluate(second).curve == unbroken.curve[:2]


@pytest.mark.parametrize("dies_at", [1, 2, 3])
def test_a_worker_that_dies_on_a_rung_costs_no_bit(dies_at, unbroken):
    """At a state within a rung, and at the one that it pauses with, before it could tell."""
    kept = Kept(every=True)
    kept.dies_at = dies_at
    found = []
    for proposal in rungs():
        for _ in range(2):
            try:
                found.append(evaluator(kept).evaluate(proposal))
                break
            except KeyboardInterrupt:
                continue
    assert [each.curve for each in found] == [unbroken.curve[:epochs] for epochs in RUNGS]
    assert figures(found[-1]) == figures(unbroken)
    assert all(each.wall_seconds > 0 for each in found)


def test_without_a_keeper_rungs_are_trained_all_the_same(unbroken):
    (*_, last) = rungs()
    assert figures(evaluator().evaluate(last)) == figures(unbroken)


def test_a_recipe_that_takes_its_best_epoch_looks_at_those_below():
    recipe = {**RECIPE, "score": "best"}
    kept = Kept()
    found = [evaluator(kept, recipe=recipe).evaluate(proposal) for proposal in rungs()]
    (*_, last) = rungs()
    assert figures(found[-1]) == figures(evaluator(rungs=(), recipe=recipe).evaluate(last))
