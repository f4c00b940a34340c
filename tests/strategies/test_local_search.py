"""Local search: climbs to local optima, by the rule."""

import itertools

import pytest

from nao_ray.evaluators.closed_form import accuracy
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies.local_search import LocalSearch, LocalSearchConfig, neighbours
from nao_ray.trial import Fidelity
from tests.strategies._search import check_restored, search

SPACE = NasBench201(NasBench201Config(ops=("none", "nor_conv_1x1", "nor_conv_3x3")))


def strategy(space=SPACE, **settings):
    return LocalSearch(space, LocalSearchConfig(**settings), 5, Fidelity())


def value(genotype, space=SPACE):
    return accuracy(space.lower(genotype))


def test_neighbours_are_all_cells_one_operation_away():
    space = NasBench201()
    best = space.parse(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    )
    found = neighbours(space, best)
    assert len({genotype.key for genotype in found}) == len(found) <= 24, "6 edges, 4 other operations"
    tokens = space.encode(best)
    assert {int((space.encode(genotype) != tokens).sum()) for genotype in found} <= {1, 2, 3, 4}
    empty = space.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert len(neighbours(space, empty)) < 24, "most edges alone change nothing"


def test_neighbours_of_a_cell_with_sources():
    space = NaoCnnSmall()
    genotype = space.parse("0 1 0 2 0 1 2 2 1 3 0 2 4 0 1 3 2 1 0 3 1 1 1 0 2 1 2 4 1 0 2 3 3 1 2 2 0 2 0 2")
    found = {neighbour.key for neighbour in neighbours(space, genotype)}
    assert space.canonical(genotype).key not in found
    assert len(found) > 100


def expected_sources(trials):
    """Per trial, whom the rule of steepest ascent derives it from; None for a random start."""
    by_key = {}
    summit, sources = None, []
    for trial in trials:
        while summit is not None:
            around = [genotype.key for genotype in neighbours(SPACE, summit.genotype)]
            if any(key not in by_key for key in around):
                break
            best = max((by_key[key] for key in around), key=lambda t: (t.score, -t.trial_id))
            summit = best if best.score > summit.score else None
        sources.append(None if summit is None else summit.trial_id)
        by_key[trial.genotype.key] = trial
        summit = summit or trial
    return sources


def test_one_worker_climbs_by_the_rule():
    trials = search(strategy(), 150, in_flight=1, fails=lambda k: False)
    sources = [trial.proposal.source_trial_id for trial in trials]
    assert sources == expected_sources(trials)
    assert sources.count(None) >= 2, "it started anew"
    assert len(set(sources)) >= 6, "it moved"
    for trial in trials:
        if (source := trial.proposal.source_trial_id) is not None:
            assert trial.genotype in neighbours(SPACE, trials[source].genotype)


def test_first_improvement_moves_at_once():
    trials = search(strategy(move="first"), 60, in_flight=1, fails=lambda k: False)
    moves = 0
    for before, trial in itertools.pairwise(trials):
        source, then = before.proposal.source_trial_id, trial.proposal.source_trial_id
        if source is not None and then is not None and before.score > trials[source].score:
            moves += 1
            assert trials[then].score >= before.score
    assert moves >= 5


def test_starts_from_the_best_of_several():
    trials = search(strategy(starts=5), 12, in_flight=1, fails=lambda k: k == 1)
    seeds = [trial for trial in trials[:6] if trial.score is not None]
    assert len(seeds) == 5
    best = max(seeds, key=lambda trial: trial.score)
    assert {trial.proposal.source_trial_id for trial in trials[6:]} == {best.trial_id}


@pytest.mark.parametrize("settings", [{}, {"move": "first"}, {"starts": 3}])
@pytest.mark.parametrize("in_flight", [1, 4])
def test_restored_anywhere_it_goes_on_the_same(settings, in_flight):
    check_restored(lambda: strategy(**settings), 90, range(0, 90, 11), in_flight=in_flight)


def test_workers_never_wait_while_the_space_lasts():
    searching = strategy()
    assert len(searching.ask(40)) == 40
    space = NasBench201(NasBench201Config(ops=("none", "nor_conv_3x3")))
    small = strategy(space)
    trials = search(small, 1000)
    assert small.done
    keys = [trial.genotype.key for trial in trials]
    assert len(set(keys)) == len(keys) == space.num_architectures


def test_all_trials_may_fail():
    trials = search(strategy(), 20, fails=lambda k: True)
    assert [trial.proposal.source_trial_id for trial in trials] == [None] * 20
