"""What is done is done, whether its result can be printed or not; words that are not UTF-8 are refused."""

import os
import subprocess
import sys
from pathlib import Path

import _forks
import pytest

from nao_ray.cli.progress import Progress
from nao_ray.pool import PoolReader

TINY = "{name: tiny, space: nao_cnn_small, evaluator: closed_form, strategy: random_search, budget: {trials: 2}}"


@pytest.fixture
def search(tmp_path):
    """`search(stdout)` -> a search of two trials, its standard output going there."""
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(redirection, *options):
        words = [sys.executable, *options, "-m", "nao_ray", "search", "tiny.yaml", "--in-process"]
        line = f"exec {' '.join(words)} {redirection}"
        return subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
        )

    return run


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_search_is_done_although_its_output_is_full(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    words = [sys.executable, "-m", "nao_ray", "search", "tiny.yaml", "--in-process"]
    with open("/dev/full", "w") as full:
        done = _forks.run(words, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said == "nao-ray: cannot print the result, which is in pools/tiny: No space left on device"
    assert PoolReader.open(tmp_path / "pools" / "tiny").counts().finished == 2


def test_a_search_is_done_although_its_output_is_closed(search, tmp_path):
    done = search(">&-")
    assert done.returncode == 0, done.stderr
    assert "nao-ray:" not in done.stderr
    assert PoolReader.open(tmp_path / "pools" / "tiny").counts().finished == 2


def test_warnings_that_are_errors_end_no_search(search):
    done = search("", "-OO", "-W", "error")
    assert done.returncode == 0, done.stderr
    assert "report  " in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
def test_a_full_disk_under_the_log_ends_no_search():
    with open("/dev/full", "w", buffering=1) as full, Progress("tiny", stream=full) as progress:
        progress.show("0/2 done", 0, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # else closing it would complain


def test_names_that_are_not_utf8_are_refused_with_their_bytes(call, tmp_path, monkeypatch):
    name = os.fsdecode(b"caf\xe9")
    monkeypatch.chdir(tmp_path)
    for words in (["pool", name], ["search", "digits", "--pool", name]):
        done = call(*words)
        assert done.code == 2
        assert done.err == "nao-ray: not UTF-8: b'caf\\xe9'; rename it, and give its new name\n"
    assert list(tmp_path.iterdir()) == []
