"""Measurements without processes of their own, which load torch each."""

import subprocess
from itertools import count
from types import SimpleNamespace

import _forks
import pytest

from nao_ray.bench import _process, _scale_pool


@pytest.fixture
def no_processes(monkeypatch):
    """`no_processes(bench)`: its variants answer in this process, whose memory is made up: tests before were larger."""
    peaks = count(1_000_000_000, 1_000_000)  # bytes

    def replace(bench):
        def worker(_module, variant, _threads, size):
            reply = bench.replies(variant, size)

            def ask(question):
                return next(peaks) if question == "memory" else reply(question)

            return SimpleNamespace(variant=variant, ask=ask, close=lambda: None)

        monkeypatch.setattr(bench, "Worker", worker)

    return replace


@pytest.fixture
def forked(monkeypatch):
    """Processes that a measurement starts are forks, which have torch already."""
    run = lambda words, check, **more: _forks.run(words, **more)  # noqa: E731
    forks = SimpleNamespace(Popen=_forks.Popen, run=run, PIPE=subprocess.PIPE)
    monkeypatch.setattr(_process, "subprocess", forks)
    monkeypatch.setattr(_scale_pool, "subprocess", forks)
