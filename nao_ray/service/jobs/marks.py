"""Whether a path leads to the same folder here and on a cluster: a file that was left in it here is found there.

Where a new pool is to be, a path alone tells nothing: `/home/me/pools` may be on both. So whoever hands a search in
leaves an empty file beside the pool to come, or in the next folder above that is there, and the job looks for it before
it does anything. Where this machine may write none, all that can be asked is that there is such a folder.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Collection
from contextlib import suppress

from nao_ray.errors import ConfigError

_NAME = ".nao-ray-submit-"


def leave(pool_url: str, nodes: Collection[str]) -> str | None:
    """What a job must find before it makes this pool; None: there is nothing to ask.

    Args:
        pool_url: an absolute path, or a URL.
        nodes: IP addresses of the cluster's nodes; of one alone any path is its own.
    """
    if "://" in pool_url or len(nodes) < 2:
        return None
    folder = os.path.dirname(pool_url)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if folder == os.path.sep:  # nothing of it is here: it is the cluster's
        first = os.path.join(folder, pool_url.split(os.path.sep)[1])
        return folder if first == pool_url else first
    mark = os.path.join(folder, _NAME + secrets.token_hex(8))
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except OSError:
        return folder
    return mark


def take_away(mark: str | None) -> None:
    """Remove what was left, if it is still there."""
    if mark is not None and os.path.basename(mark).startswith(_NAME):
        with suppress(OSError):
            os.unlink(mark)


def refuse_elsewhere(pool_url: str, mark: str) -> None:
    """On the cluster, before anything is made.

    Raises:
        ConfigError: what was left is not there.
    """
    if os.path.exists(mark):
        take_away(mark)
        return
    folder = os.path.dirname(mark) if os.path.basename(mark).startswith(_NAME) else mark
    what = "is not the folder that this search was handed in with" if os.path.isdir(folder) else "is not there"
    raise ConfigError(
        f"the pool {pool_url}: {folder} on {platform.node()} {what}; give --pool on storage that all machines see, as "
        f"a URL, or, if the cluster's own folder is meant, as file://{pool_url}"
    )
