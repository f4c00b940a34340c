"""The Gaussian process against closed forms, and the targets it is given."""

import numpy as np
import torch

from nao_ray import rng
from nao_ray.controllers.criticism import LENGTHS, NOISES
from nao_ray.controllers.gp import GaussianProcess, normal_scores
from nao_ray.controllers.kernels import View, median_distance


def kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * length**2))


def textbook(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, length: float, noise: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log marginal likelihood, posterior mean and covariance at z."""
    cov = kernel(x, x, length) + noise * np.eye(len(x))
    likelihood = -0.5 * y @ np.linalg.solve(cov, y) - 0.5 * np.linalg.slogdet(cov)[1]
    inverse = np.linalg.inv(cov)
    cross = kernel(z, x, length)
    return likelihood, cross @ inverse @ y, kernel(z, z, length) - cross @ inverse @ cross.T


def mixed(x: np.ndarray, y: np.ndarray, z: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the mixture over the grid, what is improbable left out."""
    members = [textbook(x, y, z, length * unit, noise) for length in LENGTHS for noise in NOISES]
    weights = np.exp(np.array([m[0] for m in members]) - max(m[0] for m in members))
    weights = np.where(weights < 0.1, 0, weights)
    weights /= weights.sum()
    mean = sum(w * m for w, (_, m, _) in zip(weights, members, strict=True))
    spread = [w * (c + np.outer(m - mean, m - mean)) for w, (_, m, c) in zip(weights, members, strict=True)]
    return mean, sum(spread)


def test_posterior_is_the_textbook_formula_averaged_over_length_and_noise() -> None:
    generator = rng.child(0, "gp")
    x, z = generator.normal(size=(12, 3)), generator.normal(size=(5, 3))
    y = np.sin(x).sum(axis=1)
    gp = GaussianProcess(torch.from_numpy(x), torch.from_numpy(y), [View.whole(x.shape[1], 1.3)])
    expected_mean, expected_covariance = mixed(x, y, z, 1.3)
    mean, deviation = gp.posterior(torch.from_numpy(z))
    assert np.allclose(mean.numpy(), expected_mean)
    assert np.allclose(deviation.numpy(), np.sqrt(np.diag(expected_covariance)))
    torch.testing.assert_close(gp.expected(), gp.posterior(torch.from_numpy(x))[0])
    mean, covariance = gp.joint(torch.from_numpy(z))
    assert np.allclose(mean.numpy(), expected_mean)
    assert np.allclose(covariance.numpy(), expected_covariance)


def test_left_out_predictions_are_those_of_a_process_without_the_observation() -> None:
    generator = rng.child(2, "gp")
    x, y = generator.normal(size=(9, 2)), generator.normal(size=9)
    gp = GaussianProcess(torch.from_numpy(x), torch.from_numpy(y), [View.whole(x.shape[1], 1.0)])
    members = [(length, noise, textbook(x, y, x, length, noise)[0]) for length in LENGTHS for noise in NOISES]
    weights = np.exp(np.array([likelihood for *_, likelihood in members]))
    weights = np.where(weights < 0.1 * weights.max(), 0, weights)
    for i in range(9):
        others = np.arange(9) != i
        each = [textbook(x[others], y[others], x[i : i + 1], length, noise)[1][0] for length, noise, _ in members]
        assert np.isclose(gp.left_out()[i], np.average(each, weights=weights), rtol=1e-6)


def test_spread_grows_away_from_the_observations_and_has_a_gradient() -> None:
    x = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    gp = GaussianProcess(x, torch.sin(6 * x[:, 0]), [View.whole(x.shape[1], 0.5)])
    far = torch.tensor([[0.5], [3.0]], dtype=torch.float64, requires_grad=True)
    mean, deviation = gp.posterior(far)
    assert deviation[1] > 5 * deviation[0]
    (gradient,) = torch.autograd.grad(mean[0], far)
    step = 1e-6
    above, _ = gp.posterior(far.detach() + step)
    below, _ = gp.posterior(far.detach() - step)
    assert torch.isclose(gradient[0, 0], (above[0] - below[0]) / (2 * step), rtol=1e-4)


def test_ranks_from_a_dozen_observations() -> None:
    generator = rng.child(1, "gp")
    x = generator.normal(size=(212, 6))
    y = x[:, 0] + x[:, 1] * x[:, 2] + 0.1 * generator.normal(size=212)
    features = torch.from_numpy(x)
    views = [View.whole(features.shape[1], median_distance(features))]
    gp = GaussianProcess(features[:60], torch.from_numpy(normal_scores(y[:60])), views)
    mean, _ = gp.posterior(features[60:])
    order = np.corrcoef(mean.numpy().argsort().argsort(), y[60:].argsort().argsort())[0, 1]
    assert order > 0.6


def test_normal_scores_keep_order_and_ties_and_tame_outliers() -> None:
    scores = normal_scores(np.array([0.5, -1000.0, 0.5, 0.7]))
    assert scores[0] == scores[2]
    assert scores[1] < scores[0] < scores[3]
    assert abs(scores.sum()) < 1e-9
    assert abs(scores[1]) < 2


def test_equal_points_have_a_unit() -> None:
    assert median_distance(torch.ones(4, 2)) == 1.0
    assert median_distance(torch.tensor([[0.0], [3.0]])) == 3.0
