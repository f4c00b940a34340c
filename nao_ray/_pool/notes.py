"""What people note beside trials: a small JSON file of the pool, which no search reads or writes."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from nao_ray._pool.faults import READING, patient, unreadable
from nao_ray._pool.storage import Storage
from nao_ray.errors import PoolError, PoolWriteError

NAME = "notes.json"
LONGEST = 10_000
"""Characters of a note."""
_LOST = "the notes and stars in it; move it elsewhere, and new ones begin"
_TRIES, _PAUSE = 20, 0.1

Note = dict[str, Any]
"""``{"star": bool, "text": str, "at": ISO 8601 text}``."""


def read_notes(storage: Storage) -> dict[int, Note]:
    """Notes by the number of their trial.

    Raises:
        PoolError: the file is damaged, or none of ours.
        PoolReadError: it cannot be read at the moment.
    """
    try:
        return _parsed(storage, patient(lambda: storage.read(NAME), merged=False))
    except FileNotFoundError:
        return {}
    except READING as error:
        raise unreadable(storage.path(NAME), error, _LOST) from None


def write_note(storage: Storage, trial_id: int, star: bool, text: str) -> dict[int, Note]:
    """Put a note, instead of the trial's old one; without star and text it goes. Returns all there are.

    Two that write at once lose neither note: locally there is a lock, on object storage a condition.

    Raises:
        PoolError: the note is too long, or the file is damaged.
        PoolWriteError: it was not written.
    """
    if len(text) > LONGEST:
        raise PoolError(f"the note of trial {trial_id} has {len(text):,} characters; {LONGEST:,} at most")
    with storage.exclusive():
        for _ in range(_TRIES):
            try:
                data, tag = storage.look(NAME)
            except FileNotFoundError:
                data, tag = b"", None
            except OSError as error:
                raise unreadable(storage.path(NAME), error, _LOST) from None
            notes = _parsed(storage, data) if tag is not None else {}
            notes.pop(trial_id, None)
            if star or text:
                moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                notes[trial_id] = {"star": star, "text": text, "at": moment}
            notes = dict(sorted(notes.items()))
            body = {"version": 1, "notes": {str(number): note for number, note in notes.items()}}
            if storage.swap(NAME, json.dumps(body, indent=1, ensure_ascii=False).encode(), tag) is not None:
                return notes
            time.sleep(_PAUSE)  # another one has just written
    raise PoolWriteError(f"cannot write {storage.path(NAME)}: others write it all the time; try again")


def _parsed(storage: Storage, data: bytes) -> dict[int, Note]:
    try:
        body = json.loads(data)
        if body["version"] != 1:
            raise KeyError("version")
        return {
            int(number): {"star": bool(note["star"]), "text": str(note["text"]), "at": str(note["at"])}
            for number, note in body["notes"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PoolError(f"{storage.path(NAME)} holds no notes of nao_ray's: {_LOST}") from None
