"""What people note beside trials: in a file of the pool, on disks and on object storage, and nothing is lost of it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from _made_up_trials import MANIFEST

from nao_ray._pool.notes import LONGEST, NAME
from nao_ray.errors import PoolError, PoolWriteError
from nao_ray.pool import PoolReader, PoolWriter


def test_a_note_stays_until_it_says_nothing(pool, folder):
    reader = PoolReader.open(folder)
    assert reader.notes() == {}
    reader.put_note(17, True, "")
    found = reader.put_note(3, False, "look <again>, dämlich")
    assert list(found) == [3, 17]
    assert found == PoolReader.open(folder).notes()
    assert (found[17]["star"], found[3]["star"], found[3]["text"]) == (True, False, "look <again>, dämlich")
    assert found[3]["at"].endswith("Z")
    assert json.loads((folder / NAME).read_text())["version"] == 1
    assert list(reader.put_note(17, False, "")) == [3]
    assert reader.check() == []


def test_what_is_no_note_is_refused_and_left(pool, folder):
    reader = PoolReader.open(folder)
    with pytest.raises(PoolError, match="10,001 characters"):
        reader.put_note(1, False, "x" * (LONGEST + 1))
    assert not (folder / NAME).exists()
    for text in ("{", "[]", '{"version": 2, "notes": {}}', '{"version": 1, "notes": {"a": {}}}'):
        (folder / NAME).write_text(text)
        for act in (reader.notes, lambda: reader.put_note(1, True, "")):
            with pytest.raises(PoolError, match=r"notes\.json holds no notes"):
                act()
        assert (folder / NAME).read_text() == text


def test_a_pool_that_cannot_be_written_says_so(pool, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    reader = PoolReader.open(folder)
    reader.put_note(1, True, "")
    monkeypatch.setattr("nao_ray._pool.local.os.replace", full)
    with pytest.raises(PoolWriteError, match=r"notes\.json"):
        reader.put_note(2, True, "")
    assert list(reader.notes()) == [1]


def _note_all(url, count):
    """Notes by as many people at once, each by a connection of its own."""
    with ThreadPoolExecutor(count) as people:
        list(people.map(lambda k: PoolReader.open(url).put_note(k, True, f"note {k}"), range(count)))
    assert list(PoolReader.open(url).notes()) == list(range(count))


def test_two_at_once_lose_nothing(pool, folder):
    _note_all(folder, 8)


def test_nor_do_they_on_object_storage(url):
    PoolWriter.create(url, MANIFEST)
    assert PoolReader.open(url).notes() == {}
    _note_all(url, 4)
