"""REINFORCE: the gradient, the baseline, and what is asked."""

import numpy as np
import pytest
import torch

from nao_ray import rng
from nao_ray.controllers.lstm import make_policy
from nao_ray.controllers.policy_gradient import PolicyGradient
from nao_ray.spaces.darts_cnn import DartsCnn
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig
from nao_ray.spaces.enas_micro import EnasMicro
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies.parts.reinforce_config import ReinforceConfig
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


# -- policy: lstm ------------------------------------------------------------------------------------------


def lstm(space=None, seed=0, redraws=100, preset="default", **settings):
    config = ReinforceConfig(preset=preset, policy="lstm", redraws=redraws, lstm=settings)
    return Reinforce(space or NasBench201(), config, seed, Fidelity())


def weights(mine):
    return torch.cat([parameter.detach().flatten() for parameter in mine.policy.network.parameters()])


def finished(proposal, score):
    return Trial(proposal=proposal).complete(Measurement(valid_accuracy=score))


def test_presets_are_the_published_scripts():
    macro, micro = (ReinforceConfig(preset=name) for name in ("enas_macro", "enas_micro"))
    shared = {"epsilon": 1e-3, "betas": (0.0, 0.999), "entropy_weight": 1e-4, "baseline_decay": 0.99, "hidden": 64}
    for config in (macro, micro):
        assert config.policy == "lstm"
        assert {key: getattr(config.lstm, key) for key in shared} == shared
        assert config.lstm.baseline_start == "zero"
    assert (macro.lstm.learning_rate, macro.lstm.tanh_constant, macro.lstm.num_aggregate) == (0.001, 1.5, 20)
    assert (macro.lstm.skip_target, macro.lstm.skip_weight) == (0.4, 0.8)
    assert (micro.lstm.learning_rate, micro.lstm.tanh_constant, micro.lstm.num_aggregate) == (0.0035, 1.10, 10)
    assert micro.lstm.op_tanh_reduce == 2.5
    changed = ReinforceConfig(preset="enas_micro", lstm={"num_aggregate": 4})
    assert (changed.lstm.num_aggregate, changed.lstm.learning_rate) == (4, 0.0035)


@pytest.mark.parametrize("in_flight", [1, 4])
@pytest.mark.parametrize("space", [NasBench201(), EnasMicro(), EnasMacro(EnasMacroConfig(layers=3))])
def test_lstm_restored_anywhere_it_goes_on_the_same(space, in_flight):
    check_restored(lambda: lstm(space, learning_rate=0.05, num_aggregate=4), 20, range(0, 20, 5), in_flight=in_flight)


def test_lstm_restored_while_its_draws_repeat_it_goes_on_the_same():
    space = NasBench201(NasBench201Config(ops=("none", "nor_conv_3x3")))
    check_restored(
        lambda: lstm(space, redraws=8, learning_rate=0.1, num_aggregate=5),
        space.num_architectures,
        range(0, space.num_architectures, 5),
        in_flight=3,
    )


def test_lstm_learns_from_a_whole_batch_at_once():
    mine = lstm(EnasMicro(), num_aggregate=4)
    first = weights(mine)
    batch = mine.ask(10)
    assert len(batch) == 4
    assert mine.ask(1) == []
    assert not mine.done
    for proposal in batch[:3]:
        mine.tell([finished(proposal, 0.5)])
        assert torch.equal(weights(mine), first)
    mine.tell([finished(batch[3], 0.9)])
    assert not torch.equal(weights(mine), first)
    (row,) = mine.diagnostics()
    assert (row["round"], row["num_new"], row["num_sequences"]) == (0, 4, 4)
    assert row["mean_score"] == pytest.approx(0.6)
    assert {proposal.round for proposal in mine.ask(10)} == {1}


def test_lstm_counts_repeated_draws_with_the_score_they_have():
    space = NasBench201(NasBench201Config(ops=("none", "nor_conv_3x3")))
    mine = lstm(space, num_aggregate=30, learning_rate=1e-6)
    trials = search(mine, space.num_architectures, fails=lambda k: False)
    keys = [trial.genotype.key for trial in trials]
    assert len(set(keys)) == len(keys) == space.num_architectures
    rows = mine.diagnostics()
    assert {row["num_sequences"] for row in rows} == {30}
    assert any(row["num_new"] < 10 for row in rows), "most of a late batch was known"
    assert mine.ask(1) == []
    assert mine.done


def test_lstm_failed_trials_teach_nothing():
    mine = lstm(num_aggregate=5)
    before = weights(mine)
    search(mine, 20, fails=lambda k: True)
    assert torch.equal(weights(mine), before)
    assert mine.diagnostics() == []


@pytest.mark.parametrize(
    ("space", "settings", "rise"),
    [(DartsCnn(), {}, 0.03), (EnasMacro(), {"skip_weight": 0.0, "learning_rate": 0.03, "num_aggregate": 5}, 0.01)],
)
def test_lstm_asks_for_better_and_better(space, settings, rise):
    scores = [trial.score for trial in search(lstm(space, **settings), 250, fails=lambda k: False)]
    assert np.mean(scores[-50:]) > np.mean(scores[:50]) + rise


def test_lstm_follows_the_published_micro_search():
    """The preset, as it is used with shared weights: every draw is scored, repeated or not."""
    space = EnasMicro()
    config = ReinforceConfig(preset="enas_micro").lstm
    policy = make_policy(space.name, space.token_mask, config, rng.torch_generator(0, "policy"))
    gradient = PolicyGradient(policy, config)

    def draw(n, number):
        tokens = policy.sample(n, rng.child(0, "draws", number)).tokens
        return tokens, 1 - np.isin(tokens, (7, 8)).sum(axis=1) / 20  # what its first bias favours is bad here

    before = draw(1000, 0)[1].mean()
    for number in range(1, 101):
        gradient.update(*draw(10, number))
    assert draw(1000, 101)[1].mean() > before + 0.015, "a mean is good to 0.0035"


@pytest.mark.parametrize("policy", ["independent", "lstm"])
def test_of_a_perplexity_the_policy_is_rewarded_as_in_enas(policy, monkeypatch):
    mine, seen = strategy(policy=policy, preset="enas_rnn", lstm={"num_aggregate": 2}), []
    observe = mine.policy.observe
    monkeypatch.setattr(mine.policy, "observe", lambda cell, reward: seen.append(reward) or observe(cell, reward))
    for measured in (Measurement(valid_perplexity=160.0), Measurement(valid_accuracy=0.5), None):
        (proposal,) = mine.ask(1)
        trial = Trial(proposal=proposal)
        mine.tell([trial.fail("nan", "diverged") if measured is None else trial.complete(measured)])
    assert seen == [0.5, 0.5, None]
    of_before = ReinforceConfig(**ReinforceConfig.of_before)
    assert of_before.reward_of(trial.complete(Measurement(valid_perplexity=160.0))) == -160.0
