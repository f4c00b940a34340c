"""The cluster files started for real: one machine, two hosts over a stand-in for ssh, a job over one for Slurm."""

import json
import signal
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pandas as pd
import psutil
import pytest
from _site import HEAD, ROOT, STAND_INS, VENV, WORKER
from _small_ray import FRUGAL

pytestmark = pytest.mark.ray

HELLO = ["python", "-c", "import os; print('mode', os.environ['RAY_AUTH_MODE'])"]
WHERE = ["python", "-c", """
import ray
ray.init()
@ray.remote(num_cpus=1)
class Worker:
    def where(self):
        return ray.util.get_node_ip_address()
print('ran on', sorted(ray.get([worker.where.remote() for worker in [Worker.remote(), Worker.remote()]])))
"""]  # fmt: skip


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=600) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def _listening(site) -> dict[int, set[str]]:
    """Port -> addresses that the site's processes listen on."""
    ours = {process.pid for process in site.processes()}
    found: dict[int, set[str]] = {}
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.pid in ours:
            found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return found


def test_one_machine(site):
    """What `ray start` starts are processes of their own here, as a user's are."""
    site.environment["PATH"] = f"{VENV / 'bin'}:/usr/bin:/bin"
    for name in FRUGAL:
        del site.environment[name]
    done = site.up("machine.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.address in done.stdout
    token = site.home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert site.script("machine.sh", "up").stdout.startswith("Ray is up already")
    assert site.script("machine.sh", "status").returncode == 0
    assert _listening(site)[site.ports + 1] == {"127.0.0.1"}, "the dashboard is on loopback alone"
    secret = token.read_text()
    assert not any(secret in word for process in site.processes() for word in process.cmdline())

    assert _status(site.address + "/api/jobs/") == 401
    nobody = site.home / "nobody"
    nobody.mkdir()
    for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        refused = site.submit(*HELLO, home="nobody", PATH=f"{STAND_INS / 'bin'}:/usr/bin:/bin", **variables)
        assert refused.returncode != 0
        assert "AuthenticationError" in refused.stderr
    accepted = site.submit(*HELLO)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "mode token" in accepted.stdout

    done = site.script("machine.sh", "down")
    assert done.stdout == "Ray is down\n"
    assert site.left() == []
    assert site.script("machine.sh", "status").returncode == 1


def test_fixed_hosts(site):
    variables = {"HEAD": HEAD, "WORKERS": WORKER, "SSH": str(site.home / "here"), "VENV": str(STAND_INS)}
    (site.home / WORKER / ".ray").mkdir()
    other = site.home / WORKER / ".ray" / "auth_token"
    other.write_text("another cluster's")
    refused = site.up("hosts.sh", **variables)
    assert refused.returncode == 1
    assert "another token" in refused.stderr
    assert f"not up: {WORKER}" in refused.stderr
    assert other.read_text() == "another cluster's"

    other.unlink()
    done = site.up("hosts.sh", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "already" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1].startswith(f"{WORKER}: Ray is up")
    tokens = [site.home / host / ".ray" / "auth_token" for host in (HEAD, WORKER)]
    assert tokens[0].read_text() == tokens[1].read_text() != ""
    assert stat.S_IMODE(tokens[1].stat().st_mode) == 0o600
    assert _status(site.address + "/api/jobs/") == 401
    ran = site.submit(*WHERE, home=HEAD)
    assert f"ran on ['{HEAD}', '{WORKER}']" in ran.stdout, ran.stdout + ran.stderr

    done = site.script("hosts.sh", "down", **variables)
    assert done.stdout == f"{WORKER}: Ray is down\n{HEAD}: Ray is down\n"
    assert site.left() == []


SCONTROL = """#!/usr/bin/env bash
case $1 in
    show) printf '%s\\n' {head} {worker} ;;
    requeue) echo "$2" >>{home}/requeued ;;
esac
"""
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "$1" >>{home}/srun; shift; done
exec {home}/here {worker} "$(printf '%q ' "$@")"
"""


@pytest.mark.slow
def test_slurm_stops_the_search_at_the_time_limit_and_queues_again(site, tmp_path):
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(head=HEAD, worker=WORKER, home=tmp_path))
        path.chmod(0o755)
    token = tmp_path / "token"
    environment = {
        **site.environment,
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "RAY_AUTH_TOKEN_PATH": str(token),  # the home of both nodes is one, on Slurm
        "NODE_IP": HEAD,
        "VENV": str(STAND_INS),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    pool = tmp_path / "pool"
    words = ["smoke", "--pool", str(pool), "--set", "budget.trials=1000"]
    words += ["--set", "evaluator={name: faulty, sleep_seconds: 0.3}"]
    with (tmp_path / "output").open("w+") as output:
        job = subprocess.Popen(
            ["bash", str(ROOT / "cluster" / "slurm.sh"), *words],
            cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait_for(lambda: len(_trials(pool)) >= 4, job, tmp_path / "output")
            job.send_signal(signal.SIGTERM)
            code = job.wait(600)
        finally:
            job.kill()
    said = (tmp_path / "output").read_text()
    assert code == 130, said
    assert f"nao-ray resume {pool} goes on" in said
    assert (tmp_path / "requeued").read_text() == "77\n"
    assert f"--exclude={HEAD}" in (tmp_path / "srun").read_text().splitlines()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert 4 <= len(_trials(pool)) < 1000
    assert site.left() == []
    assert json.dumps(token.read_text())[1:-1] not in said


def _trials(pool: Path) -> pd.DataFrame:
    return pd.read_parquet(pool / "trials") if (pool / "run.yaml").is_file() else pd.DataFrame()


def _wait_for(condition, job, output) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert job.poll() is None, output.read_text()
        assert time.monotonic() < end, output.read_text()
        time.sleep(0.2)
