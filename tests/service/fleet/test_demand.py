"""How many workers are asked for."""

import math

import pytest

from nao_ray.service.fleet.demand import Demand, can_grow


def test_without_an_autoscaler_nothing_is_asked_for_that_no_node_holds():
    demand = Demand(None, grows=lambda: False)
    demand.look(4, 0.0)
    assert demand.present == 4
    assert [demand.wanted(work) for work in (0, 3, 4, 1000, math.inf)] == [0, 3, 4, 4, 4]


def test_a_cluster_that_holds_nothing_is_asked_for_one_worker():
    demand = Demand(None, grows=lambda: False)
    demand.look(0, 0.0)
    assert demand.present == 1
    assert demand.wanted(10) == 1


def test_with_an_autoscaler_a_step_more_is_asked_for_as_far_as_there_is_work():
    demand = Demand(None, grows=lambda: True)
    demand.look(0, 0.0)
    assert demand.present == 1  # proposals are not asked for machines that are not there
    assert demand.wanted(math.inf) == 32
    assert demand.wanted(5) == 5
    demand.look(100, 3.0)
    assert demand.present == 100
    assert demand.wanted(math.inf) == 200


def test_an_autoscaler_at_its_limit_is_asked_for_one_more_until_the_nodes_change():
    demand = Demand(None, grows=lambda: True)
    for now, holds, wanted in [(0, 0, 32), (100, 8, 40), (690, 8, 40), (710, 8, 9), (900, 7, 39), (910, 8, 40)]:
        demand.look(holds, now)
        assert demand.wanted(math.inf) == wanted, now


def test_time_without_a_want_of_nodes_does_not_count_against_the_autoscaler():
    demand = Demand(None, grows=lambda: True)
    demand.look(2, 0.0)
    assert demand.wanted(1) == 1
    demand.look(2, 10_000.0)
    assert demand.wanted(math.inf) == 34


def test_a_head_that_is_away_is_asked_another_time():
    answers = iter([OSError("no answer"), True])

    def grows():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    demand = Demand(None, grows=grows)
    wanted = []
    for look in range(21):
        demand.look(4, 3.0 * look)
        wanted.append(demand.wanted(math.inf))
    assert wanted == [4] * 20 + [36]


def test_a_count_is_asked_for_whatever_the_cluster_is():
    asked = []
    demand = Demand(8, grows=lambda: bool(asked.append(1)))
    demand.look(2, 0.0)
    assert demand.present == 2
    assert [demand.wanted(work) for work in (3, math.inf)] == [3, 8]
    demand.look(20, 3.0)
    assert demand.present == demand.wanted(math.inf) == 8
    assert not asked


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_this_machine_does_not_grow():
    assert not can_grow()
