"""Views are judged by what they say of observations that were left out."""

import numpy as np
import torch

from nao_ray import rng
from nao_ray.controllers.criticism import NOISES, likeliest
from nao_ray.controllers.gp import GaussianProcess, normal_scores
from nao_ray.controllers.kernels import View

LEFT = View("left", torch.arange(3), torch.full((3,), 0.4, dtype=torch.float64))
RIGHT = View("right", torch.arange(3, 6), torch.full((3,), 0.4, dtype=torch.float64))
BOTH = View("both", torch.arange(6), torch.full((6,), 0.3, dtype=torch.float64))
NOTHING = torch.zeros((), dtype=torch.float64)


def points(count: int) -> np.ndarray:
    return rng.child(0, "criticism").normal(size=(count, 6))


def process(x: np.ndarray, y: np.ndarray) -> GaussianProcess:
    return GaussianProcess(torch.from_numpy(x), torch.from_numpy(normal_scores(y)), (LEFT, RIGHT, BOTH))


def test_the_view_that_a_function_is_of_is_chosen() -> None:
    x = points(50)
    assert process(x, np.sin(x[:, 0]) + x[:, 1]).views["left"] > 0.95
    assert process(x, x[:, 3] * x[:, 4] + x[:, 5]).views["right"] > 0.95
    likeliest_view, probability = next(iter(process(x, x[:, 0] + x[:, 4]).views.items()))
    assert likeliest_view == "both"
    assert probability > 0.95


def test_the_first_view_has_a_head_start_of_a_few_observations() -> None:
    x = points(60)
    few, many = (process(x[:count], x[:count, 3] + x[:count, 4]).views for count in (4, 60))
    assert next(iter(few)) == "left", "four scores say nothing against it"
    assert many.get("left", 0.0) < 0.01


def test_what_nothing_explains_is_noise() -> None:
    x = points(60)
    assert process(x, rng.child(1, "criticism").normal(size=60)).noise > 0.2
    assert process(x, x[:, 0] + x[:, 1]).noise < 0.1


def test_many_observations_are_judged_by_some_and_used_by_all() -> None:
    x = points(400)
    y = np.sin(x[:, 0]) + x[:, 1]
    targets = torch.from_numpy(normal_scores(y))
    members = likeliest(torch.from_numpy(x), targets, (LEFT, RIGHT, BOTH), NOTHING)
    assert 1 <= len(members) <= 4
    assert abs(sum(member.probability for member in members) - 1) < 1e-12
    assert {member.setting.view.name for member in members} == {"left"}
    assert all(len(member.weights) == 400 for member in members)
    assert all(member.setting.noise in NOISES for member in members)
    added = torch.full((400, 400), 0.1, dtype=torch.float64)
    assert {m.setting.view.name for m in likeliest(torch.from_numpy(x), targets, (LEFT, RIGHT), added)} == {"left"}


def test_the_density_of_what_is_left_out_is_that_of_a_process_without_it() -> None:
    x, view = points(9), LEFT
    y = rng.child(2, "criticism").normal(size=9)
    for member in likeliest(torch.from_numpy(x), torch.from_numpy(y), (view,), NOTHING):
        setting, seen = member.setting, x[:, :3] * 0.4
        squared = ((seen[:, None] - seen[None]) ** 2).sum(-1)
        covariance = np.exp(-squared / 2 / setting.length**2) + setting.noise * np.eye(9)
        for i in range(9):
            others = np.arange(9) != i
            explained = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, i])
            mean, variance = explained @ y[others], covariance[i, i] - explained @ covariance[others, i]
            density = -((y[i] - mean) ** 2) / 2 / variance - np.log(2 * np.pi * variance) / 2
            assert np.isclose(member.left_out_density()[i], density)
