"""The log and the report read a pool a little at a time: what they hold does not grow with it."""

import dataclasses
import tracemalloc
from base64 import b64decode

import numpy as np
import pyarrow as pa
import pytest
from _made_up_trials import START, make_proposal, make_trial, record

from nao_ray import registry
from nao_ray._pool import rows, tail
from nao_ray._pool import stream as streams
from nao_ray._pool.stream import stream
from nao_ray.bench._scale_pool import make_pool
from nao_ray.metric import BY_COLUMN
from nao_ray.page import bundle, frames, live
from nao_ray.page.columns import READ
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.report import facts
from nao_ray.trial import TrialState


@pytest.fixture
def arrow_peak():
    """`arrow_peak()`: bytes that Arrow has held at most since the fixture was made."""
    before = pa.default_memory_pool()
    proxy = pa.proxy_memory_pool(before)
    pa.set_memory_pool(proxy)
    yield proxy.max_memory
    pa.set_memory_pool(before)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A pool of 20,000 trials in one part: 27 MB of rows."""
    url = tmp_path_factory.mktemp("large") / "pool"
    make_pool(url, 20_000, 0)
    return url


def test_the_log_comes_once_and_with_what_is_not_finished(pool, lease):
    record(pool, 0, 5)
    pool.record_asked([make_proposal(5), make_proposal(6)], START, [(5, 1, "node-1", START)])
    pool.record_attempts([(5, 2, "node-2", START)])
    log = list(pool.stream_log())
    assert [trial.trial_id for trial in log] == list(range(7))
    assert [trial.state is TrialState.RUNNING for trial in log] == [False] * 5 + [True] * 2
    assert (log[5].attempt, log[5].node, log[6].attempt) == (2, "node-2", 0)
    assert pool.log() == log


def test_of_what_holds_none_of_the_trials_asked_for_no_other_column_is_read(pool, lease, monkeypatch):
    record(pool, 0, 9)
    read, whole = [], streams.aligned
    monkeypatch.setattr(streams, "aligned", lambda data, schema: read.append(data.num_rows) or whole(data, schema))
    assert [row["trial_id"] for row in pool.find_trials([7, 3, 99], ["genotype"])] == [3, 7]
    assert read == [1, 1], "of nine parts"
    assert pool.trials(["trial_id"], ids=[5])["trial_id"].tolist() == [5]
    assert read == [1, 1, 1]
    pool.compact()
    assert [row["trial_id"] for row in pool.find_trials([7, 3])] == [3, 7]
    assert read == [1, 1, 1, 9], "they lie in one part now"


def test_a_merge_in_the_middle_loses_and_doubles_nothing(pool, lease, monkeypatch):
    monkeypatch.setattr(streams, "_PARTS", 2)
    record(pool, 0, 9)
    whole = pool.log()
    log = pool.stream_log()
    first = [next(log) for _ in range(3)]
    pool.compact()
    assert [*first, *log] == whole


def test_a_proposal_that_knows_of_later_results_is_left_out(pool, lease, monkeypatch):
    """It would have been asked after more trials than the log holds, which no strategy can be rebuilt from."""
    record(pool, 0, 3)
    real = streams._groups

    def groups(storage, folder, names, columns):
        yield from real(storage, folder, names, columns)
        if folder == "trials" and columns is rows.LOGGED:  # the driver goes on after these were read
            pool.record_finished([make_trial(3)])
            pool.record_asked([dataclasses.replace(make_proposal(4), asked_after=4)], START)

    pool.record_asked([make_proposal(3)], START)
    monkeypatch.setattr(streams, "_groups", groups)
    log = PoolReader.open(pool.url).log()
    assert pool.counts().finished == 4
    assert [(trial.trial_id, trial.state) for trial in log][3:] == [(3, TrialState.RUNNING)]


def test_the_log_of_a_large_pool_is_streamed(large, arrow_peak):
    """All columns of all rows stood in memory, twice in a driver that resumed: 184 MB at 20,000 trials."""
    whole = sum(data.nbytes for data in stream(PoolReader.open(large)._storage, "trials"))
    assert sum(1 for _ in PoolReader.open(large).stream_log()) == 20_000
    assert whole > 20e6
    assert arrow_peak() < whole / 2


def test_taking_a_large_pool_up_reads_a_few_columns(large, arrow_peak):
    with PoolWriter.open(large).acquire():
        pass
    assert arrow_peak() < 8e6


def test_a_report_reads_the_columns_it_shows(large, monkeypatch, tmp_path, arrow_peak):
    """It read every column of every trial: 227 MB at 20,000."""
    asked = []
    real = PoolReader.trials

    def trials(self, columns=None, ids=None, **which):
        asked.append((tuple(columns), None if ids is None else len(ids)))
        return real(self, columns, ids, **which)

    monkeypatch.setattr(PoolReader, "trials", trials)
    monkeypatch.setattr(bundle, "film_page", lambda *_: None)
    monkeypatch.setattr(live, "moves", lambda *_: False)
    bundle.write_report(PoolReader.open(large), registry.load("space", "nao_cnn")(), tmp_path / "report.html")
    assert asked == [(tuple(BY_COLUMN), None), (facts.COLUMNS, None)], "the first: the manifest names no metric"
    assert not {"embedding", "genotype", "tokens", "curve"} & {*facts.COLUMNS}
    assert not {"embedding", "tokens", "curve"} & {*READ}
    told = bundle.unpacked((tmp_path / "report.html").read_text())["responses"]
    header, _ = frames.decode(b64decode(told["api/pools/0/columns"]["base64"]))
    assert header["rows"] == header["total"] == 20_000
    assert len(told["api/pools/0/texts"]) == bundle.TEXTS
    assert sum(path.startswith("api/pools/0/trials/") for path in told) == bundle.PAGES + 1
    assert arrow_peak() < 40e6


def test_rows_by_number_are_those_rows(large):
    pool = PoolReader.open(large)
    rows = pool.trials(ids=[17, 3, 19_999])
    assert rows["trial_id"].tolist() == [3, 17, 19_999]
    assert np.array_equal(rows["embedding"][2], pool.trials(["embedding"], ids=[19_999])["embedding"][0])
    assert pool.trials(["trial_id"], ids=[]).empty


@pytest.fixture
def two(tmp_path):
    """Pools of 1,000 and of 5,000 trials."""
    for trials in (1000, 5000):
        make_pool(tmp_path / str(trials), trials, 0)
    return [PoolReader.open(tmp_path / size) for size in ("1000", "5000")]


def test_the_log_takes_little_more_memory_for_more_trials(two):
    """It was 980 bytes for each: a row group was read, and unpacked, at once."""
    few, many = (_peak(lambda pool=pool: sum(1 for _ in pool.stream_log())) for pool in two)
    assert 0 <= (many - few) / 4000 < 400


def test_a_merge_takes_little_more_memory_for_more_trials(two):
    """It was 2,100 bytes for each, in a group of rows: one was read at once, and 16,384 were written as one."""

    def merge(pool):
        with pool.acquire():
            events = pool._storage.parts("events")
            pool.record_asked([make_proposal(10_000)], START)
            pool.compact()
            assert pool._storage.parts("events") == events, "one part, of all"

    few, many = (_peak(lambda pool=pool: merge(PoolWriter.open(pool.url))) for pool in two)
    assert 0 <= (many - few) / 4000 < 1500


def test_a_report_takes_little_more_memory_for_more_trials(two, tmp_path, monkeypatch):
    """A hundred bytes of figures for each, a few times: as arrays, as base64, in JSON, and the frame of the tiles."""
    monkeypatch.setattr(tail, "_ROWS", 256)  # that are read at once, of however many
    monkeypatch.setattr(bundle, "TEXTS", 100)  # genotypes that are there, of however many
    monkeypatch.setattr(bundle, "PAGES", 2)  # drawn, which is slow where memory is traced
    monkeypatch.setattr(bundle, "film_page", lambda *_: None)
    monkeypatch.setattr(live, "moves", lambda *_: False)
    space = registry.load("space", "nao_cnn")()

    def work(pool):
        bundle.write_report(pool, space, tmp_path / "report.html")

    work(two[0])  # makes what is made once
    few, many = (_peak(lambda pool=pool: work(pool), python=True) for pool in two)
    assert 0 <= (many - few) / 4000 < 3000, (few, many)


def _peak(work, *, python=False) -> int:
    """Bytes that Arrow, and Python's objects and arrays, take at most while it works."""
    before = pa.default_memory_pool()
    proxy = pa.proxy_memory_pool(before)
    pa.set_memory_pool(proxy)
    if python:
        tracemalloc.start()
    try:
        work()
        return int(proxy.max_memory()) + (tracemalloc.get_traced_memory()[1] if python else 0)
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
