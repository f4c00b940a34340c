"""The processes of a study end with it, whatever ends it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

_STUDY = """
import sys
from test_gather import linger
from nao_ray.bench._gather import made
if __name__ == "__main__":
    made(linger, {0: sys.argv[1] + "/0", 1: sys.argv[1] + "/1"}, processes=2)
"""


def linger(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)
    return {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_study_that_is_killed(tmp_path, number):
    script = tmp_path / "study.py"
    script.write_text(_STUDY)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    study = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
    files = [tmp_path / "0", tmp_path / "1"]
    try:
        wait_for(lambda: all(file.exists() and file.read_text() for file in files))
        processes = [psutil.Process(int(file.read_text())) for file in files]
    finally:
        study.send_signal(number)
        study.wait()
    _, alive = psutil.wait_procs(processes, timeout=600)
    for process in alive:
        process.kill()
    assert not alive


def wait_for(happens):
    end = time.monotonic() + 600
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
