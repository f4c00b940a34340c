"""The commands as a user types them, on a cluster that asks for a token: what they say, what they leave behind.

The cluster's Pythons, the jobs' too, are forks that have loaded what they need (`_forks.py`), but where a test wants
them `anew`.
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import _forks
import pandas as pd
import psutil
import pytest
import requests
import yaml
from _small_ray import FRUGAL

from nao_ray.pool import PoolReader
from nao_ray.service.hosting.manifest import source_revision
from nao_ray.service.jobs.packing import job_name

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
SLOW = """
name: slow
space: nao_cnn_small
task: synthetic
evaluator: {name: faulty, sleep_seconds: 0.4}
strategy: mine:Evolves
budget: {trials: 24}
workers: {count: 1}
"""
MINE = """
from nao_ray.strategies.regularized_evolution import RegularizedEvolution

class Evolves(RegularizedEvolution):
    pass
"""
WRONG = "raise RuntimeError('a file of the folder was loaded')"
PROGRAMS = _forks.environment_of_stand_ins() / "bin"
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
PORTS += ("runtime-env-agent-port", "metrics-export-port", "ray-client-server-port")


def _free_ports(number):
    """Of those that no connection is given by the system: one of its own took the port between this and Ray's start."""
    found = set()
    while len(found) < number:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("", port))
            found.add(port)
    return list(found)


def _start_head(folder):
    """One head on loopback with two CPUs: its process, and the address of its dashboard."""
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += ["--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
    options += [
        "--no-monitor",
        "--include-log-monitor=false",
        "--object-store-memory=80000000",
        f"--temp-dir={folder}/r",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    environment |= FRUGAL | {_forks.ANEW: str(folder / "anew")}
    environment["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"  # as in an activated environment
    with open(folder / "said", "w") as said:
        words = [str(PROGRAMS / "ray"), "start", *options]
        head = subprocess.Popen(words, env=environment, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
    while head.poll() is None and "Ray runtime started" not in (folder / "said").read_text():
        time.sleep(0.5)
    return head, f"http://127.0.0.1:{ports['dashboard-port']}"


def _processes(head, folder):
    """The head, what it has started, and what heads before it have left: those have the folder in their words."""
    mine = [p for p in psutil.process_iter(["cmdline"]) if any(str(folder) in word for word in p.info["cmdline"] or ())]
    return _forks.family([*mine, psutil.Process(head.pid)] if head.poll() is None else mine)


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of one machine, and its token."""
    folder = Path(tempfile.mkdtemp(prefix="nj", dir="/tmp"))  # short: it holds sockets
    token = secrets.token_hex(32)
    (folder / "token").write_text(token)
    try:
        for _ in range(4):  # Ray gives up after 30 s, which a busy machine may need
            head, address = _start_head(folder)
            if head.poll() is None:
                break
        assert head.poll() is None, (folder / "said").read_text()
        yield SimpleNamespace(address=address, token=token, token_path=folder / "token", anew=folder / "anew")
        assert head.poll() is None, f"the cluster ended by itself: {(folder / 'said').read_text()}"
    finally:
        started = _processes(head, folder)  # and no other child of this process: the tests before may share a Ray
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait(timeout=600)
        assert _forks.wait_for_end(started) == []
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def anew(cluster):
    """While its file is there, driver and workers of a job are no forks: they load what was carried there."""
    cluster.anew.touch()
    yield
    cluster.anew.unlink(missing_ok=True)


@pytest.fixture
def start(cluster, tmp_path):
    """`start("status")` -> the running command, in a folder of its own, with the cluster's address and token.

    A fork that has loaded what it needs, but for `anew=True`: that one meets what lies in the folder.
    """
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "mine.py").write_text(MINE)
    for name in ("numpy.py", "random.py"):
        (tmp_path / name).write_text(WRONG)

    def run(*words, token=True, anew=False, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
        environment |= {"RAY_AUTH_TOKEN_PATH": str(cluster.token_path)} if token else {}
        return (subprocess if anew else _forks).Popen(
            [sys.executable, "-m", "nao_ray", *map(str, words), "--address", cluster.address],
            cwd=tmp_path,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture
def call(start):
    """`call("status")` -> exit code, stdout, stderr."""

    def run(*words, **more):
        process = start(*words, **more)
        out, err = process.communicate(timeout=600)
        return SimpleNamespace(code=process.returncode, out=out, err=err)

    return run


def _wait_for_trials(pool, number):
    give_up = time.monotonic() + 600
    while time.monotonic() < give_up:
        if PoolReader.exists(pool) and PoolReader.open(pool).counts().finished >= number:
            return
        time.sleep(0.3)
    raise AssertionError(f"{pool} has not {number} trials after two minutes")


def _wait_until_over(cluster, job):
    """Asks the job server itself: the command takes a second of a CPU each time."""
    give_up = time.monotonic() + 600
    headers = {"Authorization": f"Bearer {cluster.token}"}
    while requests.get(f"{cluster.address}/api/jobs/{job}", headers=headers).json()["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < give_up, f"{job} is not over after a minute"
        time.sleep(0.3)


def _each_once(pool, number):
    trials = pd.read_parquet(Path(pool) / "trials")["trial_id"]
    return sorted(trials) == list(range(number)) and PoolReader.open(pool).check() == []


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "asks for a token: set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "token"}, "refuses the token of ~/.ray/auth_token: it is missing"),
        ({"RAY_AUTH_TOKEN": "0123456789abcdef" * 4}, "refuses the token of RAY_AUTH_TOKEN"),
    ],
    ids=["no token", "an empty home", "another token"],
)
def test_without_the_token_nothing_is_started(call, tmp_path, variables, told):
    done = call("submit", "smoke", token=False, **variables)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert "0123456789abcdef" not in done.err
    assert not (tmp_path / "pools").exists()


@pytest.mark.usefixtures("anew")
def test_a_search_runs_as_a_job_and_its_log_is_followed(call, cluster, tmp_path):
    without_training = ("submit", "smoke", "--set", "evaluator={name: faulty}", "--set", "workers.count=1", "--set")
    done = call(*without_training, "budget.trials=3", anew=True, RAY_ADDRESS="http://127.0.0.1:9")
    assert done.code == 0, done.out + done.err
    assert done.err == ""
    pool = tmp_path / "pools" / "smoke"
    name = job_name("smoke", str(pool))
    assert done.out.startswith(f"job     {name}-1 at {cluster.address}\n")
    assert done.out.count("3/3 done") == 1
    assert done.out.splitlines()[-2:] == [f"pool    {pool}", f"report  {pool}/report.html"]
    assert _each_once(pool, 3)
    assert yaml.safe_load((pool / "run.yaml").read_text())["revision"] == source_revision()

    assert f"{name}-1" in call("status").out
    shown = call("status", name, "--json").out
    assert '"status": "SUCCEEDED", "exit_code": 0' in shown
    assert call("logs", name).out in done.out
    for text in (done.out, shown, (pool / "run.yaml").read_text()):
        assert cluster.token not in text
    assert b"".join(path.read_bytes() for path in pool.rglob("*") if path.is_file()).find(cluster.token.encode()) == -1

    cluster.anew.unlink()
    refused = call(*without_training, "seed=1")
    assert refused.code == 2
    assert "seed was 0, is 1" in refused.out
    assert _each_once(pool, 3)


def test_an_interrupted_follower_leaves_the_job_running_and_a_stopped_one_goes_on(start, call, cluster, tmp_path):
    pool = tmp_path / "pools" / "slow"
    name = job_name("slow", str(pool))
    running = start("submit", "slow.yaml", "--set", "budget.trials=2000")
    _wait_for_trials(pool, 1)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=600)
    assert running.returncode == 130
    assert f"the job goes on; nao-ray logs {name}-1 --address {cluster.address} -f follows it" in told
    assert "Traceback" not in told
    following = start("logs", f"{name}-1", "-f")
    assert following.stdout.readline(), "it is connected"
    _wait_for_trials(pool, PoolReader.open(pool).counts().finished + 3)

    stopped = call("stop")
    assert (stopped.code, stopped.out) == (0, f"{name}-1: stopped; the same command goes on\n"), stopped.err
    _, told = following.communicate(timeout=600)
    assert following.returncode == 130, told
    assert told == f"nao-ray: {name}-1: stopped; the same command goes on\n"
    assert 4 <= PoolReader.open(pool).counts().finished < 2000

    enough = PoolReader.open(pool).counts().asked + 3
    again = call("submit", "slow.yaml", "--set", f"budget.trials={enough}")
    assert again.code == 0, again.out
    assert again.out.startswith(f"job     {name}-2 ")
    assert _each_once(pool, enough)


def test_a_detached_search_outlives_its_job_and_ends_when_it_is_stopped(start, call, cluster, tmp_path):
    pool = tmp_path / "p"
    words = ("submit", "slow.yaml", "--pool", pool, "--detach")
    long = ("--set", "budget.trials=2000")
    job = job_name("slow", str(pool))
    assert call(*words, *long, "--no-follow").code == 0
    _wait_for_trials(pool, 2)
    (driver,) = [p for p in psutil.process_iter(["cmdline"]) if {str(pool), "search"} <= set(p.info["cmdline"] or ())]
    driver.kill()
    _wait_until_over(cluster, f"{job}-1")
    assert "DETACHED" in call("status", job).out
    before = PoolReader.open(pool).counts().finished
    _wait_for_trials(pool, before + 3)

    refused = call(*words)
    assert refused.code == 2
    assert f"is being searched by {job} with other settings: nao-ray stop {job} ends it" in refused.out
    watching = start(*words, *long)
    _wait_for_trials(pool, PoolReader.open(pool).counts().finished + 4)
    stopped = call("stop", job)
    assert stopped.code == 0, stopped.err
    _, told = watching.communicate(timeout=600)
    assert watching.returncode == 130, told
    assert "DETACHED" not in call("status").out

    enough = PoolReader.open(pool).counts().asked + 3
    done = call(*words, "--set", f"budget.trials={enough}")
    assert done.code == 0, done.out
    assert _each_once(pool, enough)


def test_the_commands_of_the_page(start, call, cluster, tmp_path):
    section = PAGE.split("\n## ")[0]
    commands = re.findall(r"^\$ nao-ray ((?:submit|status|logs|stop)\b.*)$", section, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["submit", "status", "logs", "submit", "stop"]
    for command in commands:
        words = shlex.split(command.replace("/shared", str(tmp_path)))
        at = words.index("--address")
        assert words[at + 1] == "http://127.0.0.1:8265"
        del words[at : at + 2]
        if words[0] == "submit":
            words += ["--set", "evaluator.epochs=1"] + (["--no-follow"] if "--detach" in words else [])
        done = call(*words)
        assert done.code == 0, f"{command}: {done.out}{done.err}"
        assert done.out
    assert _each_once(tmp_path / "pools" / "smoke", 8)


def test_the_ray_job_submit_of_the_page(cluster, tmp_path):
    """Word for word, but for what is searched and where: Ray carries the checkout, its job is the search."""
    (command,) = re.findall(r"^\$ (ray job submit .*)$", PAGE, flags=re.MULTILINE)
    pool, words = tmp_path / "pool", shlex.split(command)
    words[words.index("--address") + 1] = cluster.address
    searched = ["smoke", "--set", "evaluator=faulty", "--set", "budget.trials=2"]
    words[words.index("cifar10_small") :] = [*searched, "--pool", str(pool)]
    for name in ("jobs", "nao_ray"):
        shutil.copytree(ROOT / name, tmp_path / "checkout" / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cluster.token_path)}
    words[0] = str(PROGRAMS / "ray")
    give_up = time.monotonic() + 600
    while True:
        done = subprocess.run(
            words, cwd=tmp_path / "checkout", env=environment, capture_output=True, text=True, timeout=600
        )
        if "No available agent" not in done.stderr or time.monotonic() > give_up:  # it starts after the head
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 done" in done.stdout
    assert _each_once(pool, 2)
