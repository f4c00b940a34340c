"""What is asked of the driver of a pool, from wherever the pool is seen: a small file a request, and one an answer.

Anyone writes requests; the driver alone answers them, once what was asked has been done and recorded. The asker takes
the answer away; of those that nobody fetched a few are kept.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from nao_ray._pool.storage import Storage

FOLDER = "requests"
_ASKED, _ANSWERED = ".json", ".answer"
_KEPT_ANSWERS = 20

_log = logging.getLogger(__name__)


class Mailbox:
    """The requests of one pool."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def ask(self, request: Mapping[str, Any]) -> str:
        """Hand in a request; returns the name it is answered by.

        Raises:
            PoolWriteError: the pool cannot be written.
        """
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"  # in the order asked
        self._storage.make_folder(FOLDER)
        self._storage.write(f"{FOLDER}/{name}{_ASKED}", json.dumps(request).encode())
        return name

    def take_answer(self, name: str) -> str | None:
        """The driver's answer, once; None: there is none yet. Raises OSError."""
        file = f"{FOLDER}/{name}{_ANSWERED}"
        if not self._storage.exists(file):
            return None
        text = self._storage.read(file).decode()
        self._storage.remove(file)
        return text

    def take_back(self, name: str) -> None:
        """Ask no longer."""
        self._storage.remove(f"{FOLDER}/{name}{_ASKED}")

    def waiting(self) -> list[tuple[str, dict[str, Any]]]:
        """Requests that are not answered, oldest first, by name; what is none is put away. Raises OSError."""
        names = [name for name in self._storage.entries(FOLDER) if name.endswith(_ASKED) and not name.startswith(".")]
        found = []
        for name in names:
            try:
                request = json.loads(self._storage.read(f"{FOLDER}/{name}"))
            except FileNotFoundError:  # taken back
                continue
            except ValueError:
                request = None
            if isinstance(request, dict):
                found.append((name.removesuffix(_ASKED), request))
            else:
                _log.warning("%s is no request and is removed", self._storage.path(FOLDER, name))
                self._storage.remove(f"{FOLDER}/{name}")
        return found

    def answer(self, name: str, text: str) -> None:
        """Answer a request, which is then no longer waiting.

        Raises:
            PoolWriteError: the pool cannot be written.
        """
        self._storage.write(f"{FOLDER}/{name}{_ANSWERED}", text.encode())
        self._storage.remove(f"{FOLDER}/{name}{_ASKED}")
        answers = [name for name in self._storage.entries(FOLDER) if name.endswith(_ANSWERED)]
        for old in answers[:-_KEPT_ANSWERS]:
            self._storage.remove(f"{FOLDER}/{old}")
