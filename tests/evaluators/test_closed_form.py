import math
import resource

import numpy as np
import pytest
from pydantic import ValidationError

from nao_ray import registry
from nao_ray.evaluators.closed_form import ClosedForm, ClosedFormConfig, accuracy
from nao_ray.evaluators.faulty import Faulty, FaultyConfig
from nao_ray.evaluators.parts.wrappers import FlakyEvaluator, NoisyEvaluator, SlowEvaluator
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.tasks.synthetic import Synthetic, SyntheticConfig
from nao_ray.trial import Fidelity, Proposal

SPACE = NaoCnnSmall(NaoCnnSmall.Config())
TASK = Synthetic(SyntheticConfig())


def closed_form(**settings):
    return ClosedForm(SPACE, TASK, ClosedFormConfig(**settings))


def proposals(count):
    return [Proposal(genotype=SPACE.sample(np.random.default_rng(k)), trial_id=k, seed=1000 + k) for k in range(count)]


@pytest.mark.parametrize("name", registry.names("space"))
def test_a_landscape_worth_searching_in_every_space(name):
    cls = registry.load("space", name)
    space = cls(cls.Config())
    rng = np.random.default_rng(0)
    scores = np.array([accuracy(space.lower(space.sample(rng))) for _ in range(300)])
    assert scores.min() > 0.5
    assert scores.max() < 1
    assert scores.std() > 0.02
    assert len(np.unique(scores)) > 200
    genotype = space.sample(rng)
    best = start = accuracy(space.lower(genotype))
    for _ in range(400):
        mutant = space.mutate(genotype, rng)
        if (score := accuracy(space.lower(mutant))) > best:
            genotype, best = mutant, score
    assert best > np.quantile(scores, 0.99)
    assert best > start


def test_by_hand():
    """Both cells: every node adds sep conv 3x3 and max pool of the previous cell; the formula on paper."""
    genotype = SPACE.parse(" ".join(["1 0 1 3"] * 10))
    node = (1.0 + 0.35) / 2 + 0.15  # two operations; no node reads another
    cell = node - 0.6 * (1 / 5 - 0.6) ** 2 - 0.04 * (6 - 3)  # depth 1 of 5; loose ends: state 0 and five nodes
    assert accuracy(SPACE.lower(genotype)) == pytest.approx(0.5 + 0.5 / (1 + math.exp(-6 * (cell - 0.4))))


def test_twins_score_the_same():
    rng = np.random.default_rng(0)
    tokens = np.stack([SPACE.encode(proposal.genotype) for proposal in proposals(20)])
    twins = SPACE.twins(tokens, rng)
    assert (twins != tokens).any()
    for first, second in zip(tokens, twins, strict=True):
        assert accuracy(SPACE.lower(SPACE.decode(first))) == pytest.approx(accuracy(SPACE.lower(SPACE.decode(second))))


def test_noise_follows_the_seed_and_has_its_spread():
    exact, noisy = closed_form(), closed_form(noise=0.02)
    errors = []
    for proposal in proposals(300):
        measured = noisy.evaluate(proposal).valid_accuracy
        assert measured == noisy.evaluate(proposal).valid_accuracy
        errors.append(measured - exact.evaluate(proposal).valid_accuracy)
    assert np.std(errors) == pytest.approx(0.02, rel=0.2)


def test_cost_counts_convolutions_and_the_curve_has_the_epochs():
    one = closed_form(cost_seconds=2.0)
    all_convolutions = Proposal(genotype=SPACE.parse(" ".join(["1 0 0 0"] * 10)))
    assert one.evaluate(all_convolutions).wall_seconds == pytest.approx(2.0 * 3)
    measured = one.evaluate(Proposal(genotype=all_convolutions.genotype, fidelity=Fidelity(epochs=4)))
    assert len(measured.curve) == 4
    assert list(measured.curve) == sorted(measured.curve)


def test_noisy_wrapper():
    inner = closed_form()
    wrapped = NoisyEvaluator(inner, 0.01)
    first = wrapped.evaluate(proposals(1)[0])
    assert first == wrapped.evaluate(proposals(1)[0])
    assert first.valid_accuracy != inner.evaluate(proposals(1)[0]).valid_accuracy
    assert all(0 <= NoisyEvaluator(inner, 5).evaluate(p).valid_accuracy <= 1 for p in proposals(20))


def outcome(evaluator, proposal):
    try:
        measured = evaluator.evaluate(proposal)
    except (RuntimeError, MemoryError) as error:
        return type(error).__name__
    return "nan" if math.isnan(measured.score) else "fine"


def test_flaky_wrapper_fails_its_shares_and_the_same_ones_again():
    flaky = FlakyEvaluator(closed_form(), error=0.2, out_of_memory=0.1, nan=0.1)
    outcomes = [outcome(flaky, proposal) for proposal in proposals(400)]
    assert outcomes == [outcome(flaky, proposal) for proposal in proposals(400)]
    for kind, share in (("RuntimeError", 0.2), ("MemoryError", 0.1), ("nan", 0.1), ("fine", 0.6)):
        assert outcomes.count(kind) / 400 == pytest.approx(share, abs=0.07)
    with pytest.raises(ValueError, match="at most 1 together"):
        FlakyEvaluator(closed_form(), error=0.8, nan=0.3)


def test_memory_runs_out_really_and_comes_back():
    flaky = FlakyEvaluator(closed_form(), out_of_memory=1)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    for proposal in proposals(3):
        with pytest.raises(
            MemoryError, match=rf"^made to run out of memory \(proposal {proposal.trial_id}\)$"
        ) as caught:
            flaky.evaluate(proposal)
        assert str(caught.value.__cause__).startswith("Unable to allocate 2.00 GiB")
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert len(np.zeros(2**29, dtype=np.uint8)) == 2**29


def test_slow_wrapper_waits_for_its_share():
    waits = []
    slow = SlowEvaluator(closed_form(), seconds=7.0, share=0.25, sleep=waits.append)
    for proposal in proposals(200):
        slow.evaluate(proposal)
    assert set(waits) == {7.0}
    assert len(waits) / 200 == pytest.approx(0.25, abs=0.09)


def test_faults_by_configuration():
    faulty = Faulty(SPACE, TASK, FaultyConfig(error_share=0.3, nan_share=0.2))
    outcomes = {outcome(faulty, proposal) for proposal in proposals(60)}
    assert outcomes == {"RuntimeError", "nan", "fine"}
    with pytest.raises(ValidationError, match="at most 1 together"):
        FaultyConfig(error_share=0.7, nan_share=0.4)
