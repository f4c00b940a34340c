"""What a fork is like: the process that would have been started."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import _forks
import psutil
import pytest
from _fork_stand_in import AT_ONCE

SAYS = (
    "import os, sys; print(sys.argv, os.getcwd(), os.environ.get('A'), __name__, input()); print('e', file=sys.stderr)"
)
PROGRAMS = {
    "code": ["-c", f"{SAYS}; sys.exit(3)", "a", "-b"],
    "message": ["-c", "import sys; sys.exit('why')"],
    "error": ["-c", "import atexit\natexit.register(print, 'bye')\n\ndef f():\n    1 / 0\nf()"],
    "kill": ["-c", "import os; os.kill(os.getpid(), 9)"],
    "interrupt": ["-c", "print('so far'); raise KeyboardInterrupt"],
    "thread": ["-c", "import threading; threading.Timer(0.1, print, ['late']).start()"],
    "module": ["-m", "nao_ray", "--version"],
    "script": ["said.py", "c"],
    "no such file": ["gone.py"],
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_it_says_and_ends_as_an_interpreter(program, tmp_path, monkeypatch):
    monkeypatch.setenv("A", "b")
    (tmp_path / "beside.py").write_text("HERE = 7")
    (tmp_path / "said.py").write_text(f"import beside\n{SAYS}\nprint(beside.HERE, __file__)")
    words, how = [sys.executable, *program], {"cwd": tmp_path, "input": "heard\n", "capture_output": True, "text": True}
    fork, process = _forks.run(words, **how), subprocess.run(words, **how)
    assert (fork.returncode, fork.stdout) == (process.returncode, process.stdout)
    assert fork.stderr.splitlines()[-1:] == process.stderr.splitlines()[-1:]


def test_it_is_told_of_signals_and_ends_alone():
    waits = "import sys, time; print('up', flush=True); time.sleep(600)"
    with _forks.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE, text=True) as fork:
        assert fork._told is not None, "it is a fork"
        assert fork.stdout.readline() == "up\n"
        assert fork.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            fork.wait(0.01)
        fork.send_signal(signal.SIGTERM)
        assert fork.wait(600) == -signal.SIGTERM
        assert fork.poll() == -signal.SIGTERM


def test_a_program_that_stands_for_a_fork_says_and_ends_as_that(tmp_path):
    """It passes on all its files, and signals; the fork takes it for its interpreter."""
    python = _forks.environment_of_stand_ins() / "bin" / "python"
    says = (
        "import os, sys; print(sys.executable, sys.argv, os.read(7, 5), input(), flush=True); os.kill(os.getpid(), 15)"
    )
    (tmp_path / "a").write_text("heard")
    shell = f"exec {python} -u -c '{says}' -b 7<a"
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, input="said\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, f"{python} ['-c', '-b'] b'heard' said\n")
    failing = subprocess.run([python, "-c", "import sys; sys.exit('why')"], capture_output=True, text=True)
    assert (failing.returncode, failing.stderr) == (1, "why\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
def test_who_stands_for_a_fork_does_not_go_without_it(number):
    waits = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    python = _forks.environment_of_stand_ins() / "bin" / "python3"
    with subprocess.Popen([python, "-c", waits], stdout=subprocess.PIPE, text=True) as stand_in:
        fork = psutil.Process(int(stand_in.stdout.readline()))
        assert fork in _forks.descendants(psutil.Process(stand_in.pid))
        stand_in.send_signal(number)
        assert stand_in.wait(600) == -number
        assert _forks.wait_for_end([fork]) == []


def test_a_group_that_is_killed_takes_with_it_what_the_fork_has_started():
    starts = "import os, subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True); os.wait()"
    python = _forks.environment_of_stand_ins() / "bin" / "python"
    words = [python, "-c", starts]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as stand_in:
        child = psutil.Process(int(stand_in.stdout.readline()))
        os.killpg(stand_in.pid, signal.SIGKILL)
        assert _forks.wait_for_end([child]) == []


def test_ray_is_loaded_once_for_each_set_of_variables_that_it_reads_then():
    worker = ["/x/ray/_private/workers/default_worker.py"]
    name, kept, modules = _forks.server_of(worker, {"RAY_JOB_ID": "01", "RAY_ADDRESS": "a", "HOME": "/"})
    assert modules[0] == "ray"
    assert kept == {**AT_ONCE, "HOME": "/"}
    assert _forks.server_of(worker, {"RAY_JOB_ID": "02", "RAY_RAYLET_PID": "7", "HOME": "/b"})[0] == name
    assert _forks.server_of(worker, {"RAY_AUTH_MODE": "token", "HOME": "/"})[0] != name
    submit = ["-m", "nao_ray", "submit"]
    assert _forks.server_of(submit, {"RAY_AUTH_TOKEN": "a"})[1] == {"RAY_AUTH_MODE": "token"}, "it says so itself"
    assert _forks.server_of(submit, {"RAY_AUTH_MODE": "x"})[1] == {"RAY_AUTH_MODE": "x"}
    assert _forks.server_of(["-u", "/x/ray/dashboard/agent.py"], {"RAY_JOB_ID": "01"})[0] != name
    for words in (["-m", "nao_ray", "report"], ["-m", "nao_ray", "search", "--in-process"], ["-c", "import ray"]):
        assert _forks.server_of(words, {})[0] == "socket", "it loads Ray itself, if at all"


def test_a_copy_of_the_package_is_as_good_until_a_file_differs(tmp_path):
    shutil.copytree(Path(_forks.ROOT) / "nao_ray", tmp_path / "nao_ray")
    assert _forks.can_fork(["-m", "nao_ray"], {}, str(tmp_path))
    with open(tmp_path / "nao_ray" / "trial.py", "a") as file:
        file.write("# another line\n")
    assert not _forks.can_fork(["-m", "nao_ray"], {}, str(tmp_path))


@pytest.mark.parametrize("blocked", [set(), {signal.SIGINT}], ids=["none", "interrupt"])
def test_it_blocks_the_signals_of_who_asks(blocked):
    words = [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"]
    usual = signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        fork = _forks.run(words, capture_output=True, text=True).stdout
        process = subprocess.run(words, capture_output=True, text=True).stdout
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
    assert fork == process == f"{blocked}\n"


@pytest.mark.parametrize(
    ("words", "variables"),
    [(["-O", "-c", ""], {}), (["-c", ""], {"PYTHONWARNINGS": "error"}), (["-c", ""], {"PYTHONPATH": "FOLDER"})],
    ids=["options", "variables", "other code"],
)
def test_what_a_fork_cannot_be_like_is_a_process_of_its_own(words, variables, tmp_path):
    (tmp_path / "nao_ray").mkdir()
    variables = {name: value.replace("FOLDER", str(tmp_path)) for name, value in variables.items()}
    assert _forks.can_fork(["-c", ""], {}, "/")
    assert not _forks.can_fork(words, variables, "/")


def test_forks_are_descendants_of_nobody_but_who_asked_for_them():
    """Else the process that has started the server would find those of all tests beside it."""
    waits = [sys.executable, "-c", "input()"]
    with _forks.Popen(waits, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as fork:
        assert fork._told is not None, "it is a fork"
        server = psutil.Process(fork.pid).parent()
        assert "_fork_server.py" in " ".join(server.cmdline())
        assert not {int(Path(os.environ[_forks.PLACE], "owner").read_text()), os.getpid()} & {
            process.pid for process in server.parents()
        }


def test_what_nobody_reaps_has_ended():
    """As where the first process of a container reaps nothing."""
    starts = "sleep 0.2 & echo $!; exec sleep 600"  # which reaps nothing
    with subprocess.Popen(["sh", "-c", starts], stdout=subprocess.PIPE, text=True) as parent:
        try:
            ended = psutil.Process(int(parent.stdout.readline()))
            assert _forks.wait_for_end([ended]) == []
            assert ended.status() == psutil.STATUS_ZOMBIE
        finally:
            parent.kill()
