"""Real workers: what is measured of them, and that one that trains nothing does not load torch."""

import sys

import _forks
import pytest
import ray

from nao_ray.bench import _scale_real
from nao_ray.bench._scale_course import Course
from nao_ray.bench._scale_real import against_tune, many_workers
from nao_ray.config import Component
from nao_ray.errors import ConfigError, RunError
from nao_ray.service.fleet.actors import EvaluatorActor, EvaluatorFactory
from nao_ray.service.hosting.run import run


def test_the_cost_of_a_trial_leaves_out_what_came_before(monkeypatch):
    moments = iter([0.0, 5.0, 6.0, 8.0])
    monkeypatch.setattr("nao_ray.bench._scale_course.time.perf_counter", lambda: next(moments))
    course = Course()
    for finished, running in ((2, 2), (4, 3), (8, 1)):
        course.add(finished, running)
    assert course.cost(0.0).wall == 0.5  # 6 trials in 3 s
    assert course.cost(0.5).wall == 0.5  # 4 trials in 2 s
    assert course.cost(0.0).busy == pytest.approx((2 * 1 + 3 * 2) / 3)


@pytest.mark.parametrize("text", ["", "2,x", "0,2"])
def test_trials_at_once_are_numbers(text):
    with pytest.raises(ConfigError, match="expected numbers"):
        against_tune(text, 10, 10, 1, 0)


def test_fewer_trials_than_keep_the_workers_busy_are_refused():
    with pytest.raises(ConfigError, match="7 trials keep no 4 workers busy; give 8 or more"):
        _scale_real.measure(trials=7, workers=4)


def test_a_pool_that_lacks_a_trial_is_no_measurement(tmp_path):
    run(_scale_real._config(3, 1, 0), str(tmp_path / "p"), in_process=True)
    _scale_real._check_pool(str(tmp_path / "p"), 3)
    with pytest.raises(RunError, match="3 rows in the pool, expected 4"):
        _scale_real._check_pool(str(tmp_path / "p"), 4)


class _Witness(EvaluatorActor):
    def modules(self):
        return set(sys.modules)


@pytest.fixture(scope="module")
def ray_own():
    """A Ray whose workers start as a user's do, and are no forks."""
    ray.shutdown()  # another module's, in whatever order they run
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(_forks.PLACE)
        ray.init(
            address="local", num_cpus=4, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False
        )
        yield
        ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_own")
def test_a_worker_that_trains_nothing_has_no_torch():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    actor = ray.remote(num_cpus=1)(_Witness).remote()
    config = _scale_real._config(1, 1, 0).model_copy(update={"evaluator": Component(name="closed_form")})
    ray.get(actor.start.remote(EvaluatorFactory(config.to_yaml())))
    loaded = ray.get(actor.modules.remote())
    assert "nao_ray.evaluators.closed_form" in loaded
    assert {"torch", "torchvision", "pandas", "scipy", "sklearn"} & loaded == set()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_own")
def test_a_search_on_real_workers():
    rows = {row.measurement: row for row in many_workers(trials=40, workers=2, seed=0)}
    assert rows["real workers: trials in the pool"].figure == "40 of 40, each once"
    assert rows["real workers: start-up"].data["seconds"] > 0
    memory = rows["real workers: memory of each"].data
    assert len(memory["own_bytes"]) == 2
    assert memory["with_torch"] == 0
    cost = rows["real workers: cost of a trial"].data
    assert 0 < cost["cpu_seconds"] < cost["wall_seconds"]
