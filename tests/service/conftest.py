"""One local Ray for all tests that need one; node tests make their own cluster."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import _forks
import psutil
import pytest
import ray

sys.path.insert(0, str(Path(__file__).parent))
import _misbehaving

ray.cloudpickle.register_pickle_by_value(_misbehaving)  # workers cannot import the tests


@pytest.fixture(scope="package", autouse=True)
def _end_ray():
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _no_ray_for_others(request):
    """A test that is not marked with it finds no Ray of the tests before."""
    if ray.is_initialized() and not request.node.get_closest_marker("ray"):
        ray.shutdown()


@pytest.fixture
def forked_site(monkeypatch):
    """Drivers and workers of `benchmarks.site` are forks, and it is they who are found, stopped and killed."""
    from benchmarks import site

    def tree(node):
        with suppress(psutil.Error):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            return [raylet, *_forks.descendants(raylet)]
        return []

    pipes = {name: getattr(subprocess, name) for name in ("PIPE", "STDOUT")}
    monkeypatch.setattr(site, "subprocess", SimpleNamespace(Popen=_forks.Popen, **pipes))
    monkeypatch.setattr(site, "_tree", tree)


@pytest.fixture
def ray_local():
    if not ray.is_initialized():
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            log_to_driver=False,
            configure_logging=False,
            namespace="test",
        )
