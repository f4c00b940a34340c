"""The report of a pool, put where people find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nao_ray.errors import RunError
from nao_ray.pool import PoolReader, write_page
from nao_ray.report.render import render
from nao_ray.spaces.base import SearchSpace


def write_report(pool: PoolReader, space: SearchSpace[Any], out: Path | None = None) -> str:
    """Write the report of a pool; returns where it is.

    Args:
        pool: to report on.
        space: the pool's.
        out: the file; default: report.html in the pool.

    Raises:
        PoolError: a part of the pool is damaged.
        PoolWriteError: the pool cannot be written.
        RunError: `out` cannot be written.
    """
    counts = pool.counts()
    running = counts.asked - counts.finished
    tested = int(pool.sql("SELECT count(*) AS n FROM final")["n"].iloc[0])
    page = render(pool.manifest, pool.trials(), pool.fits(), running, space, tested)
    if out is None:
        return write_page(pool.url, page)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the report {out}: {error.strerror or error}") from None
    return str(out)
