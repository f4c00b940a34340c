"""What a search has found of sharing GPUs is in its pool, for one that goes on and for who watches."""

import json

import pytest

from nao_ray._pool.watch import Watch
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.sharing import Shared

FOUND = [Shared("NVIDIA H200, 140 GiB", 2, 2, True), Shared("NVIDIA A10G, 22 GiB", 2, 1, False)]


def test_what_was_found_is_read_again(pool, lease, folder):
    assert PoolReader.open(folder).sharing() == []
    pool.record_sharing(FOUND)
    assert PoolReader.open(folder).sharing() == FOUND


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps([{"gpu": "A"}]), json.dumps([{"gpu": "A", "children": "x"}])])
def test_what_is_none_of_ours_is_found_anew(pool, folder, text):
    (folder / "gpus.json").write_text(text)
    assert PoolReader.open(folder).sharing() == []


@pytest.mark.parametrize("gpus", ["auto", 1])
def test_a_watch_tells_it_where_it_is_measured(tmp_path, gpus):
    pool = PoolWriter.create(tmp_path / "pool", {"config": {"name": "t", "workers": {"gpus": gpus}}})
    with pool.acquire():
        pool.record_sharing(FOUND)
        told = (
            "2 trials at a time on each NVIDIA H200, 140 GiB",
            "2 trials at a time on each NVIDIA A10G, 22 GiB, being measured",
        )
        assert Watch(str(tmp_path / "pool")).look().sharing == (told if gpus == "auto" else ())
