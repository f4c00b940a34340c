"""kill -9 of driver, worker and controller at random moments of a real search, six times in one run."""

from collections import Counter

import pytest

from nao_ray.bench import chaos


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
@pytest.mark.parametrize(("workers", "seed"), [(1, 0), (2, 1)])
def test_a_search_killed_six_times_ends_as_an_unbroken_one(workers, seed):
    result = chaos.run(faults=6, trials=30, seed=seed, workers=workers)
    assert len(result.data["kills"]) == 6
    assert set(result.data["kills"]) == set(chaos.VICTIMS)
    assert result.data["wrong"] == []
    assert result.data["problems"] == []
    broken = dict(zip(result.columns, result.rows[1], strict=True))
    kills = Counter(result.data["kills"])
    assert broken["drivers"] == 1 + kills["driver"]
    assert broken["attempts"] >= 30 + kills["worker"] - 1  # one may have been between two trials


def test_plans_follow_from_the_seed_and_leave_nobody_out():
    assert chaos.plan(5, 30, 1, 0) == chaos.plan(5, 30, 1, 0) != chaos.plan(5, 30, 1, 1)
    for seed in range(20):
        plan = chaos.plan(5, 30, 2, seed)
        assert {victim for victim, _, _ in plan} == set(chaos.VICTIMS)
        moments = [moment for _, moment, _ in plan]
        assert moments == sorted(moments)
        assert 1 <= moments[0] <= moments[-1] < 30 - 3 * 2
    assert len(chaos.plan(2, 30, 1, 0)) == 2
