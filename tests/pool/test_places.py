"""Places that are odd, or vanish: one line says what is true."""

import shutil

import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial, record

from nao_ray.errors import PoolError, PoolGoneError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter

WRITES = {
    "asked": lambda pool: pool.record_asked([make_proposal(9)], START),
    "finished": lambda pool: pool.record_finished([make_trial(9)]),
    "fits": lambda pool: pool.record_fits([{"round": 9}]),
    "weights": lambda pool: pool.write_weights("w", b"weights"),
    "a merge": lambda pool: pool.compact(),
}


@pytest.mark.parametrize("how", ["removed", "moved"])
@pytest.mark.parametrize("write", WRITES)
def test_a_pool_that_is_gone_ends_its_driver_with_the_truth(pool, folder, tmp_path, write, how):
    lease = pool.acquire()
    record(pool, 0, 2)
    shutil.rmtree(folder) if how == "removed" else folder.rename(tmp_path / "elsewhere")
    with pytest.raises(PoolGoneError, match=r"pool .* is gone: .*run.yaml was removed or moved under") as caught:
        WRITES[write](pool)
    assert not isinstance(caught.value, PoolWriteError)  # which would be tried again
    assert "nothing recorded was lost" not in str(caught.value)
    assert "\n" not in str(caught.value)
    lease.release()
    assert not folder.exists()


def test_a_link_to_nothing_is_named(tmp_path):
    link = tmp_path / "pool"
    link.symlink_to(tmp_path / "unmounted" / "pool")
    for use in (PoolReader.open, lambda url: PoolWriter.create(url, MANIFEST)):
        with pytest.raises(PoolError, match=r"pool is a link to .*unmounted/pool, where there is nothing: mount or"):
            use(link)
    assert not PoolReader.exists(link)


def test_a_link_to_a_folder_is_a_pool(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "pool").symlink_to(tmp_path / "disk")
    with PoolWriter.create(tmp_path / "pool", MANIFEST).acquire():
        pass
    assert PoolReader.open(tmp_path / "disk").check() == []


def test_what_desktops_and_tools_leave_beside_is_neither_rows_nor_other_files(tmp_path):
    folder = tmp_path / "pool"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / ".DS_Store").write_bytes(b"\0")
    pool = PoolWriter.create(folder, MANIFEST)
    with pool.acquire():
        record(pool, 0, 2)
        for name in ("trials", "events", "fits", "final", "weights", "lease", "quarantine", "logs"):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / ".DS_Store").write_bytes(b"\0")
            (folder / name / "._x.parquet").write_bytes(b"\0\5\26\7")
        record(pool, 2, 2)
        pool.compact()
    with pool.acquire():
        assert pool.counts().completed == 4
    assert pool.check() == []
    assert len(pool.sql("SELECT * FROM trials")) == 4
    assert pool.sql("SELECT * FROM final").empty
    assert (folder / ".git" / "HEAD").exists()
