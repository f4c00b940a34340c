"""A name is taken only if it is free, on every kind of file system."""

import errno
import os

import pytest
from _made_up_trials import MANIFEST, record

from nao_ray._pool import renames
from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader, PoolWriter


@pytest.fixture(params=["renameat2", "links", "neither"])
def kind(request, monkeypatch):
    """What a file system has."""

    def unsupported(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param != "renameat2":
        monkeypatch.setattr(renames, "_renameat2", unsupported)
    if request.param == "neither":
        monkeypatch.setattr(os, "link", unsupported)
    return request.param


@pytest.mark.parametrize("locked", [False, True])
def test_a_name_is_taken_once(tmp_path, kind, locked):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"one")
    renames.take_name(str(source), str(target), locked=locked)
    assert not source.exists()
    source.write_bytes(b"two")
    with pytest.raises(FileExistsError):
        renames.take_name(str(source), str(target), locked=locked)
    assert target.read_bytes() == b"one"
    assert source.read_bytes() == b"two"


def test_a_pool_is_made_and_written_everywhere(tmp_path, kind):
    pool = PoolWriter.create(tmp_path / "p", MANIFEST)
    with pytest.raises(PoolError, match="is a pool already"):
        PoolWriter.create(tmp_path / "p", MANIFEST)
    with pool.acquire():
        record(pool, 0, 3)
        pool.compact()
        record(pool, 3, 1)
        pool.compact()
    assert (tmp_path / "p" / "trials").is_symlink() == (kind != "renameat2")
    assert PoolReader.open(tmp_path / "p").trials()["trial_id"].tolist() == [0, 1, 2, 3]
    assert PoolReader.open(tmp_path / "p").check() == []
