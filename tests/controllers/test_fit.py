"""Fits: what they learn, that they repeat bit for bit, what they report, and the controller's steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nao_ray import registry, rng
from nao_ray.controllers.fit import Draws, FitConfig, FitReport, _split, fit
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.mlp_controller import MlpController
from nao_ray.controllers.sizes import SIZES
from nao_ray.controllers.targets import TargetScale
from nao_ray.spaces.base import SearchSpace

SPACE: SearchSpace[Any] = registry.load("space", "nao_cnn_small")()


def observations(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random genotypes; the score counts 5x5 separable convolutions, less pools."""
    draw = rng.child(seed, "observations")
    tokens = np.stack([SPACE.encode(SPACE.sample(draw)) for _ in range(count)])
    ops = tokens[:, 1::2]
    return tokens, 0.8 + 0.01 * (ops == 8).sum(axis=1) - 0.005 * (ops == 9).sum(axis=1)


def quick(tokens: np.ndarray, scores: np.ndarray, **settings: Any) -> tuple[MlpController, FitReport]:
    """The published procedure; the small size that decodes in one call, unless another is asked for."""
    options = {"epd": SIZES["default"], "draws": Draws(0), "start": None}
    options |= {key: settings.pop(key) for key in list(settings) if key in options}
    return fit(SPACE, tokens, scores, config=FitConfig(**{"epochs": 20, **settings}), **options)


def weights(controller: MlpController) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in controller.epd.parameters()])


def test_it_ranks_what_it_has_not_seen() -> None:
    tokens, scores = observations(240)
    controller, report = quick(tokens[:120], scores[:120], epochs=75, swap=True)
    unseen = tokens[120:]
    predicted, spread = controller.predict(unseen)
    assert rank_correlation(scores[120:], predicted) > 0.8
    assert pairwise_accuracy(scores[120:], predicted) > 0.8
    assert np.abs(predicted - scores[120:]).mean() < 0.5 * scores.std(), "predictions are in units of the scores"
    assert (spread == 0).all()
    assert report.num_trials == 120
    assert report.num_steps == 225, "three batches of at most 50 an epoch"
    assert report.pairwise_accuracy > 0.85
    assert report.cpu_seconds > 0


@pytest.mark.parametrize(("size", "epochs"), [("tf_nao_cnn", 12), ("v2", 40)])
def test_the_published_sizes_learn(size: str, epochs: int) -> None:
    tokens, scores = observations(60)
    controller, report = quick(tokens, scores, epd=SIZES[size], epochs=epochs, batch=20)
    assert report.num_steps == 3 * epochs
    assert report.reconstruction_loss < np.log(12), "better than no idea"
    assert report.pairwise_accuracy > 0.75
    assert report.row()["heldout_rank_correlation"] is None, "nothing was held out"
    predicted, _ = controller.predict(tokens)
    assert scores.min() < predicted.min() <= predicted.max() < scores.max(), "a sigmoid on min-max targets"


def test_a_fit_repeats_bit_for_bit_and_leaves_no_trace() -> None:
    tokens, scores = observations(20)
    threads = torch.get_num_threads()
    state = torch.random.get_rng_state()
    first, _ = quick(tokens, scores)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.rand(3)  # whatever else the process draws
    again, _ = quick(tokens, scores)
    assert torch.equal(weights(first), weights(again))
    for other in ({"draws": Draws(0, 1)}, {"draws": Draws(1)}):
        assert not torch.equal(weights(first), weights(quick(tokens, scores, **other)[0]))


def test_a_warm_start_goes_on_from_the_weights() -> None:
    tokens, scores = observations(20)
    first, _ = quick(tokens, scores, epochs=150)
    before = weights(first).clone()
    cold, _ = quick(tokens, scores, draws=Draws(0, 1))
    warm, report = quick(tokens, scores, draws=Draws(0, 1), start=first)
    assert torch.equal(weights(first), before), "the start is not changed"
    assert (weights(warm) - before).norm() < 0.5 * (weights(cold) - before).norm()
    assert report.reconstruction_loss < quick(tokens, scores, draws=Draws(0, 1))[1].reconstruction_loss


@pytest.mark.parametrize("score", [0.0, 0.9])
def test_a_pool_without_differences_is_no_division_by_zero(score: float) -> None:
    tokens, _ = observations(6)
    controller, _ = quick(tokens, np.full(6, score))
    assert np.isfinite(controller.predict(tokens)[0]).all()


def test_one_trial_is_enough_to_fit() -> None:
    tokens, scores = observations(1)
    controller, report = quick(tokens, scores, holdout=0.9)
    assert np.isfinite(controller.predict(tokens)[0]).all()
    assert report.row()["pairwise_accuracy"] is None


def test_repeats_show_each_trial_more_often() -> None:
    tokens, scores = observations(20)
    assert quick(tokens, scores, batch=10, epochs=2)[1].num_steps == 4
    assert quick(tokens, scores, batch=10, epochs=2, repeats=10)[1].num_steps == 40


def test_what_is_held_out_is_not_trained_on() -> None:
    held, seen = _split(20, 0.1, rng.child(0, "folds"))
    assert (len(held), len(seen)) == (2, 18)
    assert sorted([*held, *seen]) == list(range(20))
    tokens, _ = observations(60)
    noise = rng.child(0, "noise").normal(size=60)  # cannot be predicted: trials that were seen look good, others not
    _, report = quick(tokens, noise, epochs=100, learning_rate=5e-3, holdout=0.5)
    assert report.pairwise_accuracy > report.heldout_pairwise_accuracy + 0.1
    assert report.heldout_pairwise_accuracy < 0.65


def test_steps_raise_the_prediction_and_come_in_order() -> None:
    tokens, scores = observations(60)
    controller, _ = quick(tokens, scores, epochs=100, learning_rate=5e-3)
    sources = tokens[:7]
    steps = controller.step(sources, (0.0, 1.0, 2.0), unit=True)
    assert steps.tokens.shape == (3 * 7, 40)
    assert steps.points.shape == (3 * 7, 64)
    assert steps.step_sizes.tolist() == [0.0] * 7 + [1.0] * 7 + [2.0] * 7
    assert steps.sources.tolist() == [*range(7)] * 3
    assert np.array_equal(steps.tokens[:7], controller.reconstruct(sources)), "not moved"
    mean, _ = controller.predict(steps.tokens)
    assert mean[7:14].mean() > mean[:7].mean() + 0.5 * scores.std()
    best = controller.choose(steps.tokens, 3, sources, spread_weight=2.0)
    assert mean[best].tolist() == sorted(mean, reverse=True)[:3]


def test_settings_are_immutable_and_checked() -> None:
    config = FitConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.epochs = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="dropout"):
        FitConfig(dropout=0.1)  # type: ignore[call-arg]


def test_target_scales_invert() -> None:
    scores = np.array([0.1, 0.5, 0.9, 0.2])
    minmax, standard = TargetScale.fit(scores, "minmax"), TargetScale.fit(scores, "standard")
    assert minmax.to_targets(scores).tolist() == pytest.approx([0, 0.5, 1, 0.125])
    assert standard.to_targets(scores).mean() == pytest.approx(0)
    assert standard.to_targets(scores).std() == pytest.approx(1)
    for scale in (minmax, standard):
        assert scale.to_scores(scale.to_targets(scores)).tolist() == pytest.approx(scores.tolist())


def test_measures() -> None:
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert pairwise_accuracy(a, b) == pytest.approx(5 / 6)
    assert rank_correlation(a, b) == pytest.approx(0.8)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([5.0, 5, 9])) == pytest.approx(1), "ties by mean rank"
    assert np.isnan(rank_correlation(a, np.ones(4)))
    assert np.isnan(pairwise_accuracy(a[:1], b[:1]))
    assert hamming(np.array([[1, 2, 3], [1, 2, 3]]), np.array([[1, 2, 4], [3, 2, 1]])) == 1.5
