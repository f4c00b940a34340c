"""What went wrong with a file of the pool, told apart once, for every read and write.

TRANSIENT  the way to the file failed: a disk that is full or stalls, a server that throttles, a file that a merge has
           just replaced. The file may be healthy; the same is tried again.
REFUSED    permissions, credentials, a read-only disk: trying again helps when somebody has changed that.
DAMAGED    the bytes came, and are not what was written. Said of bytes alone that were read to the end.

The errors are Python's (`OSError`), Arrow's, and obstore's, which `objects.py` turns into the first kind.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeVar

import pyarrow as pa

from nao_ray.errors import PoolError, PoolReadError, PoolWriteError

T = TypeVar("T")

READING = (OSError, pa.ArrowException, UnicodeDecodeError)
"""What reading a file of the pool may raise."""

_TRY_SECONDS = 3.0  # a reader's patience: a merge hides a folder for milliseconds
_TRY_PAUSE = 0.05
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Fault(Enum):
    """What an error says of the file it is about."""

    TRANSIENT = auto()
    REFUSED = auto()
    DAMAGED = auto()


class UnreachableError(OSError):
    """Object storage gave no answer, or one that says nothing of the file."""


def kind_of(error: BaseException) -> Fault:
    """What an error of `READING`, or of a write, says of the file."""
    if isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED:
        return Fault.REFUSED
    if isinstance(error, MemoryError):  # Arrow's is one of its own errors, too
        return Fault.TRANSIENT
    if not isinstance(error, OSError) or isinstance(error, IsADirectoryError | NotADirectoryError):
        return Fault.DAMAGED
    # what Arrow cannot decode is an OSError that no system call has given a number
    return Fault.DAMAGED if type(error) is OSError and error.errno is None else Fault.TRANSIENT


def line(error: BaseException) -> str:
    """What an error says, in one line; obstore's go on with pages for its authors."""
    return " ".join(str(error).partition("\n\nDebug source:")[0].split()) or type(error).__name__


def patient(read: Callable[[], T], *, merged: bool = True) -> T:
    """A reader's result, tried again for three seconds while the trouble is a transient one.

    Args:
        read: reads.
        merged: a file that is not there may have been replaced by a merge; otherwise it is simply missing.

    Raises:
        OSError: it could not be read.
        pa.ArrowException: nor could it now be made sense of.
    """
    end = time.monotonic() + _TRY_SECONDS
    while True:
        try:
            return read()
        except READING as error:
            is_missing = isinstance(error, FileNotFoundError) and not merged
            if is_missing or kind_of(error) is not Fault.TRANSIENT or time.monotonic() >= end:
                raise
        time.sleep(_TRY_PAUSE)


def unreadable(path: str, error: BaseException, lost: str) -> PoolError | PoolReadError:
    """The error of a file that cannot be read.

    Args:
        path: of the file.
        error: what reading it raised.
        lost: what is lost where the file is damaged, and what to do.
    """
    kind = kind_of(error)
    if kind is Fault.DAMAGED:
        return PoolError(f"{path} is damaged ({line(error)}): {lost}")
    if kind is Fault.REFUSED:
        return PoolReadError(f"may not read {path}: {line(error)}; allow it, or renew the credentials, then try again")
    return PoolReadError(f"cannot read {path} at the moment: {line(error)}; nothing is lost, try again")


def unwritable(path: str, error: BaseException) -> PoolWriteError:
    """The error of a file that cannot be written."""
    if kind_of(error) is Fault.REFUSED:
        remedy = "allow writing there, or renew the credentials"
    else:
        remedy = "free the disk or fix the storage"
    return PoolWriteError(f"cannot write {path}: {line(error)}; nothing recorded was lost: {remedy}, then resume")
