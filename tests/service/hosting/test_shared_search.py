"""A whole search with shared weights on Ray, a worker killed in a training and the driver between two of them."""

import time
from collections import Counter

import _forks
import psutil
import pytest

from benchmarks.site import Driver, Parts, nodes
from nao_ray.config import RunConfig
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.run import run

pytestmark = [pytest.mark.slow, pytest.mark.ray]

# All that is scored is trained alone too, so that what is asked does not depend on scores, nor they on who trained.
CONFIG = """
name: ws
space: nao_cnn_small
task: {name: synthetic, per_class: 20}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 40
  recipe: {name: paper_shared, crop_padding: 1, flip: false, batch: 24, lr: 0.05}
  alone: {cells_per_stage: 1, channels: 4, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 24}}
strategy: {name: shared_random_search, rounds: 2, epochs: 4, paths: 4, scored: 4, finalists: 4, audited: 4}
budget: {trials: 100}
workers: {count: 2, max_attempts: 5}
"""


@pytest.mark.usefixtures("forked_site")
def test_it_ends_with_the_trials_of_an_undisturbed_one(tmp_path):
    config = RunConfig.parse(CONFIG)
    run(config, str(tmp_path / "whole"), in_process=True)
    pool = tmp_path / "torn"
    parts = Parts(pool)
    with nodes(1, cpus=3) as site:  # a dead driver's worker lingers
        driver = Driver(config, pool, site.address)
        driver.start()
        try:
            wait(lambda: len(training()) == 2)
            training()[0].kill()
            wait(lambda: parts.count() >= 2)  # the training, done again, and a score
            assert driver.process.poll() is None
            driver.kill()
            assert parts.count() < 14
            driver.start()
            assert driver.process.wait(600) == 0, driver.last_line()
        finally:
            driver.kill()
    assert trials(pool) == trials(tmp_path / "whole")
    opened = PoolReader.open(pool)
    assert opened.check() == []
    assert opened.log()[0].attempt > 1
    assert opened.fits()["audited"].iloc[-1] == 4
    assert opened.best(20)["weights_version"].isna().all()
    assert len(opened.best(20)) == 4


def training():
    """Processes of workers that are at a phase."""
    return [p for p in set(_forks.descendants(psutil.Process())) if title(p).startswith("ray::EvaluatorActor.train")]


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def wait(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def trials(pool):
    """What was asked and how it ended, whatever the order."""
    return Counter(
        (trial.genotype.key, trial.proposal.phase, trial.proposal.fidelity, trial.proposal.round, trial.state)
        for trial in PoolReader.open(pool).log()
    )
