"""Renames that file systems have and Python has not: two names exchanged at once, a name taken only if it is free."""

from __future__ import annotations

import ctypes
import errno
import os

from nao_ray.errors import PoolWriteError

UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM, errno.EMLINK}
)
"""What a file system says that cannot do it."""

_HERE = -100  # AT_FDCWD
_ONLY_IF_FREE, _EXCHANGE = 1, 2


def exchange(one: str, other: str) -> None:
    """Exchange two names; nobody sees one of them missing.

    Raises:
        OSError: they are as before; an `errno` of `UNSUPPORTED` where the system or its files have no such rename.
    """
    _renameat2(one, other, _EXCHANGE)


def take_name(source: str, target: str, *, locked: bool) -> None:
    """Rename a file, unless there is something of that name.

    Args:
        source: the file.
        target: its new name.
        locked: nobody else takes names there at the moment.

    Raises:
        FileExistsError: there is.
        OSError: it could not be done.
    """
    try:
        _renameat2(source, target, _ONLY_IF_FREE)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _link(source, target, locked=locked)


def _link(source: str, target: str, *, locked: bool) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        if not locked:
            _copy(source, target)  # no hard links either: the name is taken first, and for a moment holds less
        elif os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        else:
            os.replace(source, target)
            return
    os.unlink(source)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original:
        data = original.read()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            if os.write(handle, data) < len(data):
                raise PoolWriteError(f"cannot write {target}: the disk is full")
            os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        os.unlink(target)
        raise


def _renameat2(source: str, target: str, flags: int) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source)
    if function(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)
