"""The driver that owns a pool, as `lease/holder.json` tells, and whether its process has ended."""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import psutil

from nao_ray._pool.storage import Storage, Tag

HOLDER = "lease/holder.json"
_SIZE = 1024  # bytes; one size for ever, so that a heartbeat needs no space on a full disk
_READS = 20  # a beat may be under way
_NO_HOLDER = (ValueError, TypeError, AttributeError)  # what its bytes raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The driver that owns a pool."""

    epoch: int
    token: str
    host: str
    place: str
    """Host, boot and process namespace: where `pid` means something."""
    pid: int
    started: float
    """When the process started, seconds since 1970."""
    beat: float
    """When it last said that it is alive, seconds since 1970: for people to read, for clocks are set anew."""
    expiry: float
    """Seconds without a beat after which it counts as dead."""
    released: bool = False
    sealed: int = 0
    """Epochs up to this one have no part on its way any more (`parts.py`)."""
    beats: int = 0
    """How often it has said so."""
    ticks: int | None = None
    """When the process started, by a clock that nobody sets; None where there is none."""
    note: str = ""
    """What the driver has to say of itself."""
    total: int | None = None
    """Trials that the search comes to, as far as its driver can tell now."""
    left: float | None = None
    """Seconds that it still takes from `beat` on, likewise."""

    def to_bytes(self) -> bytes:
        """JSON, padded; the note is cut where there is no room for it."""
        data = json.dumps(asdict(self)).encode()
        if len(data) >= _SIZE and self.note:
            plain = self.note.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")
            room = _SIZE - 1 - len(json.dumps(asdict(replace(self, note=""))))
            data = json.dumps(asdict(replace(self, note=f"{plain[: max(0, room - 3)]}..."))).encode()
        return data.ljust(_SIZE - 1) + b"\n"


_NAMES = {item.name for item in fields(Holder)}


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of the holder."""

    holder: Holder | None = None
    """None where there was none, or the file is damaged."""
    tag: Tag | None = None
    damage: bytes | None = None
    """The bytes of a file that is no holder's."""

    @property
    def mark(self) -> object:
        """Changes with every beat."""
        holder = self.holder
        return self.damage if holder is None else (holder.token, holder.beats, holder.beat, holder.released)


def look(storage: Storage) -> Sight:
    """Look at the holder.

    Raises:
        OSError: the file cannot be read.
    """
    data = b""
    for _ in range(_READS):
        try:
            data, tag = storage.look(HOLDER)
            return Sight(_parse(data), tag)
        except FileNotFoundError:
            return Sight()
        except _NO_HOLDER:
            time.sleep(0.01)  # read in the middle of a beat
    return Sight(None, tag, data)


def glance(storage: Storage) -> Holder | None:
    """The holder, in the storage's `moment`: asks only for a file that has changed; None where there is none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return _parse(storage.glance(HOLDER))
    except FileNotFoundError:
        return None
    except _NO_HOLDER:
        return look(storage).holder


def _parse(data: bytes) -> Holder:
    return Holder(**{name: value for name, value in json.loads(data).items() if name in _NAMES})


def myself(epoch: int, expiry: float, sealed: int) -> Holder:
    """This process as the holder."""
    return Holder(
        epoch=epoch,
        token=secrets.token_hex(8),
        host=platform.node(),
        place=place(),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        beat=time.time(),
        expiry=expiry,
        sealed=sealed,
        ticks=_ticks(os.getpid()),
    )


@lru_cache(maxsize=1)
def place() -> str:
    """This host, boot and process namespace; like no other where they cannot be told."""
    parts = [platform.node()]
    if os.path.isdir("/proc/sys/kernel"):
        try:
            parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
            parts.append(os.readlink("/proc/self/ns/pid"))
        except OSError:
            parts.append(secrets.token_hex(8))
    return "|".join(parts)


def is_dead(holder: Holder) -> bool:
    """Whether the driver is known to be gone: it said so, or its process on this host has ended."""
    if holder.released:
        return True
    if holder.place != place():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's; what /proc hides is not dead
    with suppress(psutil.Error):
        if psutil.Process(holder.pid).status() == psutil.STATUS_ZOMBIE:
            return True
    ticks = _ticks(holder.pid)
    return holder.ticks is not None and ticks is not None and ticks != holder.ticks


def _ticks(pid: int) -> int | None:
    """When a process started, in ticks since the boot."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
