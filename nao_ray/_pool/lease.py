"""Who may write to a pool: an epoch, and a heartbeat that says the driver of that epoch is alive.

A driver that was declared lost may still run (a frozen process, a cluster whose head was restarted). So every
write checks that the epoch is still its own; a driver that was replaced gets `FencedError` instead of a file.
Locally check and rename happen under one lock, which makes this exact. On object storage conditional writes do: of two
that claim a pool one gets it, a heartbeat cannot undo a takeover, and a part that was on its way during one finds its
name taken (`parts.py`).
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from nao_ray._pool.local import LocalStorage
from nao_ray._pool.storage import Storage, Tag
from nao_ray.errors import FencedError, PoolError, PoolWriteError

HOLDER = "lease/holder.json"
_SIZE = 1024  # bytes; one size for ever, so that a heartbeat needs no space on a full disk
_BEATS = 6  # per expiry
_TRIES = 3  # of a beat
_SAME_PROCESS = 60.0  # seconds between two readings of one process's start; clocks get corrected

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that owns a pool, as written in `lease/holder.json`."""

    epoch: int
    token: str
    host: str
    place: str
    """Host, boot and process namespace: where `pid` means something."""
    pid: int
    started: float
    """When the process started, seconds since 1970."""
    beat: float
    """When it last said that it is alive, seconds since 1970."""
    expiry: float
    """Seconds without a beat after which it counts as dead."""
    released: bool = False
    sealed: int = 0
    """Epochs up to this one have no part on its way any more (`parts.py`)."""

    def to_bytes(self) -> bytes:
        """JSON, padded."""
        return json.dumps(asdict(self)).encode().ljust(_SIZE - 1) + b"\n"


def read_holder(storage: Storage) -> Holder | None:
    """The last driver of a pool, None where there was none.

    Raises:
        PoolError: the file is damaged.
        OSError: it cannot be read.
    """
    return _look(storage)[0]


def glance_at_holder(storage: Storage) -> Holder | None:
    """As `read_holder`, in the storage's `moment`: asks only for a file that has changed."""
    try:
        return Holder(**json.loads(storage.glance(HOLDER)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return read_holder(storage)  # read in the middle of a beat, or damaged


def _look(storage: Storage) -> tuple[Holder | None, Tag | None]:
    for _ in range(20):
        try:
            data, tag = storage.look(HOLDER)
            return Holder(**json.loads(data)), tag
        except FileNotFoundError:
            return None, None
        except (ValueError, TypeError):
            time.sleep(0.01)  # read in the middle of a beat
    raise PoolError(f"{storage.path(HOLDER)} is damaged; when no driver runs on this pool, remove the file")


def place() -> str:
    """This host, boot and process namespace."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "|".join(parts)


def is_dead(holder: Holder) -> bool:
    """Whether the driver is known to be gone: it said so, or its process on this host has ended."""
    if holder.released:
        return True
    if holder.place != place():
        return False
    try:
        process = psutil.Process(holder.pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return bool(ended or abs(process.create_time() - holder.started) > _SAME_PROCESS)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def is_alive(storage: Storage) -> bool:
    """Whether a driver may be at work: neither known dead nor silent for longer than its expiry."""
    holder = read_holder(storage)
    return holder is not None and not is_dead(holder) and time.time() - holder.beat < holder.expiry


class Lease:
    """The right to write to a pool. A context manager: leaving it gives the pool free."""

    def __init__(self, storage: Storage, holder: Holder, tag: Tag) -> None:
        self._storage = storage
        self._holder = holder
        self._tag: Tag | None = tag
        self._released = False
        self.is_quiet: Callable[[], bool] = lambda: False
        """Whether none of our writes may still land: then a successor has nothing to seal."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nao-ray-lease", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """1 for a pool's first driver, one more for each later one."""
        return self._holder.epoch

    @property
    def unsealed(self) -> range:
        """Earlier epochs of which a part may still be on its way."""
        return range(self._holder.sealed + 1, self._holder.epoch)

    def note_sealed(self) -> None:
        """They are sealed; the next heartbeat says so to later drivers."""
        self._holder = replace(self._holder, sealed=self._holder.epoch - 1)

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._released

    def check(self) -> None:
        """Check that the epoch is still ours.

        Raises:
            FencedError: another driver has taken over, or the lease was released.
            OSError: the lease cannot be read.
        """
        self._check(read_holder(self._storage))

    def _check(self, now: Holder | None) -> None:
        if now is None or now.token != self._holder.token or now.released:
            who = "it was released" if now is None or now.released else f"pid {now.pid} on {now.host} took over"
            raise FencedError(
                f"pool {self._storage.url}: epoch {self.epoch} is over, {who}; this driver writes nothing more"
            )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A block in which the epoch is ours and, where the storage has locks, stays ours."""
        with self._storage.exclusive():
            self.check()
            yield

    def release(self) -> None:
        """Give the pool free; harmless a second time or after a takeover."""
        if self._released:
            return
        self._released = True
        self._stop.set()
        self._thread.join(timeout=10)
        with suppress(OSError, FencedError, PoolWriteError, PoolError):
            self._write(released=True)

    def _keep(self) -> None:
        while not self._stop.wait(self._holder.expiry / _BEATS):
            try:
                self._write(released=False)
            except FencedError:
                return
            except Exception as error:
                # a full disk or a lost mount: the next record tells the loop, and the next beat may get through
                _log.debug("pool %s: no heartbeat: %s", self._storage.url, " ".join(str(error).split()))

    def _write(self, *, released: bool) -> None:
        sealed = self.epoch if released and self.is_quiet() else self._holder.sealed
        holder = replace(self._holder, beat=time.time(), released=released, sealed=sealed)
        if isinstance(self._storage, LocalStorage):
            with self.guard(), open(self._storage.path(HOLDER), "r+b", buffering=0) as file:
                file.write(holder.to_bytes())  # in place: needs no space
            return
        for _ in range(_TRIES):
            tag = self._storage.swap(HOLDER, holder.to_bytes(), self._tag)
            if tag is not None:
                self._tag = tag
                return
            now, self._tag = _look(self._storage)  # somebody else's claim, or an earlier beat of ours that landed late
            self._check(now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(storage: Storage, expiry: float, wait: float, witness: str) -> Lease:
    """Take a pool over when its last driver is gone; up to `wait` seconds are spent on waiting for that.

    By the file `witness` the storage shows first that it minds conditions.

    Raises:
        PoolError: a driver is alive; says host, pid and the age of its heartbeat.
        PoolWriteError: the lease cannot be written.
    """
    storage.refuse_without_conditions(witness)
    end, is_told = time.monotonic() + wait, False
    while True:
        try:
            return _take(storage, expiry)
        except PoolError as error:
            if (left := end - time.monotonic()) < 0:
                raise
            if not is_told:
                _log.warning("%s; waiting for that until %s", error, f"{datetime.now() + timedelta(seconds=left):%X}")
            is_told = True
        time.sleep(min(1.0, expiry / _BEATS))


def _take(storage: Storage, expiry: float) -> Lease:
    seen = read_holder(storage)
    if seen is not None and not is_dead(seen):
        _refuse_if_alive(storage, seen)
    with storage.exclusive():
        last, tag = _look(storage)
        if (last and last.token) != (seen and seen.token):
            raise PoolError(f"pool {storage.url}: another driver has just taken it")
        mine = Holder(
            epoch=1 + (last.epoch if last else 0),
            token=secrets.token_hex(8),
            host=platform.node(),
            place=place(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            beat=time.time(),
            expiry=expiry,
            sealed=last.sealed if last else 0,
        )
        tag = storage.swap(HOLDER, mine.to_bytes(), tag)
    if tag is None:
        raise PoolError(f"pool {storage.url}: another driver has just taken it")
    return Lease(storage, mine, tag)


def _refuse_if_alive(storage: Storage, holder: Holder) -> None:
    """Raise PoolError unless the holder is silent: by the clock, and for another host's clock by watching it."""
    age = time.time() - holder.beat
    silent = age >= holder.expiry
    if holder.place != place() and (silent or age < -holder.expiry / _BEATS):
        time.sleep(2.5 * holder.expiry / _BEATS)
        now = read_holder(storage)
        silent = now is not None and (now.token, now.beat) == (holder.token, holder.beat)
    if not silent:
        raise PoolError(
            f"pool {storage.url} has a driver: pid {holder.pid} on {holder.host}, alive {max(age, 0):.0f} s ago; end "
            f"it, or try again when it has been silent for {holder.expiry:.0f} s"
        )
