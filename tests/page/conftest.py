"""Small pools: of a search that failed at times, and of made-up rows as a NAO search has them."""

from pathlib import Path

import pyarrow as pa
import pytest

from nao_ray.bench._scale_pool import make_pool, trial_rows
from nao_ray.cli.pool import make_space
from nao_ray.config import RunConfig
from nao_ray.page.live import LivePool
from nao_ray.pool import EVENTS, TRIALS, PoolWriter
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


@pytest.fixture(scope="session")
def climbed(tmp_path_factory) -> Path:
    """A pool of a ladder, read alone: 60 after 2 epochs, in four rounds, 24 of the last two after 4, and 3 after 8.

    Fewer epochs have better scores. From round 2 on the scores after 4 epochs were predicted.
    """
    url = tmp_path_factory.mktemp("climbed") / "pool"
    same = {"epochs": 2, "state": "COMPLETED", "num_params": 10**6}
    rows = [
        {**row, **same, "round": k // 15, "valid_accuracy": 0.9 + k / 1000}
        for k, row in enumerate(trial_rows(0, 60, 60, 0).to_pylist())
    ]
    for epochs, below in ((4, range(36, 60)), (8, range(60, 63))):
        for k in below:
            further = {"trial_id": len(rows), "log_index": len(rows), "parent_trial_id": k, "epochs": epochs}
            rows.append({**rows[k], **further, "valid_accuracy": rows[k]["valid_accuracy"] - epochs / 40})
    config = {"name": "climbed", "space": "nao_cnn", "strategy": "nao", "fidelity": {"epochs": [2, 4, 8]}}
    pool = PoolWriter.create(url, {"config": config})
    with pool.acquire():
        pool.record_tables(pa.Table.from_pylist(rows, TRIALS), EVENTS.empty_table())
        pool.record_fits([{"round": 1, "num_trials": 15}, *({"round": k, "num_trials": 9, "rung": 4} for k in (2, 3))])
    return url


@pytest.fixture
def live(searched) -> LivePool:
    """The first as the page is told of it."""
    return LivePool(str(searched), make_space)


@pytest.fixture
def made(made_up) -> LivePool:
    """The second."""
    return LivePool(str(made_up), make_space)
