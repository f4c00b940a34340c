"""Earlier pools a search learns from (`strategy.warm_start`): read once, when it begins, and frozen in its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from nao_ray.addresses import absolute, masked
from nao_ray.config import RunConfig
from nao_ray.config_components import make_space
from nao_ray.errors import ConfigError, GenotypeError
from nao_ray.pool import EARLIER, PoolReader, to_parquet
from nao_ray.service.places import earlier_pools
from nao_ray.spaces.base import SearchSpace
from nao_ray.strategies.base import Earlier

MOST = 300
"""Architectures taken from a pool: the best half of so many, and the others evenly over the ranks. A fit's time grows
with their square."""
_ALIKE = ("weights_version", "epochs", "cells_per_stage", "channels", "layers", "hidden", "own_size", "data_share")
"""Columns in which trials that are compared do not differ."""


class Frozen(NamedTuple):
    """What a new pool gets."""

    data: bytes | None
    """Of its file; None: the search learns from no earlier pool."""
    manifest: Mapping[str, Any]
    """Its keys in the manifest."""


def freeze(config: RunConfig) -> Frozen:
    """What the search learns from.

    Raises:
        ConfigError: a pool is of another space, or has too little to learn from.
        PoolError: there is no such pool, or it cannot be read.
    """
    addresses = dict.fromkeys(map(absolute, earlier_pools(config)))
    if not addresses:
        return Frozen(None, {})
    space = config.make_space()
    found = [_read(address, space) for address in addresses]
    frames = [pd.DataFrame({"pool": one.pool, "genotype": one.genotypes, "score": one.scores}) for one, _ in found]
    data = to_parquet(pa.Table.from_pandas(pd.concat(frames), schema=EARLIER, preserve_index=False))
    pools = [{"pool": one.pool, "trials": trials, "used": len(one.genotypes)} for one, trials in found]
    return Frozen(bytes(data), {"warm_start": pools})


def earlier_of(pool: PoolReader) -> tuple[Earlier, ...]:
    """What the search of a pool learns from, as it was frozen.

    Raises:
        PoolError: it is missing or damaged.
    """
    data = pool.earlier()
    if data is None:
        return ()
    groups = data.to_pandas().groupby("pool", sort=False)
    return tuple(Earlier(str(name), tuple(rows["genotype"]), tuple(rows["score"])) for name, rows in groups)


def _read(address: str, space: SearchSpace[Any]) -> tuple[Earlier, int]:
    """What a pool has come to, and of how many trials."""
    where = f"strategy.warm_start: {masked(address)}"
    pool = PoolReader.open(address)
    config = pool.manifest.get("config")
    theirs = make_space(config["space"]).name if isinstance(config, Mapping) and "space" in config else None
    if theirs != space.name:
        raise ConfigError(f"{where} is of the space {theirs}, and this search of {space.name}: give pools of the same")
    column = pool.metric.column
    trials = pool.trials(["trial_id", "genotype", "state", "phase", column, *_ALIKE], rungs=True)
    trials = trials[(trials["state"] == "COMPLETED") & trials["phase"].isna() & trials[column].notna()]
    alike = _alike(trials)
    scores: dict[str, list[float]] = {}
    for text, value in zip(alike["genotype"], alike[column], strict=True):
        try:
            key = space.canonical(space.parse(str(text))).key
        except GenotypeError:
            continue  # it has operations that this search leaves out
        scores.setdefault(key, []).append(pool.metric.score(float(value)))
    if len(scores) < 2:
        raise ConfigError(f"{where} has {len(scores)} architectures of this space with a score: two are the least")
    from nao_ray.controllers.gp_controller import representatives  # needs torch

    keys, means = list(scores), np.array([np.mean(values) for values in scores.values()])
    rows = representatives(means, MOST)
    return Earlier(pool.url, tuple(keys[row] for row in rows), tuple(means[rows].tolist())), len(alike)


def _alike(trials: pd.DataFrame) -> pd.DataFrame:
    """Those that were measured alike: of networks with weights of their own, where there are any; the largest group."""
    alone = trials[trials["weights_version"].isna()]
    trials = alone if len(alone) else trials
    if trials.empty:
        return trials
    groups = trials.groupby(list(_ALIKE), dropna=False, sort=False).ngroup()
    sizes = groups.value_counts()
    found: pd.DataFrame = trials[groups == max(sizes[sizes == sizes.max()].index)]
    return found
