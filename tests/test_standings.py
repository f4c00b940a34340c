"""Which trial is the best, whatever the order in which trials become known."""

import itertools

import pytest

from nao_ray.standings import Standing, Standings, after

V1_OLD, V2_BEST, V1_GOOD, V2_LAST = (
    Standing(0.9, 0, "v1"),
    Standing(0.5, 10, "v2"),
    Standing(0.8, 11, "v1"),
    Standing(0.4, 12, "v2"),
)


@pytest.mark.parametrize("order", list(itertools.permutations((V1_OLD, V2_BEST, V1_GOOD, V2_LAST))))
def test_of_versions_the_newest_counts_in_any_order(order):
    found = Standings(order, keep=9)
    assert (found.version, found.best) == ("v2", V2_BEST)
    assert found.top() == [V2_BEST, V2_LAST]


@pytest.mark.parametrize("order", list(itertools.permutations((V2_BEST, Standing(0.1, 3), Standing(0.1, 7)))))
def test_weights_of_its_own_go_before_shared_ones_and_ties_by_id(order):
    found = Standings(order)
    assert found.version is None
    assert found.best == Standing(0.1, 3)


def test_what_is_no_number_has_no_standing():
    found = Standings([None, Standing(float("nan"), 0), Standing(float("inf"), 1)], keep=5)
    assert (found.best, found.top()) == (None, [])
    assert found.add(Standing(-3.0, 2))
    assert not found.add(Standing(-4.0, 3))
    assert found.add(Standing(-2.0, 4))
    assert [standing.trial_id for standing in found.top()] == [4, 2, 3]


def test_as_many_as_wanted_are_kept():
    found = Standings((Standing(score / 7, score) for score in (3, 1, 4, 5, 2, 6)), keep=3)
    assert [standing.trial_id for standing in found.top()] == [6, 5, 4]
    assert Standings([V1_OLD], keep=0).top() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_highest_rung_of_a_ladder_comes_first(order):
    trials = [Standing(0.9, 0), Standing(0.4, 1, rung=9), Standing(0.5, 2, rung=9), Standing(0.8, 3, rung=3)]
    found = Standings([trials[k] for k in order], keep=3)
    assert found.best == trials[2]
    assert found.top() == [trials[2], trials[1], trials[3]]


def test_a_rung_is_told_in_words():
    assert [after(epochs) for epochs in (1, 2)] == ["after 1 epoch", "after 2 epochs"]
