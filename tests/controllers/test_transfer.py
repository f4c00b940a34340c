"""Ranks of earlier results as a prior of new ones: what is carried over, and when it is left alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nao_ray import rng
from nao_ray.controllers.gp import GaussianProcess, normal_scores
from nao_ray.controllers.kernels import View, squared_distances, squared_exponential
from nao_ray.controllers.measures import rank_correlation
from nao_ray.controllers.transfer import Quantiles, Source, TransferredProcess, transferred

GENERATOR = rng.child(0, "transfer")
POINTS = torch.from_numpy(GENERATOR.normal(size=(200, 4)))
VIEWS = [View.whole(4, 1.0)]
TRUTH = (torch.sin(2 * POINTS[:, 0]) + POINTS[:, 1]).numpy()


def source(scores: np.ndarray, rows: slice = slice(0, 80)) -> Source:
    return Source.of("earlier", POINTS[rows], scores[rows], VIEWS)


def new(count: int) -> tuple[Tensor, Tensor]:
    rows = slice(100, 100 + count)
    return POINTS[rows], torch.from_numpy(normal_scores(np.exp(TRUTH[rows])))


def test_the_density_of_what_is_left_out_is_that_of_fits_without_it() -> None:
    features, targets = new(7)
    process = GaussianProcess(features, targets, VIEWS)
    for row, found in enumerate(process.left_out_density().tolist()):
        others = [k for k in range(7) if k != row]
        total = 0.0
        for member in process._members:
            setting, noise = member.setting, member.setting.noise * torch.eye(7, dtype=torch.float64)
            kernel = squared_exponential(squared_distances(features, features), setting.length) + noise
            weights = torch.linalg.solve(kernel[others][:, others], kernel[others, row])
            mean, variance = float(weights @ targets[others]), float(kernel[row, row] - weights @ kernel[others, row])
            error = float(targets[row]) - mean
            total += member.probability * math.exp(-(error**2) / 2 / variance) / math.sqrt(2 * math.pi * variance)
        assert found == pytest.approx(math.log(total), abs=1e-9)


def test_quantiles_keep_the_order_and_take_the_targets_values() -> None:
    values, targets = torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([10.0, 40.0, 20.0, 30.0])
    mapped = Quantiles(values, targets)
    assert mapped(torch.tensor([1.0, 2.0, 3.0, 1.5])).tolist() == [15.0, 30.0, 40.0, 22.5]
    assert mapped(torch.tensor([4.0, 0.0])).tolist() == [52.5, 2.5], "beyond them with the mean slope"
    point = torch.tensor([1.5, 5.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mapped(point).sum(), point)
    assert gradient.tolist() == [15.0, 12.5]
    assert Quantiles(torch.ones(3), torch.arange(3.0))(torch.tensor([1.0, 9.0])).tolist() == [1.0, 1.0]


def test_the_joint_distribution_agrees_with_the_single_ones() -> None:
    features, targets = new(6)
    process = TransferredProcess(GaussianProcess(features, targets, VIEWS), VIEWS, source(TRUTH), 0.85)
    mean, spread = process.posterior(POINTS[:30])
    joint, covariance = process.joint(POINTS[:30])
    torch.testing.assert_close(mean, joint)
    torch.testing.assert_close(spread.square(), covariance.diagonal())
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-9
    torch.testing.assert_close(process.expected(), process.posterior(features)[0])


def test_the_variance_of_a_process_on_others_is_the_diagonal_of_its_covariance() -> None:
    """And none of them is asked for the covariance among the points, which grows with their square."""
    features, targets = new(6)
    earlier = source(TRUTH)
    below = TransferredProcess(GaussianProcess(*new(12), VIEWS), VIEWS, earlier, 0.85)
    process = TransferredProcess(GaussianProcess(features, targets, VIEWS), VIEWS, Source("between", below), 0.7)
    for one in (earlier.process, below, process):
        diagonal = one.covariance(POINTS, POINTS).diagonal()
        torch.testing.assert_close(one.variance(POINTS), diagonal, rtol=0, atol=1e-12)
    with _Largest() as largest:
        process.posterior(POINTS)
    assert largest.numbers == 200 * 80, "those of the points with the earliest observations"


class _Largest(TorchDispatchMode):
    """The largest tensor that comes of any operation."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        found = function(*given, **(named or {}))
        if isinstance(found, Tensor):
            self.numbers = max(self.numbers, found.numel())
        return found


def test_where_the_earlier_pool_knows_nothing_the_spread_is_wider() -> None:
    features, targets = new(6)
    process = TransferredProcess(GaussianProcess(features, targets, VIEWS), VIEWS, source(TRUTH), 0.95)
    near, far = process.posterior(POINTS[:40])[1], process.posterior(POINTS[:40] + 50)[1]
    assert float(near.mean()) < 0.6 * float(far.mean())


@pytest.mark.parametrize("count", [5, 20])
def test_what_helps_is_used_and_predicts_better(count: int) -> None:
    features, targets = new(count)
    cold = GaussianProcess(features, targets, VIEWS)
    warm, told = transferred(cold, VIEWS, [source(-TRUTH), source(TRUTH)])
    assert told.row()["warm_start"] == "on"
    assert told.weight >= 0.7
    assert told.density > told.density_without
    unseen = slice(150, 200)
    correlations = [rank_correlation(TRUTH[unseen], p.posterior(POINTS[unseen])[0].numpy()) for p in (warm, cold)]
    assert correlations[0] > max(0.9, correlations[1])


@pytest.mark.parametrize("kind", ["inverted", "shuffled"])
def test_what_misleads_is_left_alone(kind: str) -> None:
    features, targets = new(20)
    cold = GaussianProcess(features, targets, VIEWS)
    misled = -TRUTH if kind == "inverted" else rng.child(1, "shuffled").permutation(TRUTH)
    process, told = transferred(cold, VIEWS, [source(misled)])
    assert process is cold
    assert told.row() | {"left_out_density_warm": 0, "left_out_density_cold": 0} == {
        "warm_start": "off",
        "warm_start_source": "earlier",
        "warm_start_weight": 0.0,
        "left_out_density_warm": 0,
        "left_out_density_cold": 0,
    }
    assert told.density <= told.density_without
