"""What a watcher sees, what it reads, and that it writes nothing."""

import json
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from _made_up_trials import MANIFEST, START, die, edit_holder, make_proposal, make_trial, record

from nao_ray._pool import faults, tail
from nao_ray._pool.holder import myself
from nao_ray._pool.pace import Spans
from nao_ray._pool.storage import open_storage
from nao_ray._pool.watch import Watch
from nao_ray.errors import PoolError
from nao_ray.pool import PoolWriter
from nao_ray.trial import FailureKind


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in Path(folder).rglob("*")}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(faults, "_TRY_SECONDS", 0.1)


@pytest.fixture
def parts_read(monkeypatch):
    """Names of the parts that are opened."""
    seen = []
    real = tail.dataset

    def spy(storage, folder, names=None):
        seen.extend(f"{folder}/{name}" for name in names)
        return real(storage, folder, names)

    monkeypatch.setattr(tail, "dataset", spy)
    return seen


@pytest.mark.usefixtures("lease")
def test_a_view_agrees_with_the_pool(pool, folder):
    record(pool, 0, 23)
    pool.record_asked([make_proposal(23), make_proposal(24)], START)
    pool.record_attempts([(23, 1, "node-1", datetime.now(UTC))])
    view = Watch(pool.url).look()
    counts = pool.counts()
    assert (view.completed, view.failed, view.finished) == (counts.completed, counts.failed, counts.finished)
    assert (view.running, view.waiting) == (1, 1)
    assert view.failures == {"error": counts.failed}
    assert view.best.trial_id == pool.best(1)["trial_id"].iloc[0]
    assert view.best.score == counts.best_score
    assert [trial.trial_id for trial in view.last] == list(range(22, 14, -1))
    assert view.last[-1].finished_at == (START + timedelta(seconds=16)).timestamp()
    assert (view.name, view.strategy, view.space, view.task) == ("t", "nao", None, "digits")
    scores = pool.trials()["valid_accuracy"].dropna()
    assert view.trend == pytest.approx(scores.tolist())


@pytest.mark.usefixtures("lease")
def test_only_new_parts_are_read(pool, parts_read):
    record(pool, 0, 10)
    watch = Watch(pool.url)
    watch.look()
    assert len(parts_read) == len(set(parts_read)) == 31  # the empty one among them
    parts_read.clear()
    watch.look()
    assert parts_read == []
    record(pool, 10, 1)
    assert watch.look().finished == 11
    assert len(parts_read) == 3


@pytest.mark.usefixtures("lease")
def test_a_compaction_counts_nothing_twice(pool):
    record(pool, 0, 10)
    watch = Watch(pool.url)
    before = watch.look()
    pool.compact()
    record(pool, 10, 2)
    after = watch.look()
    assert (before.finished, after.finished) == (10, 12)
    assert after.failed == pool.counts().failed
    assert len(after.trend) == after.completed
    assert after == replace(Watch(pool.url).look(), driver=after.driver)


@pytest.mark.usefixtures("lease")
def test_retries_shared_scores_and_training_are_told_apart(pool):
    shared = make_trial(0, accuracy=0.99)
    fidelity = replace(shared.proposal.fidelity, weights_version="v1")
    shared = replace(shared, proposal=replace(shared.proposal, fidelity=fidelity))
    lost = replace(make_trial(2, accuracy=0.5), state=make_trial(4).state, measurement=None)
    lost = replace(lost, failure_kind=FailureKind.LOST, failure_message="node gone")
    pool.record_finished([shared, make_trial(1, accuracy=0.6), lost])
    view = Watch(pool.url).look()
    assert (view.best.trial_id, view.best.weights_version) == (1, None)
    assert view.failures == {"lost": 1}
    assert [trial.score for trial in view.last] == [None, 0.6, 0.99]


@pytest.mark.usefixtures("lease")
def test_with_two_versions_of_shared_weights_the_best_is_that_of_the_pool(pool):
    watch = Watch(pool.url)
    for k, accuracy, version in [(0, 0.9, "e1"), (1, 0.6, "e1"), (3, 0.2, "e2"), (2, 0.95, "e1"), (4, 0.5, "e2")]:
        fidelity = replace(make_proposal(k).fidelity, weights_version=version)
        trial = make_trial(k, accuracy=accuracy)
        pool.record_finished([replace(trial, proposal=replace(trial.proposal, fidelity=fidelity))])
        best = int(pool.best(1)["trial_id"].iloc[0])
        assert best == pool.counts().best_trial_id == watch.look().best.trial_id == Watch(pool.url).look().best.trial_id
    assert best == 4, "of the newest version"


def test_the_time_left_is_unknown_before_an_end_and_then_counts_down(tmp_path):
    pool, moment = PoolWriter.create(tmp_path / "p", {"config": MANIFEST["config"] | {"budget": {"trials": 8}}}), [0.0]
    with pool.acquire(expiry=5000.0):
        now = datetime.now(UTC)
        moment[0] = now.timestamp()
        pool.record_asked([make_proposal(k) for k in range(4)], now)
        pool.record_attempts([(0, 1, "node-1", now), (1, 1, "node-1", now)])
        watch = Watch(pool.url, clock=lambda: moment[0])
        seen = watch.look()
        assert (seen.running, seen.has_ended, seen.eta_seconds) == (2, False, None)
        for k in (0, 1):
            ended = replace(make_trial(k), started_at=now, finished_at=now + timedelta(seconds=60))
            pool.record_finished([ended])
        pool.record_attempts([(2, 1, "node-1", now + timedelta(seconds=60))])
        left = []
        for moment[0] in (now.timestamp() + 60 + wait for wait in (0, 50, 100, 1000)):
            assert watch.look().has_ended
            left.append(watch.look().eta_seconds)
        assert left == pytest.approx([180, 130, 80, 0], abs=1)


@pytest.mark.parametrize(
    ("budget", "planned", "asked", "total"),
    [(20, 6, 3, 6), (6, 20, 3, 6), (20, None, 3, 20), (None, 6, 3, 6), (20, 6, 7, 20), (6, None, 7, None)],
)
def test_progress_is_to_the_smaller_of_budget_and_plan(tmp_path, budget, planned, asked, total):
    config = MANIFEST["config"] | {"budget": {"trials": budget}}
    pool = PoolWriter.create(tmp_path / "p", {"config": config, "planned": planned})
    with pool.acquire():
        record(pool, 0, asked)
    assert Watch(pool.url).look().budget_trials == total


def test_nothing_is_written_and_nothing_put_right(pool, folder):
    with pool.acquire():
        record(pool, 0, 6)
    (folder / "trials" / ".half.parquet.1.tmp").write_bytes(b"half")
    before = files(folder)
    watch = Watch(pool.url)
    watch.look()
    watch.look()
    assert files(folder) == before


# -- the driver ---------------------------------------------------------------------------------------------


def test_the_driver_is_none_alive_none(pool):
    watch = Watch(pool.url)
    assert watch.look().driver.state == "none"
    assert watch.look().driver.pid is None
    with pool.acquire():
        seen = watch.look().driver
        assert (seen.state, seen.epoch) == ("alive", 1)
        assert seen.silent_seconds < 5
    assert watch.look().driver.state == "none"


def test_a_dead_driver_is_stale_and_its_trials_wait(pool):
    pool.acquire()
    record(pool, 0, 2)
    pool.record_asked([make_proposal(2)], START)
    pool.record_attempts([(2, 1, "node-1", datetime.now(UTC))])
    watch = Watch(pool.url)
    assert watch.look().running == 1
    die(pool)
    view = watch.look()
    assert view.driver.state == "stale"
    assert (view.running, view.waiting, view.eta_seconds) == (0, 1, None)


def test_a_silent_driver_elsewhere_is_stale_but_not_one_whose_beat_changes(pool):
    pool.acquire()
    watch = Watch(pool.url)
    edit_holder(pool, place="elsewhere", beat=time.time() - 1000)
    assert watch.look().driver.state == "stale"
    edit_holder(pool, beat=time.time() - 999)  # its clock is late, and it lives
    assert watch.look().driver.state == "alive"
    edit_holder(pool, beat=time.time() + 500)  # or early
    assert Watch(pool.url).look().driver.silent_seconds == 0


# -- pools that are not ---------------------------------------------------------------------------------------


def test_a_pool_that_is_missing_broken_or_gone_is_one_line(pool, folder, tmp_path):
    with pytest.raises(PoolError, match=r"there is no pool at .*/nowhere"):
        Watch(str(tmp_path / "nowhere"))
    watch = Watch(pool.url)
    watch.look()
    with pool.acquire():
        record(pool, 0, 1)
    part = max((folder / "trials").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(PoolError, match=rf"{part.name} is damaged \("):
        watch.look()
    shutil.rmtree(folder)
    with pytest.raises(PoolError, match=r"the pool .* is gone"):
        watch.look()


@pytest.mark.usefixtures("lease")
def test_ids_of_no_search_are_refused(pool, folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    record(pool, 0, 1)
    part = max((folder / "trials").glob("*.parquet"))
    data = pq.read_table(part)
    pq.write_table(data.set_column(0, data.schema.field(0), pa.array([-1])), part)
    with pytest.raises(PoolError, match=r"trial ids -1 to -1 are not in"):
        Watch(pool.url).look()


def test_a_pool_at_a_url(tmp_path):
    pool = PoolWriter.create("memory://watched/pool", MANIFEST)
    with pool.acquire():
        record(pool, 0, 3)
    assert Watch("memory://watched/pool").look().finished == 3
    assert open_storage("memory://watched/pool").exists("run.yaml")


# -- pace ---------------------------------------------------------------------------------------------------


def spans(*times):
    made = Spans()
    starts, ends = np.array(times, dtype=float).T
    made.add(starts, ends, np.zeros(len(times), dtype=bool))
    return made


def test_two_workers_that_wait_half_of_the_time_are_half_busy():
    found = spans(*((10 * i, 10 * i + 5) for i in range(10)), *((10 * i, 10 * i + 5) for i in range(10))).pace(
        100.0, [], None
    )
    assert found.workers == 2
    assert found.busy_share == pytest.approx(0.5)
    assert found.per_hour == pytest.approx(20 * 36)


def test_what_runs_counts_and_so_do_workers_that_do_nothing():
    found = spans((0, 10)).pace(20.0, [(10.0, False)], None)
    assert (found.workers, found.busy_share) == (1, 1.0)
    found = spans((0, 10)).pace(20.0, [(10.0, False)], 4)
    assert (found.workers, found.busy_share) == (4, 0.25)


def test_only_what_is_recent_counts():
    old = [(10 * i, 10 * i + 10) for i in range(100)]
    new = [(5000 + 100 * i, 5000 + 100 * i + 100) for i in range(40)]
    found = spans(*old, *new).pace(9000.0, [], None)
    assert found.per_hour == pytest.approx(36)
    assert found.busy_share == pytest.approx(1.0)


def test_a_pause_between_two_drivers_is_no_search():
    found = spans((0, 10), (10, 20), (5000, 5010)).pace(5010.0, [], None)
    assert found.per_hour == pytest.approx(3 * 3600 / 30)
    assert found.busy_share == pytest.approx(1.0)


def test_training_together_takes_all_workers():
    made = spans((0, 10), (0, 10))
    made.add(np.array([10.0]), np.array([20.0]), np.array([True]))
    assert made.pace(20.0, [], None).busy_share == pytest.approx(1.0)


def test_phases_side_by_side_share_the_workers():
    """Each counted as the work of all workers: one that was idle was called busy."""
    made = Spans()
    made.add(np.array([0.0, 0.0, 10.0]), np.array([10.0, 10.0, 15.0]), np.ones(3, dtype=bool))
    found = made.pace(20.0, [], None)
    assert (found.workers, found.busy_share) == (2, pytest.approx(0.75))


def test_nothing_finished_has_no_pace():
    found = Spans().pace(5.0, [(1.0, False)], 2)
    assert (found.per_hour, found.busy_share, found.workers) == (None, None, 2)


def test_what_a_driver_says_is_wrong_is_seen_after_a_beat_and_as_long_as_it_lives(pool):
    watch, end = Watch(pool.url), time.monotonic() + 600
    with pool.acquire(expiry=0.3):
        assert watch.look().driver.note == ""
        pool.say("set aside: gpu:2\n of n3")
        while watch.look().driver.note != "set aside: gpu:2 of n3":
            assert time.monotonic() < end
            time.sleep(0.02)
    assert watch.look().driver.note == ""


def test_what_a_driver_knows_of_the_end_counts_not_the_first_plan(pool):
    """A search by alphas learns what its control may cost with its first cell; its first plan is a guess."""
    watch, end = Watch(pool.url), time.monotonic() + 600
    before = watch.look().budget_trials
    with pool.acquire(expiry=0.3):
        pool.say("", 7)
        while watch.look().budget_trials != 7:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert watch.look().budget_trials == before != 7


def test_the_time_left_is_what_the_driver_says_and_counts_down(pool):
    """It knows what kinds of trials are to come; a watcher knows how many, and took all for as long as the last."""
    clock = [0.0]
    with pool.acquire(expiry=60.0) as lease:
        now = datetime.now(UTC)
        ended = replace(make_trial(0), started_at=now, finished_at=now + timedelta(seconds=60))
        pool.record_asked([ended.proposal], now)
        pool.record_finished([ended])
        pool.say("", 5, 1000.0)
        lease._write(released=False)
        watch = Watch(pool.url, clock=lambda: clock[0])
        left = []
        for clock[0] in (time.time(), time.time() + 20):
            left.append(watch.look().eta_seconds)
        assert 900 < left[0] <= 1000
        assert left[1] <= left[0] - 20 + 1e-3
        pool.say("", 5)
        lease._write(released=False)
        assert watch.look().eta_seconds is None, "nothing is said of it, and the config has no budget"


def test_a_note_never_makes_the_holder_longer():
    short, long = (replace(myself(1, 30.0, 0), note=note) for note in ("short", 'ä"' * 5000))
    assert len(short.to_bytes()) == len(long.to_bytes()) == 1024
    assert json.loads(short.to_bytes())["note"] == "short"
    assert json.loads(long.to_bytes())["note"].endswith("...")
