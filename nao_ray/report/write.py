"""The report of a pool, put where people find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nao_ray.errors import RunError
from nao_ray.pool import PoolReader, write_page
from nao_ray.report.render import COLUMNS, EMBEDDED, ROWS, render
from nao_ray.report.shared import is_shared
from nao_ray.spaces.base import SearchSpace

_WORDS = ("state", "failure_kind", "failure_message", "phase", "weights_version")  # few different ones
_FINAL = "SELECT * FROM final ORDER BY name"


def _trials(pool: PoolReader) -> pd.DataFrame:
    """The columns that a report shows; of most trials neither embedding nor genotype, which are most of a row."""
    trials = pool.trials(COLUMNS).astype(dict.fromkeys(_WORDS, "category"))
    shared = is_shared(trials)  # there the same genotype is looked for among scores of several versions
    texts = pool.trials(["trial_id", "genotype"]) if shared else pool.best(ROWS)
    trials["genotype"] = trials["trial_id"].map(texts.set_index("trial_id")["genotype"]).astype("category")
    done = trials["trial_id"][(trials["state"] == "COMPLETED") & trials["round"].notna()].to_numpy()
    some = done[np.linspace(0, len(done) - 1, min(EMBEDDED, len(done))).astype(int)]
    points = pool.trials(["trial_id", "embedding"], ids=some.tolist()).set_index("trial_id")["embedding"]
    return trials.assign(embedding=trials["trial_id"].map(points))


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
    page = render(pool.manifest, _trials(pool), pool.fits(), pool.counts().running, space, pool.sql(_FINAL))
    if out is None:
        return write_page(pool.url, page)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write the report {out}: {error.strerror or error}") from None
    return str(out)
