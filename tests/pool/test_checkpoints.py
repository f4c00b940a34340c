"""States of long trials in a pool: kept until the trial is final."""

from dataclasses import replace
from datetime import timedelta

import pytest
from _made_up_trials import MANIFEST, START, make_proposal, make_trial

from nao_ray.errors import PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter
from nao_ray.service.fleet.keeping import PoolKeeper, keeper_of
from nao_ray.service.hosting.manifest import storage_id
from nao_ray.trial import FailureKind, Trial


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return str(tmp_path / "p") if request.param == "folder" else request.getfixturevalue("url")


def test_a_state_is_kept_until_its_trial_is_final(place):
    pool = PoolWriter.create(place, {**MANIFEST, "storage_id": "abc"})
    worker = keeper_of(place, storage_id(pool.manifest), 0.0)
    first, second = (replace(make_trial(k), finished_at=START + timedelta(hours=1)) for k in (0, 1))
    assert worker.kept(first.proposal) is None
    with pool.acquire():
        pool.record_asked([first.proposal, second.proposal, make_proposal(2)], START)
        for k in range(3):
            worker.keep(make_proposal(k), f"state {k}".encode())
        worker.keep(first.proposal, b"newer")
        assert keeper_of(place, "abc", 300.0).kept(first.proposal) == b"newer"
        pool.record_finished([first, second])
        assert [PoolReader.open(place).checkpoints.read(k) for k in range(3)] == [None, None, b"state 2"]
        worker.keep(first.proposal, b"late")  # by a worker that was taken for dead
    again = PoolWriter.open(place)
    with again.acquire():
        assert [again.checkpoints.read(k) for k in range(3)] == [None, None, b"state 2"]


def test_a_machine_that_sees_another_pool_there_keeps_nothing(tmp_path, caplog):
    PoolWriter.create(tmp_path / "p", {**MANIFEST, "storage_id": "abc"})
    assert keeper_of(str(tmp_path / "p"), "def", 1.0) is None
    assert "another pool is at" in caplog.text
    assert keeper_of(str(tmp_path / "q"), "def", 1.0) is None
    assert "does not see the pool" in caplog.text


def test_a_disk_that_is_full_holds_up_no_trial_and_states_come_every_so_often(monkeypatch, tmp_path, caplog):
    now = [100.0]
    pool = PoolWriter.create(tmp_path / "p", MANIFEST)
    keeper = PoolKeeper(pool.checkpoints, 60.0, clock=lambda: now[0])
    now[0] += 1000.0  # between two trials
    assert keeper.kept(make_proposal(0)) is None
    assert not keeper.is_due()
    now[0] += 60.0
    assert keeper.is_due()

    def full(*_):
        raise PoolWriteError("cannot write: no space left")

    monkeypatch.setattr(type(pool.checkpoints), "write", full)
    keeper.keep(make_proposal(0), b"state")
    assert "trial 0 goes on without a checkpoint" in caplog.text
    assert not keeper.is_due()


LADDER = {**MANIFEST, "storage_id": "abc", "config": {**MANIFEST["config"], "fidelity": {"epochs": [2, 4, 8]}}}


def rung(k, epochs, parent=None, finished=True):
    made = make_trial(k)
    proposal = replace(
        made.proposal, parent_trial_id=parent, fidelity=replace(made.proposal.fidelity, epochs=epochs), asked_after=0
    )
    return replace(made, proposal=proposal) if finished else proposal


def test_on_a_ladder_a_state_stays_until_the_next_rung_has_ended_or_the_search(place):
    pool = PoolWriter.create(place, LADDER)
    worker = keeper_of(place, storage_id(pool.manifest), 300.0)
    failed = replace(make_proposal(2), fidelity=replace(make_proposal(2).fidelity, epochs=2))
    failed = Trial(proposal=failed, attempt=1).fail(FailureKind.NAN, "nan", log_index=2, finished_at=START)

    def kept(numbers=range(5)):
        return [k for k in numbers if PoolReader.open(place).checkpoints.read(k) is not None]

    with pool.acquire():
        pool.record_asked([make_proposal(k) for k in range(5)], START)
        for k in range(5):
            worker.keep(make_proposal(k), b"state")
        pool.record_finished([rung(0, 2), rung(1, 2), failed])
        assert set(kept()) - {2} == {0, 1, 3, 4}
    again = PoolWriter.open(place)
    with again.acquire():  # sweeps
        assert kept() == [0, 1, 3, 4]
        again.record_finished([rung(3, 4, parent=0)])
        assert kept() == [1, 3, 4], "what went on needs its state no more; what paused there does"
        again.record_finished([rung(4, 8, parent=3)])
        assert set(kept()) - {4} == {1}
        again.end()
        assert kept() == []
