"""What a fork is like: the process that would have been started."""

import signal
import subprocess
import sys

import _forks
import pytest

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
    waits = "import sys, time; print('up', flush=True); time.sleep(60)"
    with _forks.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE, text=True) as fork:
        assert fork._told is not None, "it is a fork"
        assert fork.stdout.readline() == "up\n"
        assert fork.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            fork.wait(0.01)
        fork.send_signal(signal.SIGTERM)
        assert fork.wait(60) == -signal.SIGTERM
        assert fork.poll() == -signal.SIGTERM


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
    assert _forks.can_fork([sys.executable, "-c", ""], {}, "/")
    assert not _forks.can_fork([sys.executable, *words], variables, "/")
