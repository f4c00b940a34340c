"""What is asked while far more is under way than is known: large ones, unlike each other, by what results say."""

from __future__ import annotations

import numpy as np
import pytest

from nao_ray import rng
from nao_ray.controllers.descriptors import Descriptors, num_live_params
from nao_ray.spaces.base import Genotype
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.nao import Nao
from nao_ray.strategies.parts.first_batches import MORE, SizePrior
from nao_ray.strategies.parts.nao_config import NaoConfig
from nao_ray.trial import Fidelity, Measurement, Trial

SPACE = NasBench201()
NOTHING = np.zeros(0)


@pytest.fixture(scope="module")
def first() -> SizePrior:
    return SizePrior(SPACE, rng.child(0, "first"))


def sample(count: int) -> list[Genotype]:
    generator = rng.child(0, "sample")
    return list(dict.fromkeys(SPACE.sample(generator) for _ in range(count)))


def sizes(genotypes: list[Genotype]) -> list[int]:
    return [num_live_params(SPACE.lower(genotype)) for genotype in genotypes]


def batch(first: SizePrior, count: int) -> list[Genotype]:
    chosen: list[Genotype] = []
    for k in range(count):
        taken = {genotype.key for genotype in chosen}
        chosen.append(first.order([], NOTHING, chosen, taken, rng.child(0, "batch", k))[0])
    return chosen


def nearest(genotypes: list[Genotype]) -> float:
    """Mean distance to the nearest other one."""
    rows = Descriptors(SPACE, sample(300))(genotypes).astype(np.float64)
    apart = np.linalg.norm(rows[:, None] - rows[None], axis=-1) + np.diag(np.full(len(rows), np.inf))
    return float(apart.min(axis=1).mean())


def test_a_batch_is_larger_than_random_ones_and_further_apart_than_as_many_large_ones(first: SizePrior) -> None:
    chosen, plain = batch(first, 16), sample(16)
    assert len({genotype.key for genotype in chosen}) == 16
    assert np.mean(sizes(chosen)) > 1.5 * np.mean(sizes(plain))
    largest = sorted(sample(400), key=lambda genotype: -num_live_params(SPACE.lower(genotype)))[:16]
    assert nearest(chosen) > nearest(largest)


def test_without_the_size_a_batch_fills_the_space(first: SizePrior, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nao_ray.strategies.parts.first_batches.SLOPE", 0.0)
    monkeypatch.setattr("nao_ray.strategies.parts.first_batches.SLOPE_SPREAD", 0.0)
    assert nearest(batch(first, 16)) > 1.2 * nearest(sample(16))


def test_the_bound_is_that_of_a_process_with_the_size_as_a_basis_function(first: SizePrior) -> None:
    """Naively: the joint covariance of all, conditioned at once."""
    genotypes = sample(20)
    known, pending, candidates = genotypes[:5], genotypes[5:9], genotypes[9:]
    scores = np.array([0.3, 0.9, 0.5, 0.7, 0.1])
    described, normal = first._at(genotypes)
    squared = ((described[:, None] - described[None]) ** 2).sum(-1)
    kernel = sum(np.exp(-squared / (2 * length**2)) for length in (0.5, 0.75, 1.0, 1.5)) / 4
    kernel = kernel + 0.25 * np.outer(normal, normal)
    order = scores.argsort().argsort()
    targets = np.array([-1.1797611, -0.4972006, 0.0, 0.4972006, 1.1797611])[order]
    inverse = np.linalg.inv(kernel[:5, :5] + 0.1 * np.eye(5))
    mean = 0.5 * normal[9:] + kernel[9:, :5] @ inverse @ (targets - 0.5 * normal[:5])
    inverse = np.linalg.inv(kernel[:9, :9] + 0.1 * np.eye(9))
    variance = kernel.diagonal()[9:] - np.einsum("ij,jk,ik->i", kernel[9:, :9], inverse, kernel[9:, :9])
    found = first.bounds(known, scores, pending, candidates)
    assert np.allclose(found, mean + np.sqrt(variance), atol=1e-6)


def test_what_is_pending_is_avoided_and_of_equal_ones_one_is_chosen(first: SizePrior) -> None:
    one, other = sample(2)
    alone = first.bounds([], NOTHING, [], [one, one, other])
    assert alone[0] == alone[1]
    after = first.bounds([], NOTHING, [one], [one, one, other])
    assert after[0] == after[1] < alone[0] - 0.5
    assert after[2] > alone[2] - 0.3


def test_results_correct_what_was_thought_of_size(first: SizePrior) -> None:
    known = sample(30)
    worse_when_large = -np.array(sizes(known), dtype=np.float64)

    def mean_size(scores: np.ndarray) -> float:
        found = first.order(known, scores, [], set(), rng.child(0, "order"))[:10]
        return float(np.mean(sizes(found)))

    assert mean_size(worse_when_large) < 0.5 * mean_size(-worse_when_large)


def asked(workers: int, told: int, size_prior: bool = True) -> list[str]:
    config = NaoConfig(pretraining={"steps": 20, "genotypes": 60}, size_prior=size_prior)
    strategy = Nao(SPACE, config, 3, Fidelity())
    trials = [Trial(proposal=proposal) for proposal in strategy.ask(workers)]
    for index, trial in enumerate(trials[:told]):
        done = trial.complete(Measurement(valid_accuracy=0.5 + 0.001 * index), log_index=index)
        strategy.tell([done])
        trials += [Trial(proposal=proposal) for proposal in strategy.ask(1)]
    return [trial.proposal.genotype.key for trial in trials]


def test_a_search_asks_for_them_where_far_more_is_asked_than_known(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    order = SizePrior.order

    def noted(self: SizePrior, known: list[Genotype], scores: np.ndarray, pending: list[Genotype], *rest: object):  # type: ignore[no-untyped-def]
        calls.append((len(known), len(pending)))
        return order(self, known, scores, pending, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SizePrior, "order", noted)
    keys = asked(workers=20, told=8)
    assert len(set(keys)) == 28
    assert calls == [(0, k) for k in range(MORE, 20)] + [(told, 19) for told in range(1, 9)]
    assert keys == asked(workers=20, told=8), "the same in another run"
    calls.clear()
    asked(workers=MORE, told=3)
    assert not calls, "eight workers have their fits"
    asked(workers=20, told=0, size_prior=False)
    assert not calls
    monkeypatch.setattr("nao_ray.strategies.parts.first_batches.MOST", 12)
    asked(workers=20, told=0)
    assert calls == [(0, k) for k in range(MORE, 13)], "of very many workers size alone decides"
