"""Small pools: of a search that failed at times, and of made-up rows as a NAO search has them."""

from pathlib import Path

import pytest

from nao_ray.bench._scale_pool import make_pool
from nao_ray.cli.pool import make_space
from nao_ray.config import RunConfig
from nao_ray.page.live import LivePool
from nao_ray.service.hosting.run import run

CONFIG = """
name: tiny
seed: 3
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, noise: 0.01, error_share: 0.15, nan_share: 0.1}
strategy: {name: regularized_evolution, population: 8, sample: 3}
budget: {trials: TRIALS}
"""


@pytest.fixture(scope="session")
def searched(tmp_path_factory) -> Path:
    """The pool of a search of 30 trials, some of which failed; it is read alone."""
    url = tmp_path_factory.mktemp("searched") / "pool"
    run(RunConfig.parse(CONFIG.replace("TRIALS", "30")), str(url), in_process=True)
    return url


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> Path:
    """A pool of 300 rows with embeddings and predictions; it is read alone."""
    url = tmp_path_factory.mktemp("made-up") / "pool"
    make_pool(url, 300, 0)
    return url


@pytest.fixture
def live(searched) -> LivePool:
    """The first as the page is told of it."""
    return LivePool(str(searched), make_space)


@pytest.fixture
def made(made_up) -> LivePool:
    """The second."""
    return LivePool(str(made_up), make_space)
