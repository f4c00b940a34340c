"""Data is read once, and what is known of it kept as long as its files do not change."""

import json
import os
import time

import pyarrow.fs as pafs
import pytest

from nao_ray.errors import DataError
from nao_ray.tasks.cifar10 import Cifar10
from nao_ray.tasks.fashion_mnist import FashionMnist
from nao_ray.tasks.image_folder import ImageFolder
from nao_ray.tasks.image_table import ImageTable
from nao_ray.tasks.images import parquet
from nao_ray.tasks.parts import identity
from tests.tasks import _made_up_data as made

LONG_AGO = 1_000_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/nao_ray/data"


def settle(folder):
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))


def _table(folder):
    made.table(folder / "t.parquet", shape=(3, 32, 32))
    return {"path": str(folder)}


TASKS = {
    "image_table": (ImageTable, _table),
    "image_folder": (ImageFolder, lambda folder: {"path": str(made.folder(folder))}),
    "cifar10 table": (Cifar10, _table),
    "cifar10 binary": (Cifar10, lambda folder: {"path": str(made.cifar_binary(folder))}),
    "fashion_mnist": (FashionMnist, lambda folder: {"folder": str(made.fashion(folder))}),
}


@pytest.fixture(params=TASKS)
def make(request, tmp_path):
    cls, write = TASKS[request.param]
    settings = write(tmp_path / "data")
    settle(tmp_path / "data")
    return lambda **others: cls(cls.Config(**settings, **others))


def test_data_is_not_read_again(make, monkeypatch):
    first = make().facts()
    monkeypatch.setattr(type(make()), "load", lambda _: pytest.fail("read again"))
    assert make().facts() == first


def test_other_settings_and_changed_files_are_read(make, tmp_path, monkeypatch):
    make().facts()
    monkeypatch.setattr(type(make()), "load", lambda _: (_ for _ in ()).throw(DataError("read")))
    with pytest.raises(DataError, match="read"):
        make(split_seed=1).facts()
    changed = next(path for path in sorted((tmp_path / "data").rglob("*")) if path.is_file())
    os.utime(changed, (LONG_AGO + 1, LONG_AGO + 1))
    with pytest.raises(DataError, match="read"):
        make().facts()


def test_files_that_were_changed_a_moment_ago_are_not_trusted(make, tmp_path, cache):
    changed = next(path for path in sorted((tmp_path / "data").rglob("*")) if path.is_file())
    os.utime(changed, (time.time(), time.time()))
    make().facts()
    assert not cache.exists()


def test_files_that_change_while_they_are_read_are_not_trusted(make, tmp_path, cache, monkeypatch):
    load, changed = type(make()).load, next(p for p in sorted((tmp_path / "data").rglob("*")) if p.is_file())

    def load_and_change(task):
        rows = load(task)
        os.utime(changed, (LONG_AGO + 9, LONG_AGO + 9))
        return rows

    monkeypatch.setattr(type(make()), "load", load_and_change)
    make().facts()
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": 1}', b"\xff"])
def test_a_damaged_memory_is_no_memory(make, cache, content):
    first = make().facts()
    (kept,) = cache.iterdir()
    assert json.loads(kept.read_text())["digest"] == first.digest
    kept.write_bytes(content)
    assert make().facts() == first
    assert json.loads(kept.read_text())["digest"] == first.digest


def test_a_place_that_cannot_be_written_is_no_obstacle(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(make().facts().digest) == 64


def test_an_error_is_not_remembered(tmp_path, cache):
    made.table(tmp_path / "data/t.parquet", classes=1)
    settle(tmp_path / "data")
    for _ in range(2):
        with pytest.raises(DataError, match="nothing to tell apart"):
            ImageTable(ImageTable.Config(path=str(tmp_path / "data"))).facts()
    assert not cache.exists()


def test_the_reader_of_the_data_has_a_version(make, cache, monkeypatch):
    make().facts()
    monkeypatch.setattr(identity, "VERSION", -1)
    make().facts()
    assert len(list(cache.iterdir())) == 2


def test_files_at_an_address_are_known_by_path_size_and_time(tmp_path, monkeypatch, cache):
    """A file system that is not this machine's: paths are below a bucket, and there are no inodes."""
    for name in ("train", "val", "test"):
        made.table(tmp_path / f"store/bucket/data/{name}/0.parquet", test=0, split_column=False)
    settle(tmp_path / "store")
    remote = pafs.SubTreeFileSystem(str(tmp_path / "store"), pafs.LocalFileSystem())
    monkeypatch.setattr(parquet, "_at_address", lambda _: (remote, "bucket/data"))
    task = ImageTable(ImageTable.Config(path="s3://bucket/data"))
    assert [len(split) for split in (*task.load(), task.load_test())] == [40, 40, 40]
    assert [(file.path, file.inode) for file in task._files()] == [
        ("s3://bucket/data/train/0.parquet", 0),
        ("s3://bucket/data/val/0.parquet", 0),
    ]
    facts = task.facts()
    monkeypatch.setattr(ImageTable, "load", lambda _: pytest.fail("read again"))
    assert ImageTable(ImageTable.Config(path="s3://bucket/data")).facts() == facts
    assert "40 of 40 validation images are training images too" in facts.odd
