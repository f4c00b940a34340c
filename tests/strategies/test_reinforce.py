"""REINFORCE: the gradient, the baseline, and what is asked."""

import numpy as np
import pytest
import torch

from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies._reinforce_config import ReinforceConfig
from nao_ray.strategies.reinforce import Reinforce
from nao_ray.trial import Fidelity, Measurement, Proposal, Trial
from tests.strategies._search import check_restored, search


def strategy(space=None, seed=0, **settings):
    return Reinforce(space or NasBench201(), ReinforceConfig(**settings), seed, Fidelity())


def test_the_first_policy_is_uniform_over_legal_tokens():
    for space in (NasBench201(), NaoCnnSmall()):
        policy = strategy(space).policy.probabilities
        legal = space.token_mask
        uniform = legal / legal.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(policy, uniform, atol=3e-3)
        assert (policy[~legal] == 0).all()


def test_updates_are_those_of_torchs_adam_on_the_policy_loss():
    space = NasBench201()
    mine = strategy(space, learning_rate=0.05, baseline_decay=0.8)
    logits = torch.tensor(mine.policy.logits[:, 1:], requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    draw, total, weight = np.random.default_rng(3), 0.0, 0.0
    for k in range(30):
        genotype, score = space.sample(draw), float(draw.random())
        mine.tell([Trial(proposal=Proposal(genotype=genotype, trial_id=k)).complete(Measurement(valid_accuracy=score))])
        total, weight = 0.8 * total + 0.2 * score, 0.8 * weight + 0.2
        chosen = torch.tensor(space.encode(genotype) - 1)
        log_prob = torch.log_softmax(logits, dim=1)[torch.arange(6), chosen]
        optimizer.zero_grad()
        (-log_prob * (score - total / weight)).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(mine.policy.probabilities[:, 1:], torch.softmax(logits, 1).detach().numpy(), rtol=1e-6)


def test_it_learns_which_operation_is_good():
    space = NasBench201()
    mine = strategy(space, learning_rate=0.1)
    conv = space.ops.index("nor_conv_3x3") + 1
    before = mine.policy.probabilities[:, conv].mean()
    for _ in range(150):
        (proposal,) = mine.ask(1)
        share = float(np.mean(np.array(proposal.tokens) == conv))
        mine.tell([Trial(proposal=proposal).complete(Measurement(valid_accuracy=share))])
    assert before == pytest.approx(0.2, abs=0.01)
    assert mine.policy.probabilities[:, conv].mean() > 0.5


def test_failed_trials_teach_nothing():
    mine = strategy()
    before = mine.policy.probabilities
    search(mine, 20, fails=lambda k: True)
    np.testing.assert_array_equal(mine.policy.probabilities, before)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_restored_anywhere_it_goes_on_the_same(in_flight):
    check_restored(lambda: strategy(learning_rate=0.2), 60, range(0, 60, 7), in_flight=in_flight)


def test_an_architecture_is_asked_once_even_by_a_policy_that_is_sure():
    space = NasBench201(NasBench201Config(ops=("none", "nor_conv_3x3")))
    mine = strategy(space, learning_rate=5.0, redraws=3)
    trials = search(mine, 1000)
    keys = [trial.genotype.key for trial in trials]
    assert len(set(keys)) == len(keys) == space.num_architectures
    assert mine.done


def test_other_seeds_other_proposals():
    first, again, other = (search(strategy(seed=seed), 10) for seed in (1, 1, 2))
    assert first == again != other
