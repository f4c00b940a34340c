"""Pools on a server that speaks S3, when the server is in trouble."""

import pandas as pd
import pytest
from _made_up_trials import MANIFEST, make_trial, record
from _s3_drivers import CONFIG

from nao_ray._pool import parts
from nao_ray._pool.s3 import S3Storage
from nao_ray.config import RunConfig
from nao_ray.errors import PoolWriteError
from nao_ray.pool import Pool
from nao_ray.service.hosting.run import run


@pytest.mark.usefixtures("_no_settling")
def test_a_put_that_fails_is_a_write_error_and_may_be_tried_again(url, server):
    made = Pool.create(url, MANIFEST)
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
    assert Pool.open(url).check() == []


@pytest.mark.usefixtures("_no_settling")
@pytest.mark.parametrize("lands_first", [True, False])
def test_a_write_that_failed_and_landed_after_all_is_not_written_twice(url, server, monkeypatch, lands_first):
    made = Pool.create(url, MANIFEST)
    with made.acquire():
        record(made, 0, 1)
        put = S3Storage._put
        sent: list[tuple] = []

        def no_answer(self, name, body, condition):
            sent.append((name, body, condition))
            if lands_first:
                put(self, *sent[0])
            raise OSError("the connection was closed")

        with monkeypatch.context() as patch:
            patch.setattr(S3Storage, "_put", no_answer)
            with pytest.raises(PoolWriteError, match="the connection was closed"):
                made.record_finished([make_trial(1)])
        again = made.record_finished([make_trial(1), make_trial(2)])
        assert [trial.trial_id for trial in again] == ([2] if lands_first else [1, 2])
        assert put(made._storage, *sent[0]) is False, "what was on its way finds its name taken"
        record(made, 3, 1)
    assert sorted(pd.read_parquet(url + "/trials")["trial_id"]) == [0, 1, 2, 3]


def test_an_answer_that_was_lost_is_no_conflict(url, monkeypatch):
    """The library sends a request again whose answer it did not get; then the condition fails on our own file."""
    storage = Pool.create(url, MANIFEST)._storage
    put = S3Storage._put
    monkeypatch.setattr(S3Storage, "_put", lambda *words: put(*words) and put(*words))
    assert storage.create("final/a", b"1")
    assert not storage.create("final/a", b"2")
    assert storage.swap("final/a", b"3", storage.look("final/a")[1])
    assert storage.read("final/a") == b"3"


def test_a_server_without_conditions_is_said_to_be_one(url, caplog, monkeypatch):
    from botocore.exceptions import ClientError

    storage = Pool.create(url, MANIFEST)._storage
    real = storage._client.put_object

    def put_object(**words):
        if {"IfMatch", "IfNoneMatch"} & set(words):
            raise ClientError({"Error": {"Code": "NotImplemented", "Message": "a header"}}, "PutObject")
        return real(**words)

    monkeypatch.setattr(storage._client, "put_object", put_object)
    assert storage.create("final/a", b"1")
    assert not storage.has_conditions
    assert not storage.create("final/a", b"2")
    storage.has_conditions = True
    assert not storage.create("final/a", b"3")
    assert storage.read("final/a") == b"1"
    assert "knows no conditional writes" in caplog.text
    assert parts.seal(storage, 1) == 0
