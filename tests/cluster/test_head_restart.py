"""The head is lost and a new one, which knows nothing of the old cluster, takes its address."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import _forks
import pandas as pd
import pytest
import yaml
from _site import HEAD, WORKER

from nao_ray.pool import PoolReader

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NEW_HEAD = "127.0.0.4"
CONFIG = {
    "name": "t",
    "space": "nao_cnn_small",
    "task": "synthetic",
    "evaluator": {"name": "closed_form", "sleep_seconds": 0.5},
    "strategy": {"name": "regularized_evolution", "population": 8, "sample": 3},
    "budget": {"trials": 5000},  # more than the old cluster comes to
    "workers": {"count": 2, "cpus": 1},
}
DRIVER = """
import functools, sys, ray
ray.init = functools.partial(ray.init, _node_ip_address=sys.argv.pop(1))  # the machine it stands for
from nao_ray.cli.app import main
main(sys.argv[1:])
"""


class Hosts:
    """Machines that are addresses of this one, each with a temp folder of its own; one home holds the token."""

    def __init__(self, site) -> None:
        self.site = site
        self.head = f"{HEAD}:{site.ports}"
        (site.home / "c.yaml").write_text(yaml.safe_dump(CONFIG))

    def up(self, host: str, *words: str, cpus: int) -> None:
        number = host.rpartition(".")[2]
        ports = self.site.ports + 100 * int(number)
        temp = self.site.temp / number
        temp.mkdir(exist_ok=True)
        done = self.site.up(
            "machine.sh",
            *words,
            NODE_IP=host,
            NODE_PORTS=str(ports),
            WORKER_PORTS=f"{ports + 10}-{ports + 60}",
            TEMP_DIR=str(temp),
            STATE_DIR=str(self.site.home / host / "state"),
            NUM_CPUS=str(cpus),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self, host: str) -> None:
        os.killpg(int((self.site.home / host / "state" / "pid").read_text()), signal.SIGKILL)

    def search(self, host: str, *words: str) -> subprocess.Popen:
        """A driver on a host."""
        variables = {"HOME": str(self.site.home), "RAY_AUTH_MODE": "token", "RAY_ADDRESS": self.head}
        command = [sys.executable, "-c", DRIVER, host, "search", "c.yaml", "--pool", "p", *words]
        return _forks.Popen(
            command, env=self.site.environment | variables, cwd=self.site.home, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture
def hosts(site):
    (site.home / NEW_HEAD).mkdir()
    return Hosts(site)


def test_the_same_command_on_the_new_cluster_goes_on_and_the_old_driver_ends(hosts, site):
    """The old driver and its workers, on another machine, compute on while there is no head."""
    pool = site.home / "p"
    hosts.up(HEAD, cpus=0)
    hosts.up(WORKER, hosts.head, cpus=2)
    old = hosts.search(WORKER)
    new = None
    try:
        _wait_for(lambda: _finished(pool) >= 6, old)
        hosts.kill(HEAD)
        before = _finished(pool)
        _wait_for(lambda: _finished(pool) >= before + 1, old)  # more, unless the controller was on the head
        hosts.head = f"{NEW_HEAD}:{site.ports}"  # the old one's port, where the old cluster looks for its head
        hosts.up(NEW_HEAD, cpus=2)
        new = hosts.search(NEW_HEAD, "--wait", "60")
        said, _ = old.communicate(timeout=600)
        assert old.returncode == 1, said
        assert "nao-ray: the cluster is gone: its head was restarted" in said
        assert "*** StackTrace" not in said
        written = _parts(pool, epoch=1)
        _wait_for(lambda: _finished(pool, "e000002") >= 10, new)
        new.send_signal(signal.SIGTERM)
        said, _ = new.communicate(timeout=600)
        assert new.returncode == 130, said
    finally:
        for driver in (old, new):
            if driver is not None:
                driver.kill()
                driver.communicate()
    assert _parts(pool, epoch=1) == written
    frame = pd.read_parquet(pool / "trials")
    assert not frame["trial_id"].duplicated().any()
    assert [line for line in PoolReader.open(pool).check() if "no final row" not in line] == []
    lost = frame[frame["attempt"] == 2]["trial_id"]
    assert len(lost) <= 2, "what was running when the old driver ended"


def _finished(pool: Path, epoch: str = "e000001") -> int:
    return len(list((pool / "trials").glob(f"{epoch}-*.parquet")))


def _parts(pool: Path, epoch: int) -> list[str]:
    return sorted(path.name for path in pool.glob(f"*/e{epoch:06d}-*.parquet"))


def _wait_for(condition, driver: subprocess.Popen) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.1)
