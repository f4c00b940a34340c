"""Object storage: a file is one request, and two that write it at once are told apart by conditions.

There are no renames and no locks. A file is created only if there is none (`If-None-Match`), and replaced only if it
still is what was looked at (`If-Match`; on Google by its generation). So of two drivers that claim a pool at once
one gets it, and a request of a replaced driver that was on its way changes nothing when it arrives (`lease.py` and
`parts.py` say how). A server that ignores these conditions is refused before anything depends on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

import pyarrow as pa
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from nao_ray._pool import names, stores
from nao_ray._pool.catalogue import Catalogue, Listed
from nao_ray._pool.faults import UnreachableError, line, unreadable
from nao_ray._pool.storage import Guard, Storage, Tag
from nao_ray.addresses import split_query
from nao_ray.errors import PoolError, PoolWriteError, RunError

_SECONDS = 60.0  # that a request may take
_LARGE = 8 * 2**20  # bytes; a larger file may take
_LARGE_SECONDS = 900.0
_LEASE_SECONDS = 4.0  # a heartbeat: twice and a pause are well within a driver's expiry of 30 s
_TRIES = 3  # of a write whose fate is unknown
_PAUSE = 0.2  # seconds between them
_PAGE = 1000  # files that a listing gives in one request


class ObjectStorage(Storage):
    """A path in a bucket or container."""

    def __init__(self, url: str) -> None:
        opener, path = stores.parse(url)
        super().__init__(split_query(url)[0], url)
        self._prefix = f"{path}/" if path else ""
        self._open = cache(opener)
        self.catalogue = Catalogue(self)
        self._glanced: dict[str, tuple[bytes, Tag]] = {}

    def _store(self, name: str, size: int = 0) -> Any:  # noqa: ANN401 - one class for each kind of storage
        """A heartbeat must not wait for a request that hangs until the driver counts as dead; a large file may."""
        if name.startswith("lease/"):
            return self._open(_LEASE_SECONDS, 1)
        return self._open(_LARGE_SECONDS if size > _LARGE else _SECONDS, 3)

    def _key(self, name: str) -> str:
        return self._prefix + name

    # -- reading ------------------------------------------------------------------------------------------

    def entries(self, folder: str = "") -> list[str]:
        prefix = self._key(folder).strip("/")
        with self._reading(folder):
            found = self._store("").list_with_delimiter(prefix or None)
        names = [*(item["path"] for item in found["objects"]), *found["common_prefixes"]]
        return sorted(name.rpartition("/")[2] for name in names)

    def listing(self, wanted: Sequence[str]) -> dict[str, Listed]:
        """Files by name, in order: one request a thousand, others among them counted.

        Args:
            wanted: names of files and folders, in order; of a folder all that is in it.
        """
        root = self._prefix.strip("/")
        found: dict[str, Listed] = {}
        after = wanted[0]
        with self._reading(""):
            while after:
                pages = self._store("").list(root or None, offset=self._key(after), chunk_size=_PAGE)
                after = ""
                for page in pages:
                    items = [(item["path"][len(self._prefix) :], Listed(_tag(item), item["size"])) for item in page]
                    found |= {name: about for name, about in items if name.partition("/")[0] in wanted}
                    last = items[-1][0].partition("/")[0]
                    if len(page) == _PAGE and last not in wanted:  # a folder of thousands that nobody asked for
                        after = next((name for name in wanted if name > last), "")
                        break
        return found

    def parts(self, folder: str) -> list[str]:
        return names.counting(name for name in self.catalogue.names(folder) if name.endswith(".parquet"))

    def moment(self) -> AbstractContextManager[None]:
        return self.catalogue.moment()

    def exists(self, name: str) -> bool:
        with self._reading(name):
            try:
                self._store(name).head(self._key(name))
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str, length: int | None = None) -> bytes:
        if length is None:
            return self.look(name)[0]
        with self._reading(name):
            return bytes(self._store(name).get(self._key(name), options={"range": (0, length)}).bytes())

    def read_end(self, name: str, size: int, length: int) -> bytes:
        """The last bytes of a file of this size; raises OSError."""
        with self._reading(name):
            return bytes(self._store(name).get_range(self._key(name), start=size - length, length=length))

    def open(self, name: str) -> pa.NativeFile:
        return pa.BufferReader(self.read(name))

    def look(self, name: str) -> tuple[bytes, Tag]:
        with self._reading(name):
            found = self._store(name, _LARGE + 1).get(self._key(name))  # of what size it is nobody knows
            return bytes(found.bytes()), _tag(found.meta)

    def glance(self, name: str) -> bytes:
        known, now = self._glanced.get(name), self.catalogue.listing().get(name)
        if now is None:
            raise FileNotFoundError(f"{self.path(name)} is not there")
        if known is None or known[1] != now.tag:
            self._glanced[name] = known = self.look(name)
        return known[0]

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.path(name)} is not there") from None
        except BaseError as error:
            raise _os_error(error) from None

    # -- writing ------------------------------------------------------------------------------------------

    def make_folder(self, name: str = "") -> None:
        """Folders are made of the names of their files."""

    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        if guard is nullcontext:
            with self._writing(name):
                self._store(name, len(data)).put(self._key(name), bytes(data))
            return
        before = self._tag_of(name)
        with guard():  # ours after the tag was taken: what another driver writes from now on has another tag
            if self.swap(name, data, before):
                return
        with guard():
            pass
        raise PoolWriteError(f"{self.path(name)} was changed by another process while it was written; try again")

    def create(self, name: str, data: bytes | memoryview) -> bool:
        return self.swap(name, data, None) is not None

    def swap(self, name: str, data: bytes | memoryview, tag: Tag | None) -> Tag | None:
        body = bytes(data)
        mode: Any = "create" if tag is None else dict(tag)
        for attempt in range(_TRIES):
            try:
                return _tag(self._store(name, len(body)).put(self._key(name), body, mode=mode))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return self._own(name, body)  # it may be ours: its answer was lost, and it was sent again
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise self.failed(name, error) from None
            except BaseError as error:
                if attempt == _TRIES - 1:
                    raise self.failed(name, error) from None
            time.sleep(_PAUSE)
        return None

    def _own(self, name: str, body: bytes) -> Tag | None:
        try:
            now, tag = self.look(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.failed(name, error) from None
        return tag if now == body else None

    def _tag_of(self, name: str) -> Tag | None:
        try:
            return _tag(self._store(name).head(self._key(name)))
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise self.failed(name, error) from None

    def move(self, name: str, target: str) -> None:
        self.write(target, self.read(name))
        self.remove(name)

    def remove(self, *files: str) -> None:
        """Remove files, if they are there: one request a thousand on S3."""
        if not files:
            return
        with self._writing(files[0]):
            try:
                self._store("").delete([self._key(name) for name in files])
            except FileNotFoundError:  # Google and Azure say so, and may have stopped there
                for name in files:
                    with suppress(FileNotFoundError):
                        self._store("").delete(self._key(name))

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            raise self.failed(name, error) from None

    def failed(self, name: str, error: BaseException) -> RunError:
        return super().failed(name, _os_error(error) if isinstance(error, BaseError) else error)

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()

    def refuse_without_conditions(self, name: str) -> None:
        try:
            body = self.read(name)
        except OSError as error:
            raise unreadable(self.path(name), error, "restore it from a copy") from None
        what = f"cannot write to {self.url}: its server {{}} conditional writes, which tell two drivers apart"
        try:
            self._store(name).put(self._key(name), body, mode="create")
        except AlreadyExistsError:
            return
        except BaseError as error:
            if "501" in str(error) or "NotImplemented" in str(error):
                raise PoolError(what.format("knows no")) from None
            raise self.failed(name, error) from None
        raise PoolError(what.format("ignores"))


def _tag(meta: Any) -> Tag:  # noqa: ANN401 - a dictionary of obstore's
    """What a later write is made conditional on; listings of Azure leave the quotes out."""
    return tuple(
        (key, f'"{value.strip(chr(34))}"' if key == "e_tag" else value)
        for key in ("e_tag", "version")
        if (value := meta[key])
    )


def _os_error(error: BaseError) -> OSError:
    """Obstore's error as one that `faults.py` tells apart."""
    if stores.METADATA in str(error):
        return PermissionError(f"{stores.NO_CREDENTIALS}: {line(error)}")
    is_refused = isinstance(error, PermissionDeniedError | UnauthenticatedError) or "credential" in str(error).lower()
    return (PermissionError if is_refused else UnreachableError)(line(error))
