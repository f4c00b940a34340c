"""Who may write to a pool: an epoch, and a heartbeat that says the driver of that epoch is alive.

A driver that was declared lost may still run (a frozen process, a cluster whose head was restarted). So every
write checks that the epoch is still its own; a driver that was replaced gets `FencedError` instead of a file.
Locally check and rename happen under one lock, which makes this exact. On object storage conditional writes do: of two
that claim a pool one gets it, a heartbeat cannot undo a takeover, and a part that was on its way during one finds its
name taken (`parts.py`).

No clock of the day decides, for it may be set while one waits, or be another on another host. Who wants a pool watches
the heartbeat for as long as its driver may be silent, by seconds that nobody sets; and a driver that has been silent
for so long writes nothing before a beat has got through.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from nao_ray._pool import numbers
from nao_ray._pool.faults import line
from nao_ray._pool.holder import HOLDER, Holder, Sight, is_dead, look, myself
from nao_ray._pool.local import LocalStorage
from nao_ray._pool.storage import Storage, Tag
from nao_ray.errors import FencedError, NaoRayError, PoolError

_BEATS = 6  # per expiry
_TRIES = 3  # of a beat
_BOOT_TIME = getattr(time, "CLOCK_BOOTTIME", None)

_log = logging.getLogger(__name__)


class Clock:
    """Seconds that pass, also while a machine sleeps where it can tell (Linux)."""

    def seconds(self) -> float:
        """Since whenever."""
        return time.monotonic() if _BOOT_TIME is None else time.clock_gettime(_BOOT_TIME)

    def sleep(self, seconds: float) -> None:
        """Let some pass."""
        time.sleep(seconds)


class Lease:
    """The right to write to a pool. A context manager: leaving it gives the pool free."""

    def __init__(self, storage: Storage, holder: Holder, tag: Tag, clock: Clock) -> None:
        self._storage, self._clock = storage, clock
        self._holder = holder
        self._heard = clock.seconds()  # when the last beat got through
        self._tag: Tag | None = tag
        self._released = False
        self._note = ""
        self._total: int | None = None
        self._end: float | None = None  # of the search, by our clock, as far as can be told
        self.is_quiet: Callable[[], bool] = lambda: False
        """Whether none of our writes may still land: then a successor has nothing to seal."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nao-ray-lease", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """1 for a pool's first driver, more for each later one."""
        return self._holder.epoch

    @property
    def unsealed(self) -> range:
        """Earlier epochs of which a part may still be on its way."""
        return range(self._holder.sealed + 1, self._holder.epoch)

    def note_sealed(self) -> None:
        """They are sealed; the next heartbeat says so to later drivers."""
        self._holder = replace(self._holder, sealed=self._holder.epoch - 1)

    def say(self, note: str, total: int | None = None, seconds_left: float | None = None) -> None:
        """With the next heartbeats, to those who watch."""
        self._note, self._total = note, total
        self._end = None if seconds_left is None else self._clock.seconds() + seconds_left

    @property
    def released(self) -> bool:
        """Whether it was given back."""
        return self._released

    def check(self) -> None:
        """Check that the epoch is still ours.

        Raises:
            FencedError: another driver has taken over, or the lease was released.
            PoolGoneError: there is no pool any more.
            OSError: the lease cannot be read.
        """
        self._check(look(self._storage))

    def _check(self, now: Sight) -> None:
        holder = now.holder
        if holder is not None and holder.token == self._holder.token and not holder.released:
            return
        if holder is None and isinstance(self._storage, LocalStorage) and not self._storage.exists("run.yaml"):
            raise self._storage.gone()
        if holder is None:
            who = f"{self._storage.path(HOLDER)} is {'missing' if now.damage is None else 'damaged'}"
        else:
            who = "it was released" if holder.released else f"pid {holder.pid} on {holder.host} took over"
        raise FencedError(
            f"pool {self._storage.url}: epoch {self.epoch} is over, {who}; this driver writes nothing more"
        )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A block in which the epoch is ours and, where the storage has locks, stays ours."""
        with self._storage.exclusive():
            self.check()
            silent = self._clock.seconds() - self._heard
            if silent >= self._holder.expiry:  # frozen, or the storage hung: another may be about to take over
                if not self._storage.excludes:
                    raise FencedError(
                        f"pool {self._storage.url}: this driver could not say for {silent:.0f} s that it is alive, so "
                        "another may have taken over; it writes nothing more: resume goes on"
                    )
                self._beat(self._next(released=False))
            yield

    def release(self) -> None:
        """Give the pool free; harmless a second time or after a takeover."""
        if self._released:
            return
        self._released = True
        self._stop.set()
        self._thread.join(timeout=10)
        with suppress(OSError, NaoRayError):
            self._write(released=True)

    def _keep(self) -> None:
        while not self._stop.wait(self._holder.expiry / _BEATS):
            try:
                self._write(released=False)
            except FencedError:
                return
            except Exception as error:
                # a full disk or a lost mount: the next record tells the loop, and the next beat may get through
                _log.debug("pool %s: no heartbeat: %s", self._storage.url, line(error))

    def _write(self, *, released: bool) -> None:
        holder = self._next(released=released)
        with self._storage.exclusive():
            if isinstance(self._storage, LocalStorage):
                self.check()
            self._beat(holder)

    def _next(self, *, released: bool) -> Holder:
        beats = self._holder.beats + 1
        end = self._end
        left = None if end is None else round(max(0.0, end - self._clock.seconds()), 1)
        said = replace(self._holder, note=self._note, total=self._total, left=left)
        self._holder = replace(said, beats=beats, beat=time.time())
        sealed = self.epoch if released and self.is_quiet() else self._holder.sealed
        return replace(self._holder, released=released, sealed=sealed)

    def _beat(self, holder: Holder) -> None:
        began = self._clock.seconds()
        if isinstance(self._storage, LocalStorage):
            with open(self._storage.path(HOLDER), "r+b", buffering=0) as file:
                file.write(holder.to_bytes())  # in place: needs no space
            self._heard = began
            return
        for _ in range(_TRIES):
            tag = self._storage.swap(HOLDER, holder.to_bytes(), self._tag)
            if tag is not None:
                self._tag, self._heard = tag, began
                return
            now = look(self._storage)  # somebody else's claim, or an earlier beat of ours that landed late
            self._check(now)
            self._tag = now.tag

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def acquire(storage: Storage, expiry: float, wait: float, witness: str, clock: Clock | None = None) -> Lease:
    """Take a pool over when its last driver is gone or has been silent for as long as it may be.

    A driver that is alive is waited for up to `wait` seconds. By the file `witness` the storage shows first that it
    minds conditions.

    Raises:
        PoolError: a driver is alive; says host, pid and the age of its heartbeat.
        PoolWriteError: the lease cannot be written.
    """
    clock = clock or Clock()
    storage.refuse_without_conditions(witness)
    watch = _Watch(storage, expiry, wait, clock)
    while True:
        sight = look(storage)
        if watch.is_over(sight):
            lease = _take(storage, sight, expiry, clock)
            if lease is not None:
                return lease
        else:
            clock.sleep(min(1.0, watch.expiry / _BEATS / 2))


class _Watch:
    """Looks at the signs of life of a driver, until there have been none for long enough."""

    def __init__(self, storage: Storage, expiry: float, wait: float, clock: Clock) -> None:
        self._storage, self._wait, self._clock = storage, wait, clock
        self._began = clock.seconds()
        self.expiry = expiry
        """That of the driver, as far as it is known."""
        self._seen: tuple[object, float] | None = None  # the last sign, and since when
        self._is_told = False

    def is_over(self, sight: Sight) -> bool:
        """Whether the pool may be taken.

        Raises:
            PoolError: no, and it will not be waited for.
        """
        holder, now = sight.holder, self._clock.seconds()
        if sight.mark is None or (holder is not None and is_dead(holder)):
            self._seen = sight.mark, now  # if another is quicker, that is a sign of life
            return True
        if holder is not None:
            self.expiry = holder.expiry
        lives = self._seen is not None and self._seen[0] != sight.mark
        if self._seen is None or lives:
            self._seen = sight.mark, now
        if holder is not None and (lives or _seems_alive(holder)) and now - self._began >= self._wait:
            raise PoolError(self._who(holder))
        if not self._is_told:
            until = datetime.now() + timedelta(seconds=max(self._wait, self.expiry))
            _log.warning("%s; waiting for that until %s", self._who(holder), f"{until:%X}")
            self._is_told = True
        return now - self._seen[1] >= self.expiry

    def _who(self, holder: Holder | None) -> str:
        if holder is None:
            return (
                f"{self._storage.path(HOLDER)} is damaged; the pool is taken over when it has not changed for "
                f"{self.expiry:.0f} s"
            )
        return (
            f"pool {self._storage.url} has a driver: pid {holder.pid} on {holder.host}, alive "
            f"{max(time.time() - holder.beat, 0):.0f} s ago; end it, or try again when it has been silent for "
            f"{holder.expiry:.0f} s"
        )


def _seems_alive(holder: Holder) -> bool:
    """By the clock, which may be wrong: good for refusing a pool, never for taking it."""
    return 0 <= time.time() - holder.beat < holder.expiry


def _take(storage: Storage, sight: Sight, expiry: float, clock: Clock) -> Lease | None:
    """Claim the pool; None when something has changed since it was looked at."""
    with storage.exclusive():
        now = look(storage)
        if now.mark != sight.mark:
            return None
        last = now.holder
        known = 0 if last is None else last.epoch
        if last is None or isinstance(storage, LocalStorage):  # elsewhere a request for each folder
            known = max(known, numbers.last_epoch(storage))
        mine = myself(known + 1, expiry, last.sealed if last else 0)
        tag = storage.swap(HOLDER, mine.to_bytes(), now.tag)
    return None if tag is None else Lease(storage, mine, tag, clock)
