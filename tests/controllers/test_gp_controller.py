"""The controller whose predictor is a Gaussian process: steps, choices, units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nao_ray import registry, rng
from nao_ray.controllers import pretraining
from nao_ray.controllers.gp_controller import GpConfig, GpController, fit_process, representatives
from nao_ray.controllers.measures import rank_correlation
from nao_ray.controllers.pretraining import Pretrained, PretrainingConfig, pretrain
from nao_ray.controllers.sizes import EpdConfig
from nao_ray.spaces.parts.preferring import Preferences, preferring

SPACE = registry.load("space", "nao_cnn_small")()
EPD = EpdConfig()


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return pretrain(SPACE, EPD, PretrainingConfig(steps=250), seed=0)


def sample(count: int, purpose: str) -> np.ndarray:
    return np.stack([SPACE.encode(SPACE.sample(rng.child(0, purpose, k))) for k in range(count)])


def score(tokens: np.ndarray) -> np.ndarray:
    """Sep convs are good, identities bad: accuracies between 0.5 and 0.9."""
    return 0.7 + 0.01 * ((tokens[:, 1::2] == 7).sum(1) - (tokens[:, 1::2] == 11).sum(1))


def test_pretraining_reconstructs_and_describes_genotypes_it_never_saw(pretrained: Pretrained) -> None:
    tokens = sample(200, "unseen")
    controller = GpController(SPACE, pretrained, tokens[:20], score(tokens[:20]), bound=1.0)
    assert (controller.reconstruct(tokens) == tokens).mean() > 0.99
    features = pretrained.features(SPACE, tokens)
    with torch.no_grad():
        read = pretrained.readout(pretrained.epd.embed(pretrained.epd.encode(torch.from_numpy(tokens))))
    explained = 1 - (read - features).square().mean(dim=0) / features.var(dim=0)
    counts = [column for column, key in enumerate(pretrained.inputs.descriptors.keys) if key[1] == "count"]
    assert len(counts) == 10
    assert explained[counts].mean() > 0.6, "how often an operation occurs can be read off the embedding"


def test_pretraining_is_a_function_of_its_arguments(pretrained: Pretrained) -> None:
    short = PretrainingConfig(steps=5, genotypes=20)
    first, other = (pretrain(SPACE, EPD, short, seed).epd.state_dict() for seed in (1, 2))
    pretraining._pretrained.cache_clear()
    again = pretrain(SPACE, EPD, short, 1).epd.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_what_is_pretrained_is_kept_for_the_same_space_alone() -> None:
    short, cls = PretrainingConfig(steps=2, genotypes=20), registry.load("space", "nas_bench_201")
    first = pretrain(cls(), EPD, short, 1)
    assert pretrain(cls(), EPD, short, 1) is first
    assert pretrain(cls(), EPD, short, 2) is not first
    assert pretrain(cls(cls.Config(twins="distinct")), EPD, short, 1) is not first
    wanted = Preferences(favour={"nor_conv_3x3": 5.0})
    assert pretrain(preferring(cls(), wanted), EPD, short, 1) is not first
    assert pretrain(preferring(cls(), Preferences(favour={"nor_conv_3x3": 9.0})), EPD, short, 1) is not pretrain(
        preferring(cls(), wanted), EPD, short, 1
    )


def test_a_step_of_length_zero_is_the_reconstruction(pretrained: Pretrained) -> None:
    tokens = sample(30, "zero")
    controller = GpController(SPACE, pretrained, tokens, score(tokens), bound=2.0)
    steps = controller.step(tokens[:7], [0.0], unit=True)
    assert (steps.tokens == controller.reconstruct(tokens[:7])).all()
    assert np.allclose(np.linalg.norm(steps.points, axis=1), 1)


def test_steps_lead_to_better_architectures_that_are_legal(pretrained: Pretrained) -> None:
    tokens = sample(60, "steps")
    controller = GpController(SPACE, pretrained, tokens, score(tokens), bound=0.0)
    steps = controller.step(tokens[:20], [0.5, 1.0, 2.0], unit=True)
    assert steps.tokens.shape == (60, 40)
    for row in steps.tokens:
        SPACE.decode(row)
    gain = score(steps.tokens) - score(tokens)[steps.sources]
    assert gain.reshape(3, 20).mean(axis=1)[2] > 0.03
    assert list(steps.step_sizes[:21]) == [0.5] * 20 + [1.0]


def test_predictions_are_in_the_unit_of_the_scores_and_rank(pretrained: Pretrained) -> None:
    tokens = sample(160, "rank")
    scores = score(tokens)
    controller, report = fit_process(SPACE, pretrained, tokens[:60], scores[:60], bound=2.0)
    mean, spread = controller.predict(tokens[60:])
    assert 0.5 < mean.min() < mean.max() < 0.95
    assert (spread > 0).all()
    assert rank_correlation(scores[60:], mean) > 0.7
    assert report.heldout_rank_correlation > 0.6
    assert report.num_trials == 60


def test_what_is_pending_is_not_chosen_again(pretrained: Pretrained) -> None:
    tokens = sample(90, "choose")
    controller = GpController(SPACE, pretrained, tokens[:30], score(tokens[:30]), bound=2.0)
    others = tokens[30:]
    free = controller.choose(others, 6, others[:0], spread_weight=3.0)
    assert len(set(free)) == 6
    best = others[free[:1]]
    twice = np.concatenate([best, others])  # the best one again, as a candidate, while it is pending
    assert controller.choose(twice, 1, best, spread_weight=3.0)[0] not in (0, free[0] + 1)
    by_mean = int(controller.predict(others)[0].argmax())
    assert controller.choose(others, 1, best, spread_weight=0.0) == [by_mean], "without spread only the mean counts"
    assert len(controller.choose(others[:3], 9, others[:0], spread_weight=1.0)) == 3


def test_constant_scores_are_no_obstacle(pretrained: Pretrained) -> None:
    tokens = sample(8, "constant")
    controller = GpController(SPACE, pretrained, tokens, np.full(8, 0.9), bound=2.0)
    mean, spread = controller.predict(tokens)
    assert np.allclose(mean, 0.9)
    assert np.isfinite(spread).all()
    assert len(controller.choose(tokens, 2, tokens[:0], spread_weight=2.0)) == 2


def test_of_many_results_the_best_and_some_of_every_rank_are_kept() -> None:
    scores = rng.child(0, "scores").permutation(100).astype(np.float64)
    assert representatives(scores, 100).tolist() == list(range(100))
    rows = representatives(scores, 20)
    assert rows.tolist() == sorted(set(rows.tolist()))
    kept = sorted(scores[rows])
    assert kept[10:] == list(range(90, 100)), "the best"
    np.testing.assert_allclose(np.diff(kept[:10]), 89 / 9, atol=1)
    assert kept[0] == 0


def test_a_process_of_some_results_still_ranks_by_all(pretrained: Pretrained) -> None:
    tokens = sample(400, "many")
    scores = score(tokens)
    controller, report = fit_process(SPACE, pretrained, tokens[:300], scores[:300], 1.0, GpConfig(most=60))
    assert (report.num_trials, len(controller.rows), len(controller.left_out())) == (300, 60, 60)
    assert rank_correlation(scores[300:], controller.predict(tokens[300:])[0]) > 0.5


def test_pending_ones_count_as_observed_one_by_one(pretrained: Pretrained) -> None:
    tokens = sample(60, "pending")
    controller = GpController(SPACE, pretrained, tokens[:20], score(tokens[:20]), bound=2.0)
    mean, joint = controller._gp.joint(pretrained.features(SPACE, tokens[20:]))
    covariance = joint
    for row in range(10):
        column = covariance[:, row]
        covariance = covariance - torch.outer(column, column) / (covariance[row, row] + controller._gp.noise)
    torch.testing.assert_close(controller._observed(joint, 10), covariance[10:, 10:])
    expected = int((mean + 2 * covariance.diagonal().sqrt())[10:].argmax())
    assert controller.choose(tokens[30:], 1, tokens[20:30], spread_weight=2.0) == [expected]


def test_the_recommended_one_is_not_the_lucky_one(pretrained: Pretrained) -> None:
    tokens = sample(80, "recommended")
    scores = score(tokens) + rng.child(1, "scatter").normal(0, 0.01, 80)
    lucky = int(score(tokens).argmin())
    scores[lucky] = scores.max() + 0.01
    controller = GpController(SPACE, pretrained, tokens, scores, bound=2.0)
    assert controller.recommended() != lucky
    assert score(tokens)[controller.recommended()] >= np.quantile(score(tokens), 0.9)
    few = GpController(SPACE, pretrained, tokens, scores, bound=2.0, config=GpConfig(most=20))
    assert few.recommended() in few.rows


def test_of_many_pending_ones_the_nearest_are_taken_in(pretrained: Pretrained) -> None:
    tokens = sample(120, "nearest")
    known, pending, others = tokens[:20], tokens[20:100], tokens[100:]

    def chosen(most: int, pending: np.ndarray) -> list[int]:
        config = GpConfig(most_pending=most)
        controller = GpController(SPACE, pretrained, known, score(known), bound=2.0, config=config)
        return controller.choose(others, 6, pending, spread_weight=3.0)

    features = pretrained.features(SPACE, tokens).double()
    distances = torch.cdist(features[20:100], features[100:]).amin(dim=1)
    nearest = np.sort(distances.argsort(stable=True)[:10].numpy())
    assert chosen(80, pending) == chosen(1000, pending)
    assert chosen(10, pending) == chosen(10, pending[nearest])
    best = others[chosen(1000, pending[:0])[:1]]
    crowd = np.concatenate([pending, best])  # of eighty-one, the one that is among those chosen from
    assert chosen(1, crowd) == chosen(1000, best)


def test_a_fit_says_what_it_stands_on(pretrained: Pretrained) -> None:
    tokens = sample(40, "row")
    row = GpController(SPACE, pretrained, tokens, score(tokens), bound=2.0).row()
    assert list(row) == ["view", "view_probability", "length", "noise", "left_out_density"]
    assert row["view"] == "counts", "the score is of counts alone"
    assert 0.5 < float(row["view_probability"]) <= 1
    assert float(row["left_out_density"]) > -1, "a standard normal guess has -1.42"


def test_a_process_may_stand_on_the_embedding(pretrained: Pretrained) -> None:
    tokens = sample(60, "embedding")
    config = GpConfig(views=("embedding", "counts"))
    both = GpController(SPACE, pretrained, tokens, score(tokens), bound=0.0, config=config)
    assert set(both._gp.views) <= {"embedding", "counts"}
    assert both.step(tokens[:3], [1.0], unit=True).tokens.shape == (3, 40), "the gradient goes through both"
    alone = GpController(SPACE, pretrained, tokens, score(tokens), bound=0.0, config=GpConfig(views=("embedding",)))
    assert alone.row()["view"] == "embedding"
    steps = alone.step(tokens[:20], [1.0], unit=True)
    assert score(steps.tokens).mean() > score(tokens[:20]).mean()


def test_configs_of_before_name_the_one_thing_a_process_stood_on() -> None:
    assert GpConfig.model_validate({"features": "descriptors", "most": 7}) == GpConfig(views=("graph",), most=7)
    assert GpConfig.model_validate({"features": "embedding"}).views == ("embedding",)
    assert GpConfig.model_validate({"views": "graph,tokens"}).views == ("graph", "tokens")
    with pytest.raises(ValueError, match="views"):
        GpConfig.model_validate({"features": "pixels"})
