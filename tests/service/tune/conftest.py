"""A Ray for Tune."""

import pytest
import ray


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs, workers that have loaded Tune, and no files of its loggers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        patch.setenv("RAY_AIR_NEW_OUTPUT", "0")
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # for forks that have loaded it
        ray.shutdown()
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
            configure_logging=False,
        )
        yield
        ray.shutdown()
