"""A ladder of fidelities in a pool: each architecture once at its highest rung, all rungs on request, whatever dies."""

import uuid
from contextlib import suppress

import pandas as pd
import pytest
from _families import FIRSTS, LADDER, RUNGS, SHOWN, failed, record_rungs
from _made_up_trials import START, die
from _s3_drivers import take_over, vanish
from test_killed import _killed, _moments
from test_object_crashes import Mortal, requests_of

from nao_ray import open_pool, registry
from nao_ray._pool import stores
from nao_ray._pool.families import Behind
from nao_ray.errors import PoolWriteError
from nao_ray.page.live import LivePool
from nao_ray.pool import PoolReader, PoolWriter, Watch
from nao_ray.report.text import best_text
from nao_ray.report.write import facts_of, find_tracks
from nao_ray.trial import TrialState


@pytest.fixture(params=["folder", "objects"])
def place(request, tmp_path, monkeypatch):
    if request.param == "folder":
        return str(tmp_path / "p")
    store = Mortal()
    monkeypatch.setattr(stores, "_memory", lambda _bucket: store)
    return f"memory://bucket/{uuid.uuid4().hex}"


def shown(url):
    return sorted(PoolReader.open(url).trials(["trial_id"])["trial_id"].tolist())


def folder(url):
    """The rows of trials/, as anybody else reads them."""
    if "://" not in url:
        return sorted(pd.read_parquet(f"{url}/trials")["trial_id"].tolist())
    storage = PoolReader.open(url)._storage
    tables = (storage.catalogue.tables("trials", [name])[0] for name in storage.entries("trials"))
    return sorted(number for table in tables for number in table["trial_id"].to_pylist())


def finished(url):
    log = PoolReader.open(url).log()
    return [trial.trial_id for trial in log if trial.state is not TrialState.RUNNING]


def see(url, count, rows):
    """Everybody sees each finished trial once, and each family once."""
    reader = PoolReader.open(url)
    assert shown(url) == rows
    assert folder(url) == rows
    assert finished(url) == list(range(count))
    assert reader.trials(["trial_id"], rungs=True)["trial_id"].tolist() == list(range(count))
    assert reader.counts().finished == count
    assert reader.check() == []


def test_each_architecture_is_there_once_at_its_highest_rung_and_every_rung_on_request(place):
    pool = PoolWriter.create(place, LADDER)
    with pool.acquire():
        record_rungs(pool, FIRSTS)
        see(place, 5, [0, 1, 2, 3, 4])
        record_rungs(pool, RUNGS[5:6])
        see(place, 6, [1, 2, 3, 4, 5])
        record_rungs(pool, RUNGS[6:])
    see(place, 8, SHOWN)
    reader = PoolReader.open(place)
    assert [trial.score for trial in reader.log()] == [trial.score for trial in RUNGS]
    assert [trial.proposal for trial in reader.log()] == [trial.proposal for trial in RUNGS]
    assert reader.best()["trial_id"].tolist() == [7, 6, 2, 3, 4], "of the highest rung first, not 0 with 0.9"
    assert (reader.counts().best_trial_id, reader.counts().best_score) == (7, 0.65)
    assert [row["trial_id"] for row in reader.find_trials([0, 5, 7])] == [0, 5, 7]
    assert reader.trials(ids=[0, 5])["epochs"].tolist() == [2, 4]
    sql = "select count(*) as n, max(epochs) as top from {}"
    assert reader.sql(sql.format("trials")).iloc[0].tolist() == [5, 8]
    assert reader.sql(sql.format("rungs")).iloc[0].tolist() == [8, 8]
    assert sorted(n for data in reader.stream_trials() for n in data["trial_id"].to_pylist()) == list(range(8))


def test_what_people_see_ranks_the_highest_rung_alone_and_counts_every_one(tmp_path):
    pool = PoolWriter.create(tmp_path / "p", LADDER)
    with pool.acquire():
        record_rungs(pool, RUNGS)
    found = facts_of(PoolReader.open(tmp_path / "p"))
    assert [(row["trial"], row["epochs"]) for row in found["best"]] == [("7", "8"), ("6", "4"), *_FIRST_ROWS]
    assert found["is_ladder"]
    tiles = dict(found["tiles"])
    assert (tiles["completed"], tiles["after 8 epochs"], tiles["best validation accuracy"]) == ("8", "1", "0.6500")
    assert best_text(PoolReader.open(tmp_path / "p"), 2).splitlines()[2].split()[:3] == ["7", "0.6500", "8"]
    view = Watch(str(tmp_path / "p")).look()
    assert (view.best.trial_id, view.best.epochs, view.finished) == (7, 8, 8)
    assert view.rungs == {2: 5, 4: 2, 8: 1}
    columns, _ = LivePool(str(tmp_path / "p"), lambda pool: registry.load("space", "nao_cnn")()).whole()
    rungs = dict(zip(columns["trial_id"].tolist(), columns["rung"].tolist(), strict=True))
    assert rungs == {0: -1, 1: -1, 2: -1, 3: -1, 4: -1, 5: 4, 6: 4, 7: 8}


_FIRST_ROWS = [("2", "2"), ("3", "2"), ("4", "2")]


def test_merging_changes_nothing_of_it_and_late_rungs_find_their_parents(place):
    pool = PoolWriter.create(place, LADDER)
    with pool.acquire():
        record_rungs(pool, FIRSTS)
        pool.compact()
        record_rungs(pool, RUNGS[5:7])
        see(place, 7, [2, 3, 4, 5, 6])
        pool.compact()
        see(place, 7, [2, 3, 4, 5, 6])
    again = PoolWriter.open(place)
    with again.acquire():
        record_rungs(again, RUNGS[7:])
        see(place, 8, SHOWN)
        again.compact()
    see(place, 8, SHOWN)


def test_a_rung_that_fails_leaves_its_family_where_it_was(place):
    pool = PoolWriter.create(place, LADDER)
    with pool.acquire():
        record_rungs(pool, [*FIRSTS, failed(5, 4, 0)])
        see(place, 6, [0, 1, 2, 3, 4])
        assert pool.counts().failed == 1
    assert PoolReader.open(place).trials(rungs=True)["failure_kind"].dropna().tolist() == ["nan"]


def test_those_who_follow_are_told_of_every_rung_once(place):
    pool = PoolWriter.create(place, LADDER)
    tail = PoolReader.open(place).follow("trials", ["trial_id", "epochs"])
    seen = []
    with pool.acquire():
        for trial in RUNGS:
            record_rungs(pool, [trial])
            seen += tail.read()["trial_id"].to_pylist()
    assert set(seen) == set(range(8))
    assert PoolReader.open(place).follow("trials", ["trial_id"]).read()["trial_id"].unique().sort().to_pylist() == list(
        range(8)
    )


def test_what_cannot_be_put_in_its_place_at_once_is_later(place, monkeypatch, caplog):
    pool = PoolWriter.create(place, LADDER)
    with pool.acquire():
        record_rungs(pool, FIRSTS)
        with monkeypatch.context() as patch:
            patch.setattr(type(pool._journal), "replace", lambda *_: (_ for _ in ()).throw(PoolWriteError("full")))
            record_rungs(pool, RUNGS[5:6])
            record_rungs(pool, RUNGS[7:])
        assert "trial 5 stands in rungs/ alone for the moment: full" in caplog.text
        assert finished(place) == [0, 1, 2, 3, 4, 5, 7], "recorded all the same"
        assert folder(place) == [0, 1, 2, 3, 4]
        record_rungs(pool, RUNGS[6:7])
    see(place, 8, SHOWN)


def test_what_a_driver_has_left_the_next_one_puts_right(place, monkeypatch):
    pool = PoolWriter.create(place, LADDER)
    pool.acquire(expiry=3600.0)
    record_rungs(pool, FIRSTS)
    with monkeypatch.context() as patch:
        patch.setattr(Behind, "catch_up", lambda *_: None)
        record_rungs(pool, RUNGS[5:])
    vanish(pool)
    if "://" in place:
        take_over(place)._lease.release()
    else:
        die(pool)
        with PoolWriter.open(place).acquire():
            pass
    see(place, 8, SHOWN)


@pytest.mark.slow
def test_killed_before_any_request_no_rung_is_lost_or_doubled(monkeypatch):
    store = Mortal()
    monkeypatch.setattr(stores, "_memory", lambda _bucket: store)

    def made():
        url = f"memory://bucket/{uuid.uuid4().hex}"
        pool = PoolWriter.create(url, LADDER)
        pool.acquire(expiry=3600.0)
        record_rungs(pool, FIRSTS)
        pool.compact()
        record_rungs(pool, RUNGS[5:7])
        pool.record_asked([RUNGS[7].proposal], START)
        return url, pool

    url, pool = made()
    whole = requests_of(store, lambda: pool.record_finished([RUNGS[7]]))
    vanish(pool)
    assert 2 < whole < 20
    for k in range(whole):
        url, pool = made()
        store.last = store.sent + k
        with suppress(PoolWriteError):
            pool.record_finished([RUNGS[7]])
        store.last = None
        vanish(pool)
        assert finished(url)[:7] == list(range(7))
        assert shown(url) in ([2, 3, 4, 5, 6], SHOWN), "a family is never missing, or there twice"
        other = take_over(url)
        other.record_finished([RUNGS[7]])
        see(url, 8, SHOWN)
        other._lease.release()


@pytest.mark.slow
def test_killed_before_any_call_every_reader_sees_each_family_once(tmp_path):
    pool = PoolWriter.create(tmp_path / "template", LADDER)
    with pool.acquire():
        record_rungs(pool, FIRSTS[:3])
        pool.compact()
        record_rungs(pool, [*FIRSTS[3:], *RUNGS[5:7]])
        pool.record_asked([RUNGS[7].proposal], START)
    calls = _killed(tmp_path / "template", tmp_path / "killed", "rise")
    assert len(calls) > 10
    for k in _moments(tmp_path / "killed", calls):
        url = str(tmp_path / "killed" / k)
        assert folder(url) in ([2, 3, 4, 5, 6], SHOWN), (k, calls[k])
        assert finished(url) in (list(range(7)), list(range(8))), (k, calls[k])
        again = PoolWriter.open(url)
        with again.acquire():
            again.record_finished([RUNGS[7]])
        see(url, 8, SHOWN)


def test_figures_and_films_show_the_highest_rung_alone(tmp_path):
    pool = PoolWriter.create(tmp_path / "p", LADDER)
    with pool.acquire():
        record_rungs(pool, RUNGS)
    (line,) = [line for line in open_pool(tmp_path / "p").plot.best_over_trials().lines if len(line.get_xdata())]
    assert set(line.get_ydata()) == {0.65}
    (track,) = find_tracks(PoolReader.open(tmp_path / "p"))
    assert len(track.frames) == 1
