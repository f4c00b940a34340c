"""A daemon of our own, with a stand-in for NVIDIA's program that writes down what it is told."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nao_ray.service.fleet.mps import CONTROL, Mps, MpsUnusableError

_CONTROL = """#!/bin/sh
if [ "$1" = -d ]; then
    echo "start $CUDA_MPS_PIPE_DIRECTORY" >> "$TOLD"
    echo "server says no" > "$CUDA_MPS_LOG_DIRECTORY/server.log"
    exit ${STARTS:-0}
fi
read word rest
echo "$word $CUDA_MPS_PIPE_DIRECTORY" >> "$TOLD"
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the stand-in was told."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(_CONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    return tmp_path / "told"


def test_it_has_a_folder_of_its_own_and_leaves_nothing(tmp_path, told):
    daemon = Mps(tmp_path, probe=("sh", "-c", 'test -d "$CUDA_MPS_PIPE_DIRECTORY"'))
    pipe = daemon.environ["CUDA_MPS_PIPE_DIRECTORY"]
    assert Path(pipe).parent == daemon.folder
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    daemon.close()
    assert told.read_text().splitlines() == [f"start {pipe}", f"quit {pipe}"]
    assert not daemon.folder.exists()


def test_it_ends_with_the_process_that_began_it_even_if_that_is_killed(tmp_path, told):
    code = (
        "import os, pathlib, signal, sys\n"
        "from nao_ray.service.fleet.mps import Mps\n"
        "daemon = Mps(pathlib.Path(sys.argv[1]), probe=('true',))\n"
        "print(daemon._end.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert ran.returncode == -signal.SIGKILL  # and its output has ended, with all that had it
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["start", "quit"]


@pytest.mark.parametrize(
    ("probe", "seconds", "words"),
    [
        (
            ("sh", "-c", "echo CUDA error 805; exit 1"),
            20,
            "a process under it: exit code 1; CUDA error 805; server says no",
        ),
        (("sleep", "30"), 0.2, "a process under it: not done after 0.2 s; server says no"),
    ],
)
def test_where_nothing_computes_under_it_it_is_not_used(tmp_path, told, probe, seconds, words):
    with pytest.raises(MpsUnusableError, match=words):
        Mps(tmp_path, probe=probe, seconds=seconds)
    assert [line.split()[0] for line in told.read_text().splitlines()] == ["start", "quit"]
    assert list(tmp_path.glob("nao_ray_mps_*")) == []


def test_a_daemon_that_does_not_start_is_not_used(tmp_path, told, monkeypatch):
    monkeypatch.setenv("STARTS", "3")
    with pytest.raises(MpsUnusableError, match="the daemon: exit code 3; server says no"):
        Mps(tmp_path, probe=("true",))


def test_a_machine_without_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MpsUnusableError, match=f"there is no {CONTROL} on this machine"):
        Mps()
