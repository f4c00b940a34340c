"""Pools in a temporary folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from _made_up_trials import MANIFEST

from nao_ray.pool import Lease, Pool


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No syncing: nothing here can tell, but for `test_faults.py`, and a disk takes 10 ms each time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool.create(tmp_path / "pool", MANIFEST)


@pytest.fixture
def lease(pool: Pool) -> Iterator[Lease]:
    with pool.acquire() as lease:
        yield lease


@pytest.fixture
def folder(pool: Pool) -> Path:
    return Path(pool.url)
