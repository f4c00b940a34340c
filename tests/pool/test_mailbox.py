"""Requests to a driver and budgets that were changed, in a folder and on object storage."""

import pytest
from _made_up_trials import MANIFEST

from nao_ray.errors import FencedError
from nao_ray.pool import PoolReader, PoolWriter, Watch

OLD, NEW, NEWER = (10, None), (20, None), (20, 3600.5)


@pytest.fixture(params=["folder", "s3"])
def place(request, tmp_path):
    return tmp_path / "p" if request.param == "folder" else request.getfixturevalue("url")


def test_requests_are_answered_once_and_in_order(place, caplog):
    pool = PoolWriter.create(place, MANIFEST)
    asker, driver = PoolReader.open(place).mailbox, pool.mailbox
    assert driver.waiting() == []
    names = [asker.ask({"what": "cancel", "trial_id": number}) for number in (3, 1, 2)]
    assert [name for name, _ in driver.waiting()] == names
    assert [request["trial_id"] for _, request in driver.waiting()] == [3, 1, 2]
    assert asker.take_answer(names[0]) is None
    driver.answer(names[0], "done")
    asker.take_back(names[1])
    assert [name for name, _ in driver.waiting()] == names[2:]
    assert asker.take_answer(names[0]) == "done"
    assert asker.take_answer(names[0]) is None
    pool._storage.write("requests/0-foreign.json", b"[1]")
    assert [name for name, _ in driver.waiting()] == names[2:]
    assert "0-foreign.json is no request and is removed" in caplog.text
    for _ in range(25):  # whose askers have left
        driver.answer(asker.ask({"what": "drain"}), "done")
    assert len(pool._storage.entries("requests")) == 21


def test_a_changed_budget_knows_what_it_stands_for(place):
    pool = PoolWriter.create(place, MANIFEST)
    assert pool.changed_budget() is None
    with pytest.raises(FencedError):
        pool.record_budget(OLD, NEW)
    with pool.acquire():
        pool.record_budget(OLD, NEW)
        assert PoolReader.open(place).changed_budget() == (NEW, (OLD,))
        assert Watch(place).look().budget_trials == (None if "://" in str(place) else 20)  # of which no trial is asked
        pool.record_budget(NEW, NEWER)
        assert PoolReader.open(place).changed_budget() == (NEWER, (OLD, NEW))
        pool.record_budget(NEWER, OLD)
        assert PoolReader.open(place).changed_budget() == (OLD, (NEW, NEWER))
    pool._storage.write("budget.json", b"{}")
    assert PoolReader.open(place).changed_budget() is None
