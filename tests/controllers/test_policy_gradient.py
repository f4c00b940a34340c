"""REINFORCE against gradients by hand, its baseline, its penalty, and Adam as TensorFlow has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nao_ray import rng
from nao_ray.controllers.lstm import make_policy
from nao_ray.controllers.policy import LstmConfig, LstmPolicy
from nao_ray.controllers.policy_gradient import PolicyGradient
from nao_ray.spaces.enas_macro import EnasMacro, EnasMacroConfig

ARMS = np.array([[False, True, True, True]])  # one token, three choices
RAW = {"betas": (0.0, 0.0), "epsilon": 1e6, "learning_rate": 1e6}  # a step of Adam is then the gradient itself


def bandit(**settings: Any) -> tuple[LstmPolicy, PolicyGradient]:
    config = LstmConfig(init_range=0.8, entropy_weight=0.0, **settings)
    policy = make_policy("bandit", ARMS, config, rng.torch_generator(1, "policy")).double()
    return policy, PolicyGradient(policy, config)


def by_hand(policy: LstmPolicy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h ``[H]``, the probabilities p ``[3]``, and the slopes of the logits ``[3]`` where the tanh bounds them."""
    p = {name: value.detach().numpy() for name, value in policy.named_parameters()}
    x = np.concatenate([p["start"][0], np.zeros(64)]) @ p["cell"]
    i, _, o, g = np.split(x, 4)
    h = np.tanh(np.tanh(g) / (1 + np.exp(-i))) / (1 + np.exp(-o))
    bounded = np.tanh(h @ p["head"])
    powers = np.exp(policy.config.tanh_constant * bounded)
    return h, powers / powers.sum(), policy.config.tanh_constant * (1 - bounded**2)


def step_of(policy: LstmPolicy, gradient: PolicyGradient, tokens: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Minus the gradient of the loss by the head ``[H, 3]``."""
    before = dict(policy.named_parameters())["head"].detach().numpy().copy()
    gradient.update(tokens, scores)
    return dict(policy.named_parameters())["head"].detach().numpy() - before


def test_the_update_is_the_gradient_by_hand() -> None:
    policy, gradient = bandit(**RAW, baseline_decay=0.9, baseline_start="zero")
    arms, scores = np.array([0, 2, 1, 2, 2]), np.array([0.1, 0.9, 0.4, 0.7, 0.8])
    h, probs, slopes = by_hand(policy)
    baseline, expected = 0.0, np.zeros((64, 3))
    for arm, score in zip(arms, scores, strict=True):
        baseline = 0.9 * baseline + 0.1 * score
        expected += (score - baseline) * np.outer(h, ((np.arange(3) == arm) - probs) * slopes) / 5
    np.testing.assert_allclose(step_of(policy, gradient, arms[:, None] + 1, scores), expected, rtol=1e-5, atol=1e-9)
    assert gradient.baseline == pytest.approx(baseline)


def test_on_average_it_is_the_gradient_of_the_expected_score() -> None:
    worth = np.array([0.2, 0.5, 0.9])
    policy, gradient = bandit(**RAW, baseline_decay=1 - 1e-12, baseline_start="zero")
    h, probs, slopes = by_hand(policy)
    tokens = policy.sample(40_000, rng.child(0, "draws")).tokens
    step = step_of(policy, gradient, tokens, worth[tokens[:, 0] - 1])
    exact = np.outer(h, probs * (worth - probs @ worth) * slopes)
    assert np.abs(step - exact).max() < 0.03 * np.abs(exact).max()


def test_a_bandit_finds_its_best_arm() -> None:
    worth = np.array([0.2, 0.5, 0.9])
    policy, gradient = bandit(learning_rate=0.02)
    for number in range(80):
        tokens = policy.sample(10, rng.child(0, "draws", number)).tokens
        gradient.update(tokens, worth[tokens[:, 0] - 1])
    probs = by_hand(policy)[1]
    assert probs.argmax() == 2
    assert probs[2] > 0.9


@pytest.mark.parametrize(
    ("start", "expected"), [("zero", 0.09 * 0.9 + 0.3 * 0.1), ("first_reward", 0.9 * 0.9 + 0.3 * 0.1)]
)
def test_the_baseline_starts_at_zero_or_at_the_first_reward(start: str, expected: float) -> None:
    _, gradient = bandit(baseline_decay=0.9, baseline_start=start)
    report = gradient.update(np.array([[1], [2]]), np.array([0.9, 0.3]))
    assert report.baseline == pytest.approx(expected)


def test_the_entropy_is_a_reward_without_a_gradient() -> None:
    tokens, scores = np.array([[1], [3]]), np.array([0.2, 0.6])
    policy, gradient = bandit(**RAW)
    entropy = policy.score(tokens).entropy.detach().numpy()
    config = gradient.config.model_copy(update={"entropy_weight": 0.5})
    other = make_policy("bandit", ARMS, config, rng.torch_generator(1, "policy")).double()
    np.testing.assert_allclose(
        step_of(other, PolicyGradient(other, config), tokens, scores),
        step_of(policy, gradient, tokens, scores + 0.5 * entropy),
        rtol=1e-9,
    )


def test_epsilon_stands_beside_the_uncorrected_moment() -> None:
    policy, gradient = bandit(learning_rate=0.5, epsilon=1e-2, baseline_decay=0.5, baseline_start="zero")
    raw_policy, raw = bandit(**RAW, baseline_decay=0.5, baseline_start="zero")
    moment = np.zeros((64, 3))
    for number in range(1, 4):
        raw_policy.load_state_dict(policy.state_dict())
        tokens, scores = np.array([[1 + number % 3]]), np.array([0.3 * number])
        raw.baseline = gradient.baseline
        slope = step_of(raw_policy, raw, tokens, scores)
        moment = 0.999 * moment + 0.001 * slope**2
        expected = 0.5 * np.sqrt(1 - 0.999**number) * slope / (np.sqrt(moment) + 1e-2)
        np.testing.assert_allclose(step_of(policy, gradient, tokens, scores), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("form", "rate"), [("bernoulli", 0.4), ("sigmoid", 0.4**2 / (0.4**2 + 0.6**2))])
def test_the_penalty_alone_pulls_the_skips_to_its_target(form: str, rate: float) -> None:
    """As published it holds the sigmoid of the logit at the target, so skips are drawn at 0.31, not at 0.4."""
    space = EnasMacro(EnasMacroConfig(layers=3))  # of three skips
    config = LstmConfig(skip_penalty=form, learning_rate=0.01, epsilon=1e-3, tanh_constant=1.5)
    policy = make_policy(space.name, space.token_mask, config, rng.torch_generator(0, "policy"))
    gradient = PolicyGradient(policy, config)
    for number in range(200):
        gradient.update(policy.sample(10, rng.child(0, "draws", number)).tokens, np.zeros(10))
    with torch.no_grad():
        drawn = policy.sample(2000, rng.child(0, "draws of the trained")).tokens
    assert (drawn == 8).sum() / (2000 * 3) == pytest.approx(rate, abs=0.02)
