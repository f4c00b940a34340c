"""Fits: what they learn, that they repeat bit for bit, what they report, and the ensemble's steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nao_ray import registry, rng
from nao_ray.controllers.ensemble import Ensemble
from nao_ray.controllers.fit import FitConfig, FitReport, _seen, fit
from nao_ray.controllers.measures import hamming, pairwise_accuracy, rank_correlation
from nao_ray.controllers.sizes import SIZES, EpdConfig
from nao_ray.controllers.targets import TargetScale
from nao_ray.spaces.base import SearchSpace

SPACE: SearchSpace[Any] = registry.load("space", "nao_cnn_small")()
PLAIN = EpdConfig(sigmoid=False)


def observations(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random genotypes; the score counts 5x5 separable convolutions, less pools."""
    draw = rng.child(seed, "observations")
    tokens = np.stack([SPACE.encode(SPACE.sample(draw)) for _ in range(count)])
    ops = tokens[:, 1::2]
    return tokens, 0.8 + 0.01 * (ops == 8).sum(axis=1) - 0.005 * (ops == 9).sum(axis=1)


def quick(tokens: np.ndarray, scores: np.ndarray, **settings: Any) -> tuple[Ensemble, FitReport]:
    options = {"epd": PLAIN, "seed": 0, "index": 0, "start": None}
    options |= {key: settings.pop(key) for key in list(settings) if key in options}
    return fit(SPACE, tokens, scores, config=FitConfig(**{"steps": 20, "members": 2, **settings}), **options)


def weights(ensemble: Ensemble) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for member in ensemble.members for p in member.parameters()])


def test_it_ranks_and_reconstructs_what_it_has_not_seen() -> None:
    tokens, scores = observations(240)
    ensemble, report = quick(tokens[:120], scores[:120], steps=200)
    unseen = tokens[120:]
    predicted, spread = ensemble.predict(unseen)
    assert rank_correlation(scores[120:], predicted) > 0.9
    assert pairwise_accuracy(scores[120:], predicted) > 0.85
    assert hamming(unseen, ensemble.reconstruct(unseen)) < 4, "of 40 tokens"
    assert np.abs(predicted - scores[120:]).mean() < 0.5 * scores.std(), "predictions are in units of the scores"
    assert (spread >= 0).all()
    assert report.num_trials == 120
    assert report.num_steps == 400
    assert report.heldout_rank_correlation == pytest.approx(rank_correlation(scores[120:], predicted), abs=0.15)
    assert report.pairwise_accuracy >= report.heldout_pairwise_accuracy > 0.8
    assert 0 <= report.reconstruction < 4
    assert report.cpu_seconds > 0


def test_the_published_procedure_learns_too() -> None:
    tokens, scores = observations(60)
    settings = {"members": 1, "targets": "minmax", "unlabelled": 0, "decoded": None, "point_noise": 0.0}
    settings |= {"schedule": "constant", "trade_off": 0.8, "learning_rate": 1e-3, "epochs": 40, "batch": 20}
    ensemble, report = quick(tokens, scores, epd=SIZES["v2"], **settings)
    assert report.num_steps == 120
    assert report.reconstruction_loss < np.log(12), "better than no idea"
    assert report.pairwise_accuracy > 0.75
    assert report.row()["heldout_rank_correlation"] is None, "nothing was held out"
    predicted, spread = ensemble.predict(tokens)
    assert scores.min() < predicted.min() <= predicted.max() < scores.max(), "a sigmoid on min-max targets"
    assert (spread == 0).all()


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
    for other in ({"index": 1}, {"seed": 1}):
        assert not torch.equal(weights(first), weights(quick(tokens, scores, **other)[0]))


def test_a_warm_start_goes_on_from_the_weights() -> None:
    tokens, scores = observations(20)
    first, _ = quick(tokens, scores, steps=150)
    before = weights(first).clone()
    cold, _ = quick(tokens, scores, index=1, steps=20)
    warm, report = quick(tokens, scores, index=1, steps=20, start=first)
    assert torch.equal(weights(first), before), "the start is not changed"
    assert (weights(warm) - before).norm() < 0.5 * (weights(cold) - before).norm()
    assert report.reconstruction_loss < 1.0


@pytest.mark.parametrize("targets", ["minmax", "standard"])
@pytest.mark.parametrize("score", [0.0, 0.9])
def test_a_pool_without_differences_is_no_division_by_zero(targets: str, score: float) -> None:
    tokens, _ = observations(6)
    ensemble, _ = quick(tokens, np.full(6, score), targets=targets)
    assert np.isfinite(ensemble.predict(tokens)[0]).all()


def test_one_trial_is_enough_to_fit() -> None:
    tokens, scores = observations(1)
    ensemble, report = quick(tokens, scores)
    assert np.isfinite(ensemble.predict(tokens)[0]).all()
    assert report.row()["pairwise_accuracy"] is None


def test_each_member_leaves_out_its_fold() -> None:
    seen = _seen(23, FitConfig(members=5), rng.child(0, "folds"))
    left_out = [np.setdiff1d(np.arange(23), rows) for rows in seen]
    assert sorted(np.concatenate(left_out).tolist()) == list(range(23))
    (rows,) = _seen(20, FitConfig(members=1, holdout=0.1), rng.child(0, "folds"))
    assert len(rows) == 18
    assert all(len(rows) == 3 for rows in _seen(3, FitConfig(members=5), rng.child(0, "folds")))


def test_a_held_out_trial_is_predicted_by_those_who_did_not_see_it() -> None:
    """Noise cannot be predicted: on trials the members have seen they look good, on the others not."""
    tokens, _ = observations(60)
    noise = rng.child(0, "noise").normal(size=60)
    _, report = quick(tokens, noise, steps=150, members=3, point_noise=0.0)
    assert report.pairwise_accuracy > 0.75
    assert report.heldout_pairwise_accuracy < 0.65


def test_the_ranking_loss_orders_pairs() -> None:
    tokens, scores = observations(40)
    _, report = quick(tokens, scores, ranking=1.0, steps=60)
    assert report.pairwise_accuracy > 0.8


def test_steps_raise_the_prediction_and_come_in_order() -> None:
    tokens, scores = observations(60)
    ensemble, _ = quick(tokens, scores, steps=150)
    sources = tokens[:7]
    steps = ensemble.step(sources, (0.0, 1.0, 2.0), unit=True)
    assert steps.tokens.shape == (3 * 7 * 2, 40)
    assert steps.points.shape == (3 * 7 * 2, 64)
    assert steps.step_sizes.tolist() == [0.0] * 14 + [1.0] * 14 + [2.0] * 14
    assert steps.sources[:6].tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(steps.tokens[:14:2], ensemble.reconstruct(sources)), "the first member, not moved"
    mean, _ = ensemble.predict(steps.tokens)
    assert mean[14:28].mean() > mean[:14].mean() + 0.5 * scores.std()


def test_settings_are_immutable_and_checked() -> None:
    config = FitConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3  # type: ignore[misc]
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
