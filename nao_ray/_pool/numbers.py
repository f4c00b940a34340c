"""Numbers that must be new follow from everything that is there, so that no file is needed to know them."""

from __future__ import annotations

import re

from nao_ray._pool.storage import Storage

_EPOCH = re.compile(r"(?<![A-Za-z0-9])[em](\d{6,})(?=-|$)")  # of parts, also in quarantine, and of folders of merges
_PLACES = ("", "trials", "rungs", "events", "quarantine")


def last_epoch(storage: Storage) -> int:
    """The highest epoch of which there is anything; 0 for a pool that no driver has written.

    Raises:
        OSError: the pool cannot be listed.
    """
    names = (name for place in _PLACES for name in storage.entries(place))
    return max((int(epoch) for name in names for epoch in _EPOCH.findall(name)), default=0)
