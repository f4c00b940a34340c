"""Measurements without processes of their own, which load torch each."""

from itertools import count
from types import SimpleNamespace

import pytest


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
