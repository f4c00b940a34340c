"""Regularized evolution: the published sizes, tunable, and what is asked."""

import pytest
from pydantic import ValidationError

from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.local_search import neighbours
from nao_ray.strategies.regularized_evolution import EvolutionConfig, RegularizedEvolution
from nao_ray.trial import Fidelity
from tests.strategies._search import check_restored, search

SPACE = NasBench201()


def strategy(**settings):
    return RegularizedEvolution(SPACE, EvolutionConfig(**settings), 0, Fidelity())


def test_the_default_sizes_are_the_papers():
    assert (EvolutionConfig().population, EvolutionConfig().sample) == (100, 25)
    with pytest.raises(ValidationError, match="sample must be at most population, which is 10"):
        EvolutionConfig(population=10)


def test_random_until_the_population_is_full_then_mutants_of_the_living():
    trials = search(strategy(population=20, sample=20), 80, in_flight=1, fails=lambda k: False)
    assert all(trial.proposal.source_trial_id is None for trial in trials[:20])
    children = [trial for trial in trials[20:] if trial.proposal.source_trial_id is not None]
    assert len(children) > 50, "the others are random: every mutant of their parent was asked before"
    for trial in children:
        source = trial.proposal.source_trial_id
        assert trial.trial_id - 20 <= source < trial.trial_id, "the dead have no children"
        living = trials[trial.trial_id - 20 : trial.trial_id]
        assert trials[source].score == max(parent.score for parent in living), "the sample is the whole population"
    one_away = [
        trial.genotype in neighbours(SPACE, trials[trial.proposal.source_trial_id].genotype) for trial in children
    ]
    assert sum(one_away) > 0.8 * len(children), "the others mutate a twin of their parent"


@pytest.mark.parametrize("in_flight", [1, 4])
def test_restored_anywhere_it_goes_on_the_same(in_flight):
    check_restored(lambda: strategy(population=10, sample=4), 50, range(0, 50, 7), in_flight=in_flight)
