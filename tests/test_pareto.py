"""Ranks, crowding and hypervolumes against what the definitions say, one by one."""

import numpy as np
import pytest

from nao_ray import pareto
from nao_ray.errors import ConfigError
from nao_ray.metric import ACCURACY
from nao_ray.pareto import Aim, Front


def beats(a, b):
    return (a >= b).all() and (a > b).any()


def ranks_by_definition(values):
    found, left, rank = np.full(len(values), -1), set(range(len(values))), 0
    while left:
        first = {i for i in left if not any(beats(values[j], values[i]) for j in left)}
        found[list(first)] = rank
        left, rank = left - first, rank + 1
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_ranks_are_those_of_the_definition(objectives):
    values = np.random.default_rng(objectives).integers(0, 6, size=(60, objectives)).astype(float)  # with ties
    found = pareto.ranks(values)
    assert found.tolist() == ranks_by_definition(values).tolist()
    assert pareto.front(values).tolist() == (found == 0).tolist()
    assert pareto.ranks(values, most=2).tolist() == np.minimum(found, 2).tolist()


def test_what_is_not_finite_has_no_rank():
    values = np.array([[1.0, 1.0], [np.nan, 9.0], [np.inf, 0.0], [0.0, 0.0]])
    assert pareto.ranks(values).tolist() == [0, -1, -1, 1]
    assert pareto.order(values).tolist() == [0, 3]


def test_order_is_by_rank_then_by_the_first_objective():
    values = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [2.0, 1.0], [0.0, 0.0]])
    assert pareto.order(values).tolist() == [2, 1, 0, 3, 4]


def test_crowding_counts_spans_and_keeps_the_ends():
    values = np.array([[0.0, 10.0], [1.0, 8.0], [3.0, 4.0], [4.0, 0.0]])
    assert pareto.crowding(values).tolist() == [np.inf, 3 / 4 + 6 / 10, 3 / 4 + 8 / 10, np.inf]


def test_hypervolume_by_hand():
    assert pareto.hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0]]), [0, 0]) == 6
    assert pareto.hypervolume(np.array([[2.0, 2.0], [9.0, -1.0], [np.nan, 1.0]]), [1, 0]) == 2
    assert pareto.hypervolume(np.array([[1.0, 1.0, 1.0], [2.0, 0.5, 0.5]]), [0, 0, 0]) == pytest.approx(1.25)
    assert pareto.hypervolume(np.empty((0, 2)), [0, 0]) == 0


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_is_the_share_of_points_that_are_dominated(objectives):
    generator = np.random.default_rng(objectives)
    values = generator.random((12, objectives))
    drawn = generator.random((200_000, objectives))
    dominated = (values[:, None] >= drawn[None]).all(axis=2).any(axis=0).mean()
    assert pareto.hypervolume(values, [0] * objectives) == pytest.approx(dominated, abs=0.005)


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_course_is_the_hypervolume_of_each_beginning(objectives):
    values = np.random.default_rng(9).integers(-1, 8, size=(40, objectives)).astype(float)
    values[5, 0] = np.nan
    reference = [0.5] * objectives
    course = pareto.hypervolumes(values, reference)
    assert course == pytest.approx([pareto.hypervolume(values[: n + 1], reference) for n in range(40)])


def test_worst_is_the_least_of_each():
    assert pareto.worst(np.array([[1.0, 5.0], [2.0, 3.0], [np.nan, 0.0]])).tolist() == [1, 3]
    assert np.isnan(pareto.worst(np.empty((0, 2)))).all()


def test_an_aim_is_a_column_with_a_sign():
    assert Aim.parse(" -macs ") == Aim("macs", less_is_better=True)
    assert str(Aim.parse("-macs")) == "-macs"
    assert Aim.parse("valid_accuracy").signed(0.5) == 0.5
    assert Aim.parse("-macs").signed(3) == -3
    with pytest.raises(ConfigError, match="expected the name of a column"):
        Aim.parse(" - ")


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_gain_is_what_a_row_adds_to_the_hypervolume(objectives):
    generator = np.random.default_rng(1)
    known, others = generator.integers(-1, 9, (15, objectives)), generator.integers(-2, 11, (40, objectives))
    reference = [0.0] * objectives
    volume = pareto.hypervolume(known, reference)
    expected = [pareto.hypervolume(np.vstack([known, row]), reference) - volume for row in others]
    assert pareto.gains(others.astype(float), known.astype(float), reference) == pytest.approx(expected)
    assert max(expected) > 0


def test_crowded_order_is_by_rank_then_by_room():
    values = np.array([[0.0, 9.0], [4.0, 5.0], [5.0, 4.5], [9.0, 0.0], [0.0, 0.0], [np.nan, 1.0]])
    assert pareto.crowded_order(values).tolist() == [0, 3, 2, 1, 4, 5]


def test_a_front_says_what_it_is_and_where_it_stands():
    values = np.array([[0.9, -30.0], [0.5, -10.0], [0.4, -20.0], [0.6, np.nan]])
    found = Front.of(np.array([4, 7, 8, 9]), values, (Aim("valid_accuracy"), Aim("macs", less_is_better=True)))
    assert found.plain == {
        "objectives": ["valid_accuracy", "-macs"],
        "trials": [4, 7],
        "hypervolume": pytest.approx(0.1 * 20),
        "reference": {"valid_accuracy": 0.4, "macs": 30},
    }
    assert str(found).startswith("2 trials that none beats in valid_accuracy, -macs; hypervolume 2, above the worst of")
    assert Front.of(np.array([], dtype=int), np.empty((0, 2)), found.objectives).trials == ()


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["valid_accuracy"], "expected valid_accuracy and others, each once"),
        (["macs", "num_params"], "expected valid_accuracy and others"),
        (["valid_accuracy", "-macs", "-macs"], "each once"),
        (["-valid_accuracy", "-macs"], "-valid_accuracy has the wrong sign, expected valid_accuracy"),
        (["valid_accuracy", "-flops"], "no flops that can be aimed at; they have valid_accuracy, num_params, macs"),
    ],
)
def test_objectives_that_trials_do_not_have_are_refused(texts, message):
    with pytest.raises(ConfigError, match=message):
        pareto.check_objectives(texts, ACCURACY, ("num_params", "macs"))
