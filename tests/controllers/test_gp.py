"""The Gaussian process against closed forms, and the targets it is given."""

import numpy as np
import torch

from nao_ray import rng
from nao_ray.controllers.gp import GaussianProcess, median_distance, normal_scores


def test_posterior_is_the_textbook_formula() -> None:
    generator = rng.child(0, "gp")
    x, z = generator.normal(size=(12, 3)), generator.normal(size=(5, 3))
    y = np.sin(x).sum(axis=1)
    gp = GaussianProcess(torch.from_numpy(x), torch.from_numpy(y), unit=1.0)
    mean, deviation = gp.posterior(torch.from_numpy(z))

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * gp.length**2))

    def likelihood(noise: float) -> float:
        cov = kernel(x, x) + noise * np.eye(12)
        return -0.5 * y @ np.linalg.solve(cov, y) - 0.5 * np.linalg.slogdet(cov)[1] - 6 * np.log(2 * np.pi)

    noise = max((0.003, 0.03, 0.1, 0.3), key=likelihood)
    assert np.isclose(gp.log_likelihood, likelihood(noise))
    inverse = np.linalg.inv(kernel(x, x) + noise * np.eye(12))
    assert np.allclose(mean.numpy(), kernel(z, x) @ inverse @ y)
    variance = 1 - np.einsum("ij,jk,ik->i", kernel(z, x), inverse, kernel(z, x))
    assert np.allclose(deviation.numpy(), np.sqrt(variance))


def test_left_out_predictions_are_those_of_a_process_without_the_observation() -> None:
    generator = rng.child(2, "gp")
    x = torch.from_numpy(generator.normal(size=(9, 2)))
    y = torch.from_numpy(generator.normal(size=9))
    gp = GaussianProcess(x, y, unit=1.0)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(torch.cdist(a, b) ** 2) / (2 * gp.length**2))

    for i in range(9):
        others = [j for j in range(9) if j != i]
        cov = kernel(x[others], x[others]) + gp.noise * torch.eye(8)
        expected = kernel(x[i : i + 1], x[others]) @ torch.linalg.solve(cov, y[others])
        assert torch.isclose(gp.left_out()[i], expected[0], rtol=1e-6)


def test_spread_grows_away_from_the_observations_and_has_a_gradient() -> None:
    x = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
    gp = GaussianProcess(x, torch.sin(6 * x[:, 0]), unit=0.5)
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
    gp = GaussianProcess(features[:60], torch.from_numpy(normal_scores(y[:60])), median_distance(features))
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
