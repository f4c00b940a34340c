"""Measurements without processes of their own, which load torch each."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def no_processes(monkeypatch):
    """`no_processes(bench)`: its variants answer in this process."""

    def replace(bench):
        def worker(_module, variant, _threads, size):
            return SimpleNamespace(variant=variant, ask=bench.replies(variant, size), close=lambda: None)

        monkeypatch.setattr(bench, "Worker", worker)

    return replace
