"""Pools on a server that speaks S3, when the server is in trouble."""

import pandas as pd
import pytest
from _made_up_trials import MANIFEST, make_trial, record
from _s3_drivers import CONFIG

from nao_ray._pool.objects import ObjectStorage
from nao_ray.config import RunConfig
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service.hosting.run import run


def test_a_put_that_fails_is_a_write_error_and_may_be_tried_again(url, server):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
        server.refuses = True
        with pytest.raises(PoolWriteError, match=r"cannot write .*trials/e000001"):
            made.record_finished([make_trial(1)])
        assert server.refused > 0
        server.refuses = False
        assert made.record_finished([make_trial(1)]) == [make_trial(1)]
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1]


@pytest.mark.slow
def test_a_search_waits_for_a_server_that_refuses(url, server):
    seen: list[str] = []

    def listen(snapshot) -> None:
        if snapshot.done + snapshot.failed == 5 and not seen:
            server.refuses = True
            seen.append("refused")
        if snapshot.write_error and server.refuses:
            seen.append(snapshot.write_error)
            server.refuses = False

    summary = run(RunConfig.parse(CONFIG), url, listen, in_process=True)
    assert summary.done + summary.failed == 24
    assert len(seen) == 2
    assert "cannot write" in seen[1]
    assert PoolReader.open(url).check() == []


@pytest.mark.parametrize("lands_first", [True, False])
def test_a_write_that_failed_and_landed_after_all_is_not_written_twice(url, server, monkeypatch, lands_first):
    made = PoolWriter.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
        swap = ObjectStorage.swap
        sent: list[tuple] = []

        def no_answer(self, name, body, tag):
            sent.append((name, bytes(body), tag))
            if lands_first:
                swap(self, *sent[0])
            raise self.failed(name, OSError("the connection was closed"))

        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorage, "swap", no_answer)
            with pytest.raises(PoolWriteError, match="the connection was closed"):
                made.record_finished([make_trial(1)])
        again = made.record_finished([make_trial(1), make_trial(2)])
        assert [trial.trial_id for trial in again] == ([2] if lands_first else [1, 2])
        late = swap(made._storage, *sent[0])
        assert late is None or lands_first, "what was on its way finds its name taken"
        record(made, 3, 1)
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3]


def test_an_answer_that_was_lost_is_no_conflict(url):
    """The library sends a request again whose answer it did not get; then the condition fails on our own file."""
    storage = PoolWriter.create(url, MANIFEST)._storage
    assert storage.create("final/a", b"1")
    assert storage.create("final/a", b"1"), "it is as we wanted it"
    assert not storage.create("final/a", b"2")
    before = storage.look("final/a")[1]
    now = storage.swap("final/a", b"3", before)
    assert storage.swap("final/a", b"3", before) == now
    assert storage.swap("final/a", b"4", before) is None
    assert storage.read("final/a") == b"3"


@pytest.mark.parametrize("answer", ["ignored", "refused"])
def test_a_server_without_conditions_is_refused_before_anything_is_written(url, server, answer):
    PoolWriter.create(url, MANIFEST)
    server.conditions = answer
    server.writes.clear()
    with pytest.raises(PoolError, match=r"knows no conditional|ignores conditional") as caught:
        PoolWriter.open(url).acquire()
    assert ("ignores" in str(caught.value)) == (answer == "ignored")
    assert {path.rpartition("/")[2] for path in server.writes} == {"run.yaml"}, "its own content, at most"
    assert PoolReader.open(url).manifest == MANIFEST
